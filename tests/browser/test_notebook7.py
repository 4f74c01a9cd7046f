"""The board in Notebook 7: points arrive, the mouse turns β, the records say so."""

from tests.browser.jupyter import points

SHOW = """
import torch
torch.set_num_threads(1)
from rlhflab import Board, recipes

board = Board(recipes.DPO(pairs=200, steps=60), name="seven", title="Seven", autostart=True)
board
"""


def test_the_board_works_in_notebook_7(steady, world, sft):
    lab = steady
    lab.write("seven.ipynb", SHOW)
    lab.open("seven.ipynb", route="notebooks")
    lab.run_all()
    view = lab.board("Seven")
    lab.poll(lambda: view.count() and points(view, "loss") >= 2, 90)
    lab.poll(lambda: lab.in_kernel("board.state") == "finished", 60)  # soon: 60 steps

    before = lab.in_kernel("board.history.knobs['beta']")
    lab.drag(view.locator("input[type=range]").first, 0.25)
    turned = lab.settled("board.player.knobs['beta']", before)
    assert abs(turned - before) > 0.05
    view.get_by_role("button", name="Start again").click()
    lab.poll(lambda: lab.in_kernel("board.history.knobs.get('beta')") == turned, 60)
    lab.poll(lambda: points(view, "loss") >= 2, 60)
