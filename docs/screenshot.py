"""Make docs/board.png: a real DPO run on the board, in a real JupyterLab, seen by a real Chromium.

python -m docs.screenshot [FILE]
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.jupyter import FLAGS, Lab, find_chromium, lab_server, open_page

CELL = """
import torch
from rlhflab import Board, recipes
torch.set_num_threads(1)
board = Board(
    recipes.DPO(beta=1.0, pairs=2000, label_noise=0.1, steps=600), title="DPO in the micro world", autostart=True
)
board
"""


def main(path: Path) -> None:
    """Run the training to its end and keep the board as a picture."""
    chromium = find_chromium()
    if chromium is None:
        sys.exit("no Chromium found: apt install chromium")
    with (
        tempfile.TemporaryDirectory() as folder,
        lab_server(Path(folder)) as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page, errors = open_page(browser, width=1700, height=1500)
        lab = Lab(url, Path(folder), page, errors)
        lab.write("board.ipynb", CELL)
        lab.open("board.ipynb")
        page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area'), null")
        lab.run_all()
        view = page.locator(".rlhf").last
        lab.poll(lambda: view.count() and view.get_attribute("data-state") == "finished", 300)
        page.wait_for_timeout(5000)  # the last frame is drawn panel by panel
        view.screenshot(path=str(path))
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/board.png"))
