"""What a run leaves behind on its board."""

from __future__ import annotations

import pytest

from rlhflab.core.record import Record
from rlhflab.live.ghosts import ghost_of
from rlhflab.plots.history import History
from rlhflab.plots.panel import Line, Panel

LOSS = Panel("loss", "", "", (), (), lines=(Line("loss", "", "fit", ghost=True), Line("norm", "", "fit")))


def history(steps: int) -> History:
    found = History()
    for step in range(1, steps + 1):
        exact = {"kl": step / 10, "reward": 1.0 + step}
        found.add(Record(step, {"loss": 1 / step, "norm": 1.0}, {"beta": 0.5}, exact=exact))
    return found


def test_a_ghost_holds_what_its_lines_name_and_where_the_run_went() -> None:
    assert ghost_of(history(3), [LOSS], "dpo", ["fresh", "noisy"]) == {
        "algorithm": "dpo", "label": "β 0.5, fresh, noisy",
        "series": {"loss": {"x": [1, 2, 3], "y": [1.0, 0.5, 0.3333]}},
        "trail": {"kl": [0.1, 0.2, 0.3], "reward": [2.0, 3.0, 4.0]},
    }  # fmt: skip


@pytest.mark.parametrize("steps", [59, 60, 61, 100])
def test_a_curve_has_sixty_points_with_both_ends(steps: int) -> None:
    ghost = ghost_of(history(steps), [LOSS], "dpo", ())
    assert ghost is not None
    x = ghost["series"]["loss"]["x"]
    assert len(x) == min(steps, 60) and (x[0], x[-1]) == (1, steps) and ghost["label"] == "β 0.5"


def test_a_point_of_a_long_curve_is_a_mean() -> None:
    whole = History(points=8)
    for step in range(1, 65):
        whole.add(Record(step, {"loss": float(step)}, {}))
    ghost = ghost_of(whole, [LOSS], "dpo", ())
    assert ghost is not None and ghost["label"] == ""
    curve = ghost["series"]["loss"]
    begins = [0, *curve["x"][:-1]]
    assert len(curve["x"]) <= 9 and curve["y"] == [
        (a + 1 + b) / 2 for a, b in zip(begins, curve["x"], strict=True)
    ]


def test_one_record_or_nothing_to_see_leaves_no_ghost() -> None:
    assert ghost_of(history(1), [LOSS], "dpo", ()) is None
    bare = History()
    for step in (1, 2):
        bare.add(Record(step, {"other": 1.0}, {}))
    assert ghost_of(bare, [LOSS], "dpo", ()) is None
