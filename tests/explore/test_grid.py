"""The grid explorable: its values against the textbook's and the page's, its trajectories against its values."""

from __future__ import annotations

from typing import Any

import pytest

from rlhflab.explore.grid import GridExplorable
from tests.node import needs_node, run_module


def test_the_best_policy_has_the_textbooks_values() -> None:
    """Russell & Norvig, figure 17.3; they pay for the cell one is in, here one pays for the next: 0.04 less."""
    values = GridExplorable(epsilon=0.0).exact().values
    book = [0.812, 0.868, 0.918, None, 0.762, None, 0.660, None, 0.705, 0.655, 0.611, 0.388]
    for ours, theirs in zip(values.tolist(), book, strict=True):
        if theirs is not None:
            assert ours - 0.04 == pytest.approx(theirs, abs=6e-4)


def test_a_sure_world_is_counted_by_hand() -> None:
    view = GridExplorable(("@..+",), epsilon=0.0, slip=0.0, gamma=0.5)
    assert view.exact().values.tolist() == pytest.approx([-0.04 - 0.02 + 0.25, -0.04 + 0.5, 1.0, 0.0])
    assert view.exact().policy[0].tolist() == [0.0, 1.0, 0.0, 0.0]
    random = GridExplorable(
        ("@+",), epsilon=1.0, slip=0.0
    )  # each step ends with probability ¼: three others on average
    assert float(random.exact().values[0]) == pytest.approx(1 - 3 * 0.04)


def test_bad_grids_and_starts_are_one_line() -> None:
    for grid in (("..", "@"), ("@x+",), ("..+",), ("@@+",)):
        with pytest.raises(ValueError, match="a grid is rows of one length"):
            GridExplorable(grid)
    for grid in (("@..",), ("@#+",), ("@+", "##", "..")):
        with pytest.raises(ValueError, match="needs an end"):
            GridExplorable(grid)
    view = GridExplorable()
    with pytest.raises(ValueError, match="start must be a free cell, got 5"):
        view.start = 5
    with pytest.raises(ValueError, match="trajectory must be from 1 to 300, got 0"):
        view.trajectory = 0
    assert view.figure().data


def test_the_figure_has_every_cell_with_its_best_way_and_value() -> None:
    view = GridExplorable(("@..+", ".#.-"), epsilon=0.0, slip=0.0)
    (heat,) = view.figure().data
    assert [list(row) for row in heat.text] == [["→", "→", "→", "+"], ["↑", "#", "↑", "-"]]
    values = view.exact().values.reshape(2, 4).tolist()
    assert [list(row) for row in heat.z] == values and values[0][2] == pytest.approx(1.0)


SCRIPT = """
result = sent.cases.map((values) => {
  const solution = m.solved(sent.data, values);
  const all = Array.from({ length: 2000 }, (_, i) => m.trajectoryOf(sent.data, solution, values, i + 1));
  return { values: solution.values, policy: solution.policy, totals: all.map(({ total }) => total), first: all[0] };
});
const random = m.randomOf(7);
result.push(Array.from({ length: 4000 }, random));
"""


@needs_node
def test_the_page_and_python_agree_and_trajectories_earn_the_value(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    views = [GridExplorable(), GridExplorable(epsilon=0.6, slip=0.0, gamma=0.9), GridExplorable(epsilon=0.0)]
    names = ("epsilon", "slip", "gamma", "start")
    sent = {"data": views[0].data, "cases": [{name: getattr(view, name) for name in names} for view in views]}
    *found, uniform = run_module(GridExplorable, SCRIPT, sent, tmp_path_factory.mktemp("js"))
    for view, page in zip(views, found, strict=True):
        exact: Any = view.exact()
        assert page["values"] == pytest.approx(exact.values.tolist(), abs=1e-6)
        free = [s for s, cell in enumerate("".join(view.data["rows"])) if cell == "."]
        for s in free:
            assert page["policy"][s] == pytest.approx(exact.policy[s].tolist())
        totals = page["totals"]
        mean = sum(totals) / len(totals)
        se = (sum((x - mean) ** 2 for x in totals) / (len(totals) - 1) / len(totals)) ** 0.5
        assert abs(mean - page["values"][view.start]) < 4 * se
        steps = page["first"]["steps"]
        assert page["first"]["total"] == pytest.approx(
            sum(view.gamma**t * step["r"] for t, step in enumerate(steps))
        )
    assert abs(sum(uniform) / 4000 - 0.5) < 0.02 and min(uniform) >= 0 and max(uniform) < 1


@needs_node
def test_the_arrow_keys_lead_from_free_cell_to_free_cell(tmp_path_factory: pytest.TempPathFactory) -> None:
    script = "result = sent.ways.map(([s, right, down]) => m.nextFree(sent, s, right, down));"
    ways = [
        [8, 1, 0],
        [8, 0, -1],
        [4, 1, 0],
        [6, 1, 0],
        [2, 1, 0],
        [8, 0, 1],
        [0, -1, 0],
    ]  # wall in 5, ends in 3, 7
    sent = {"rows": GridExplorable().data["rows"], "ways": ways}
    found = run_module(GridExplorable, script, sent, tmp_path_factory.mktemp("js"))
    assert found == [9, 4, 6, None, None, None, None]
