"""The plots of a sweep's page: how far their axes reach, and what stands at which β."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlhflab.plots.panels_sweep import Cell, sweep_plane, sweep_regret
from tests.toy import BACKDROP


def cell(beta: float, kl: float, algorithm: str = "dpo", settings: str = "", regret: float = 0.5) -> Cell:
    judged = {"kl": kl, "reward": 1.0 + kl, "regret": regret}
    return Cell(algorithm=algorithm, settings=settings, words=f"{algorithm} {beta}", beta=beta, judged=judged)


def test_the_plane_reaches_beyond_the_runs_and_the_optima_that_are_known() -> None:
    known = replace(BACKDROP, reward_se=(0.1, 0.1, 0.1))  # an estimate, from β = 0.1 on
    for cells, backdrops, right in (
        ([cell(1.0, 0.2)], {"dpo": BACKDROP}, 1.25 * 1.0),  # π* at β = 1
        ([cell(1.0, 3.0)], {"dpo": BACKDROP}, 1.25 * 3.0),
        ([cell(0.05, 0.2), cell(1.0, 0.2)], {"dpo": known}, 1.25 * 1.0),
        ([cell(1.0, 0.02)], {}, 1.25 * 0.1),
    ):
        plot = sweep_plane(cells, backdrops)
        assert plot is not None and plot.x_range == (pytest.approx(-0.03 * right), pytest.approx(right))
        stars = [mark for mark in plot.marks if mark.symbol == "star"]
        assert [list(mark.text) for mark in stars] == [["β = 1"]] * len(backdrops)
    assert sweep_plane([cell(1.0, 0.2)._replace(judged={})], {}) is None


def test_a_larger_beta_is_a_larger_dot_and_every_algorithm_is_named_once() -> None:
    cells = [cell(beta, beta, name) for name in ("dpo", "ppo") for beta in (0.1, 1.0, 10.0)]
    plot = sweep_plane(cells, {"dpo": BACKDROP, "ppo": BACKDROP})
    assert plot is not None
    dots = [mark for mark in plot.marks if mark.opacity == 0.75]
    assert [(mark.name, mark.width) for mark in dots] == [
        ("dpo", 8), ("", 13), ("", 18), ("ppo", 8), ("", 13), ("", 18),
    ]  # fmt: skip
    assert [mark.name for mark in plot.marks if mark.symbol == "star"] == ["π*"]  # of one frontier


def test_regret_is_a_mean_over_seeds_with_its_ends_over_a_logarithmic_beta() -> None:
    cells = [cell(0.1, 1.0, regret=0.2), cell(1.0, 1.0, regret=0.1), cell(1.0, 1.0, regret=0.5)]
    plot = sweep_regret(cells)
    assert plot is not None and plot.x_log and plot.x_ticks == [(0.1, "0.1"), (1.0, "1")]
    assert plot.x_range == (pytest.approx(0.1 / 1.3), pytest.approx(1.3)) and plot.y_range[0] == 0.0
    band, stroke, _ = plot.marks
    assert (list(band.y), list(band.y2), list(stroke.x)) == ([0.2, 0.1], [0.2, 0.5], [0.1, 1.0])
    assert stroke.y == pytest.approx([0.2, 0.3]) and stroke.name == "dpo"
