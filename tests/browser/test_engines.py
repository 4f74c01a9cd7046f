"""Lab 10's board in a real JupyterLab: a student chooses the engine, sees it train, and the former run's ghost."""

import json
from pathlib import Path

from tests.browser.jupyter import points

LAB = Path(__file__).resolve().parents[2] / "labs" / "10_real_models.ipynb"
TITLE = "DPO · tiny · micro"


def test_choosing_trl_on_lab_10s_board_trains_anew_beside_the_ghost(steady, world, sft):
    lab = steady
    notebook = json.loads(LAB.read_text(encoding="utf-8"))
    at = next(
        i for i, cell in enumerate(notebook["cells"]) if "board_of(kept)\nboard" in "".join(cell["source"])
    )
    notebook["cells"] = notebook["cells"][
        : at + 1
    ]  # up to the board: the rest presses its buttons for the student
    former = {run.name for run in (lab.folder / "runs").glob("*")}  # of labs in other tests
    (lab.folder / LAB.name).write_text(json.dumps(notebook), encoding="utf-8")
    lab.open(LAB.name)
    lab.run_all()
    view = lab.board(TITLE)
    lab.poll(view.count, 90)
    lab.show_cell("board_of(kept)\nboard")
    view.get_by_role("button", name="Start").click()
    lab.poll(lambda: lab.in_kernel("board.state") == "finished", 90)
    last_loss = "[record.scalars['loss'] for record in kept.run.records()][-1]"
    ours = lab.in_kernel(last_loss)
    assert view.locator(".rlhf-ghost").count() == 0

    view.get_by_label("engine").select_option("trl")
    lab.poll(lambda: lab.in_kernel("board.algorithm and board.algorithm.engine") == "trl", 90)
    lab.poll(lambda: lab.in_kernel("board.state") == "finished", 120)
    assert lab.in_kernel("[board.history.step, kept.run.config['engine']]") == [200, "trl"]
    assert abs(lab.in_kernel(last_loss) - ours) < 5e-3
    assert lab.poll(lambda: view.locator(".rlhf-ghost").all_inner_texts(), 30) == ["β 1, engine lab"]
    lab.poll(lambda: points(view, "loss") >= 20, 30)
    made = {run.name for run in (lab.folder / "runs").iterdir()} - former
    assert len(made) == 2 and all(name.startswith("dpo-") for name in made)
