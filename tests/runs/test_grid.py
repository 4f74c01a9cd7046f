"""The grid: its cells, their names, and with which grids a sweep goes on."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from rlhflab.core.knobs import Knob
from rlhflab.core.recipe import Recipe
from rlhflab.core.settings import knob, setting
from rlhflab.runs.grid import Grid
from tests.toy import recipe_class


def test_cells_are_the_product_seed_by_seed_with_every_setting_filled_in():
    grid = Grid(["toy", "plain"], [0.3, 1], [0, 7], {"steps": [4]})
    cells = grid.cells(recipe_class)
    assert [cell.name for cell in cells] == [
        f"{name}-beta{beta}-seed{seed}"
        for seed in (0, 7)
        for beta in ("0.3", "1")
        for name in ("toy", "plain")
    ]
    assert cells[0].recipe.config() == {
        "algorithm": "toy", "steps": 4, "beta": 0.3, "seed": 0, "diverge_at": 0, "progress": False,
    }  # fmt: skip
    assert cells[1].recipe.config() == {"algorithm": "plain", "steps": 4, "beta": 0.3, "seed": 0}


def test_a_setting_of_some_algorithms_is_swept_over_those_only():
    cells = Grid(["toy", "plain"], settings={"diverge_at": [0, 3]}).cells(recipe_class)
    assert [cell.name for cell in cells] == [
        "toy-beta1-diverge_at0-seed0",
        "toy-beta1-diverge_at3-seed0",
        "plain-beta1-seed0",
    ]
    assert [cell.swept for cell in cells] == [{"diverge_at": 0}, {"diverge_at": 3}, {}]


def test_what_a_world_has_no_setting_for_is_not_multiplied():
    @dataclass(frozen=True, kw_only=True)
    class Control(Recipe):
        algorithm = "toy"
        world: str = setting("CartPole-v1", "Where")
        steps: int = setting(3, "Updates")
        seed: int = setting(0, "Seed")

    @dataclass(frozen=True, kw_only=True)
    class Language(Control):
        beta: float = knob(1.0, Knob(1.0, 0.1, 10.0))

    grid = Grid(["toy"], [1, 3], [0], {"world": ["micro", "CartPole-v1"], "steps": [4]})
    found = grid.cells(lambda name, world=None: Language if world == "micro" else Control)
    assert [cell.name for cell in found] == [
        "toy-beta1-worldmicro-seed0",
        "toy-worldCartPole-v1-seed0",
        "toy-beta3-worldmicro-seed0",
    ]
    assert found[1].beta is None and found[1].recipe.config() == {
        "algorithm": "toy", "world": "CartPole-v1", "steps": 4, "seed": 0,
    }  # fmt: skip


def test_names_stay_apart_where_a_value_is_no_file_name():
    @dataclass(frozen=True, kw_only=True)
    class Named(Recipe):
        reward: str = setting("true", "Where scores come from")
        seed: int = setting(0, "Seed")

    values = ["/data/a/rm", "/data/b/rm", "data_a_rm", "", "x" * 40, "y" + "x" * 39]
    cells = Grid(["toy"], settings={"reward": values}).cells(lambda name, world=None: Named)
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(values)
    assert all(re.fullmatch(r"[\w.+-]+", name) for name in names)


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        (dict(algorithms=[]), "algorithms must have at least one value"),
        (dict(algorithms=["toy"], betas=[1, 2, 1]), "betas has 1 twice"),
        (dict(algorithms=["toy"], betas=[0.0]), "beta must be a number > 0, got 0.0"),
        (dict(algorithms=["toy"], betas=[float("nan")]), "beta must be a number > 0, got nan"),
        (dict(algorithms=["toy"], seeds=[-1]), "seed must be ≥ 0, got -1"),
        (dict(algorithms=["toy"], settings={"steps": []}), "steps must have at least one value"),
        (dict(algorithms="a", settings={"seed": [1]}), "seed is not a further setting; give it as the grid's seeds"),
        (dict(algorithms=["toy", "plain"], settings={"clip": [1]}), "no setting clip in toy, plain"),
        (dict(algorithms=["plain"], settings={"diverge_at": [1]}), "no setting diverge_at in plain"),
    ],
)  # fmt: skip
def test_what_is_no_grid_is_said_in_one_line(grid, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        Grid(**grid).cells(recipe_class)


FIRST = dict(algorithms=["toy"], betas=[1, 3], seeds=[0], settings={"steps": [4], "diverge_at": [0, 9]})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        (dict(betas=[3.0, 1.0, 0.1], seeds=[0, 1], algorithms=["plain", "toy"]), ""),
        (dict(settings={"steps": [4], "diverge_at": [0, 9, 2]}), ""),
        (dict(betas=[1, 2]), "betas 1.0,3.0 there, 1.0,2.0 here"),
        (dict(seeds=[1]), "seeds 0 there, 1 here"),
        (dict(settings={"steps": [5], "diverge_at": [0, 9]}), "steps 4 there, 5 here"),
        (dict(settings={"steps": [4, 5], "diverge_at": [0, 9]}), "steps 4 there, 4,5 here"),
        (dict(settings={"diverge_at": [0, 9]}), "steps 4 there, by default here"),
        (dict(settings={**FIRST["settings"], "pairs": [7]}), "pairs by default there, 7 here"),
    ],
)  # fmt: skip
def test_a_sweep_goes_on_with_the_same_grid_or_a_larger_one(tmp_path, change, says):
    path = tmp_path / "sweep.json"
    Grid(**FIRST).keep(path)
    grid = Grid(**{**FIRST, **change})
    if not says:
        grid.check_continues(path)
        return
    with pytest.raises(ValueError, match=re.escape(f"holds another sweep: {says}; use another folder")):
        grid.check_continues(path)


@pytest.mark.parametrize("content", ["", "[]", '{"settings": {}}', "{"])
def test_a_damaged_grid_is_named(tmp_path, content):
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(ValueError, match=r"sweep\.json is damaged"):
        Grid(["toy"]).check_continues(tmp_path / "sweep.json")
