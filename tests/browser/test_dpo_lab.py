"""Lab 07 in a real JupyterLab and a real Chromium: everything a student does with the board."""

import os
import shutil
from pathlib import Path

from tests.browser.jupyter import points

LABS = Path(__file__).resolve().parents[2] / "labs"
SHOTS = os.environ.get("RLHFLAB_SHOTS")  # a folder to keep screenshots in, to look at


def shot(lab, name):
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        lab.page.screenshot(path=f"{SHOTS}/{name}.png")


def test_a_student_works_through_lab_07(steady, world, sft):
    lab, page = steady, steady.page
    shutil.copy(LABS / "07_dpo.ipynb", lab.folder / "07_dpo.ipynb")
    lab.open("07_dpo.ipynb")
    lab.run_all()
    title = "DPO on 2,000 pairs"
    page.wait_for_selector(".jp-OutputArea", timeout=60_000)

    # Run All trains: points arrive while it goes on.
    lab.poll(lambda: lab.in_kernel("'board' in globals()") or None, 240)
    view = lab.board(title)
    lab.poll(view.count, 240)
    lab.show_cell(title)
    view.scroll_into_view_if_needed()
    lab.poll(lambda: points(view, "reward") >= 2, 240)
    lab.poll(lambda: lab.in_kernel("'run' in globals() and run.folder.joinpath('report.html').exists()"), 400)
    assert lab.in_kernel("[board.state, noisy.state]") == ["finished", "finished"]
    view.scroll_into_view_if_needed()
    shot(lab, "07-finished")

    # Start, drag β, see it in the records.
    view.get_by_role("button", name="Start again").click()
    lab.poll(lambda: lab.in_kernel("board.state") == "running", 60)
    lab.poll(lambda: lab.in_kernel("board.history.step") >= 5, 60)
    before = lab.in_kernel("board.history.knobs['beta']")
    lab.drag(view.locator("input[type=range]").first, 0.25)
    beta = lab.settled("board.player.knobs['beta']", before)
    assert abs(beta - before) > 0.05
    lab.poll(lambda: lab.in_kernel("board.history.knobs['beta']") == beta, 30)
    assert lab.in_kernel("board.algorithm.knobs.beta") == beta
    shot(lab, "07-beta-dragged")

    # Pause stands still, step makes one update, resume goes on, stop ends.
    view.get_by_role("button", name="Pause").click()
    lab.poll(lambda: lab.in_kernel("board.state") == "paused", 30)
    step = lab.in_kernel("board.history.step")
    page.wait_for_timeout(500)
    assert lab.in_kernel("board.history.step") == step
    view.get_by_role("button", name="Step").click()
    lab.poll(lambda: lab.in_kernel("board.history.step") == step + 1, 30)
    view.get_by_role("button", name="Resume").click()
    lab.poll(lambda: lab.in_kernel("board.history.step") > step + 3, 60)
    view.get_by_role("button", name="Stop").click()
    lab.poll(lambda: lab.in_kernel("board.state") == "stopped", 30)


SETUP = """
import threading, torch
torch.set_num_threads(1)
from rlhflab import Board, recipes
"""
SHOW = """
board = Board(recipes.DPO(pairs=200, steps=5000), name="again", title="Again", autostart=True)
board
"""


def run_cell(lab, index):
    lab.page.evaluate(
        """(index) => {
          window.jupyterapp.shell.currentWidget.content.activeCellIndex = index;
          window.jupyterapp.commands.execute("notebook:run-cell");
        }""",
        index,
    )


def test_running_the_cell_again_leaves_one_training_and_a_reopened_page_shows_it(steady, world, sft):
    lab, page = steady, steady.page
    lab.write("again.ipynb", SETUP, SHOW)
    lab.open("again.ipynb")
    lab.run_all()
    lab.poll(lambda: lab.in_kernel("'board' in globals() and board.history.step > 30"), 90)  # two evaluations
    alive = "sum(thread.name.startswith('rlhflab') and thread.is_alive() for thread in threading.enumerate())"
    threads = lab.in_kernel(alive)
    run_cell(lab, 1)
    lab.poll(lambda: lab.in_kernel("board.history.step > 10 and len(board._ghosts) == 1"), 90)
    assert lab.in_kernel(alive) == threads
    assert lab.board("Again").locator(".rlhf-ghost").count() == 1
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    page.wait_for_timeout(1000)

    step = lab.in_kernel("board.history.step")
    page.reload()
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    view = lab.board("Again")
    lab.poll(lambda: view.count() and points(view, "reward") >= 2, 60)
    lab.poll(lambda: lab.in_kernel("board.history.step") > step, 60)
    shot(lab, "again-reopened")
    lab.in_kernel("board.stop()")


WATCH = """
seen = set()
board = Board(recipes.DPO(pairs=200, steps=50_000), name="busy", title="Busy", autostart=True,
              sinks=[lambda record: seen.add(record.knobs["beta"])])
board
"""


def test_the_board_is_steered_while_a_cell_waits_for_it(steady, world, sft):
    """As after Run All; nothing but the page speaks to the kernel while the cell waits."""
    lab, page = steady, steady.page
    lab.write("busy.ipynb", SETUP, WATCH, "board.wait()")
    lab.open("busy.ipynb")
    lab.run_all()
    view = lab.board("Busy")
    lab.poll(lambda: view.count() and points(view, "reward") >= 2, 90)
    waiting, pill = page.locator(".jp-InputPrompt", has_text="[*]"), view.locator(".rlhf-pill")
    assert waiting.count() == 1
    for share in (0.2, 0.9):
        lab.drag(view.locator("input[type=range]").first, share)
        page.wait_for_timeout(500)
    view.get_by_role("button", name="Pause").click()
    hint = view.locator(".rlhf-progress-text")
    lab.poll(lambda: pill.inner_text() == "Paused" and hint.inner_text().endswith("a cell waits"), 20)
    assert "Stop ends it so that the cell can finish" in hint.get_attribute("title")
    shot(lab, "busy-paused")
    view.get_by_role("button", name="Resume").click()
    lab.poll(lambda: pill.inner_text() == "Training", 20)
    assert waiting.count() == 1  # a pause does not let the cell go
    view.get_by_role("button", name="Stop").click()
    lab.poll(lambda: pill.inner_text() == "Stopped" and waiting.count() == 0, 20)
    assert lab.in_kernel("board.state") == "stopped" and lab.in_kernel("min(seen) < 0.5 and max(seen) > 2")


def test_an_exception_is_shown_in_the_view_as_text_and_the_kernel_stays_usable(steady, world, sft):
    lab = steady
    broken = """
def make():
    algorithm = recipes.DPO(pairs=100, steps=50).build()
    step = algorithm.pairs.next
    def fail():
        if algorithm.step == 5:
            raise RuntimeError("<img src=x onerror=alert(1)> went wrong")
        return step()
    algorithm.pairs.next = fail
    return algorithm

board = Board(make, knobs=recipes.DPO().knobs(), name="broken", title="Broken", autostart=True)
board
"""
    lab.write("broken.ipynb", SETUP, broken)
    lab.open("broken.ipynb")
    lab.run_all()
    box = lab.board("Broken").locator(".rlhf-error")
    lab.poll(lambda: box.count() and box.is_visible(), 90)
    assert "<img src=x onerror=alert(1)> went wrong" in box.inner_text()
    assert lab.page.locator("img[src=x]").count() == 0
    assert lab.in_kernel("[board.state, 1 + 1]") == ["error", 2]
    shot(lab, "broken")
