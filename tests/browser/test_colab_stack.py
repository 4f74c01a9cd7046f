"""Lab 07 as `rlhflab colab` writes it, on Colab's versions; of pages, Notebook 6 is the nearest that can be had."""

import shutil
from pathlib import Path

import pytest

from rlhflab.colab.notebooks import write_colab
from tests.browser.jupyter import Lab, open_page, points, serve

LABS = Path(__file__).resolve().parents[2] / "labs"
NOT_OURS = ("Access to font at 'about:blank'", "net::ERR_FAILED")  # Notebook 6's own style sheet
READY = "window.Jupyter?.notebook?.kernel?.is_connected() && Jupyter.notebook._fully_loaded"
CELLS = "Jupyter.notebook.get_cells().filter((cell) => cell.cell_type === 'code')"
WAITING = f"{CELLS}.filter((cell) => cell.input_prompt_number === '*').length"
ERRORS = f"{CELLS}.flatMap((c) => c.output_area.outputs).filter((o) => o.output_type === 'error').map((o) => o.evalue)"
ASK = """(code) => new Promise((resolve) => Jupyter.notebook.kernel.execute(
  code, { iopub: { output: (message) => resolve(message.content.text) } }, { silent: false, store_history: false }))"""


@pytest.fixture
def classic(browser, colab_python, tmp_path):
    """A page on a Notebook 6 server whose kernels take turns with the widgets, as Colab's do."""
    options = {"token": "", "password": "", "disable_check_xsrf": "True", "notebook_dir": str(tmp_path)}
    command = [str(colab_python), "-m", "notebook", *(f"--NotebookApp.{k}={v}" for k, v in options.items())]
    with serve(command, tmp_path, RLHFLAB_DRIVER="poll", PYTHONPATH="") as url:
        page, errors = open_page(browser)
        yield Lab(url, tmp_path, page, errors)
        page.context.close()
    assert [error for error in errors if not any(known in error for known in NOT_OURS)] == []


def test_lab_07_runs_and_follows_the_slider_while_its_cell_waits(classic, sft, tmp_path):
    lab, page = classic, classic.page
    write_colab(LABS, tmp_path / "colab")
    shutil.copy(tmp_path / "colab" / "07_dpo.ipynb", lab.folder)
    page.goto(f"{lab.url}/notebooks/07_dpo.ipynb")
    page.wait_for_function(READY, timeout=60_000)
    page.wait_for_timeout(
        3000
    )  # its widget manager asks the kernel for widgets that may be there, and is not heard
    page.evaluate(
        "Jupyter.notebook.execute_all_cells()"
    )  # any more once all cells wait in the kernel's queue

    view = page.locator(".rlhf", has=page.locator(".rlhf-title:text-is('DPO on 2,000 pairs')")).last
    lab.poll(lambda: view.count() and view.is_visible(), 240)
    view.scroll_into_view_if_needed()
    lab.poll(lambda: points(view, "reward") >= 2, 120)
    waiting = page.evaluate(WAITING)
    lab.drag(view.locator("input[type=range]").first, 0.25)
    assert waiting and page.evaluate(WAITING) == waiting  # the cell after the board waits for it all the time
    lab.poll(lambda: page.evaluate(WAITING) == 0, 240)

    assert page.evaluate(ERRORS) == []
    asked = page.evaluate(ASK, "print(board.player.driver, board.state, board.history.knobs['beta'])")
    driver, state, beta = asked.split()
    assert (driver, state) == ("poll", "finished") and abs(float(beta) - 1) > 0.05
    assert points(view, "loss") >= 2 and points(view, "plane") >= 2
