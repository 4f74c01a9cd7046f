"""Boards are steered while a cell waits, whether or not JupyterLab sends widget messages to subshells."""

import contextlib
import json

import pytest

from tests.browser.jupyter import Lab, lab_server, open_page, points

SETTING = ".jupyter-home/settings/@jupyterlab/apputils-extension/kernels-settings.jupyterlab-settings"
SHOW = """
import torch
torch.set_num_threads(1)
from rlhflab import Board, recipes

seen = []
board = Board(recipes.DPO(pairs=200, steps=50_000), name="queue", title="Queue", autostart=True,
              sinks=[lambda record: seen.append(record.knobs["beta"])])
board
"""


@contextlib.contextmanager
def lab_with(browser, folder, setting):
    """A page on a JupyterLab of its own, with that value of commsOverSubshells."""
    (folder / SETTING).parent.mkdir(parents=True)
    (folder / SETTING).write_text(json.dumps({"commsOverSubshells": setting}))
    with lab_server(folder) as url:
        page, errors = open_page(browser)
        yield Lab(url, folder, page, errors)
        page.context.close()
    assert [error for error in errors if "favicon" not in error] == []


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("disabled", "controls act through polling while a cell waits"),
        ("perComm", "controls act at once while a cell waits"),
        ("perCommTarget", "controls act at once while a cell waits"),
    ],
)
def test_beta_is_dragged_while_a_cell_waits(browser, tmp_path, world, sft, setting, says):
    with lab_with(browser, tmp_path, setting) as lab:
        steer(lab, says)


def steer(lab, says):
    """As after Run All; nothing but the page speaks to the kernel while the cell waits."""
    page = lab.page
    lab.write(
        "queue.ipynb", SHOW, "board.wait(); print('waited')", "order = ['first']", "order += ['second']"
    )
    lab.open("queue.ipynb")
    lab.run_all()
    view = lab.board("Queue")
    lab.poll(lambda: view.count() and points(view, "reward") >= 2, 90)
    queued, pill = page.locator(".jp-InputPrompt", has_text="[*]"), view.locator(".rlhf-pill")
    lab.poll(lambda: says in view.locator(".rlhf-progress-text").inner_text(), 20)
    for share in (0.2, 0.9):
        lab.drag(view.locator("input[type=range]").first, share)
        page.wait_for_timeout(500)
    view.get_by_role("button", name="Pause").click()
    lab.poll(lambda: pill.inner_text() == "Paused", 20)
    assert queued.count() == 3  # the cell still waits, and two wait behind it
    view.get_by_role("button", name="Resume").click()
    lab.poll(lambda: pill.inner_text() == "Training", 20)
    view.get_by_role("button", name="Stop").click()
    lab.poll(lambda: queued.count() == 0, 20)
    assert lab.in_kernel("order") == ["first", "second"]
    assert lab.in_kernel("board.state") == "stopped" and lab.in_kernel("min(seen) < 0.5 and max(seen) > 2")
    assert (
        page.locator(".jp-OutputArea-output", has_text="waited").count() == 1
    )  # in the output of its own cell
