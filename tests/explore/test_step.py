"""The step explorable: its page's line search against the package's, payload and errors."""

from __future__ import annotations

from typing import Any

import pytest

from rlhflab.explore.step import TRIES, StepExplorable
from rlhflab.objectives.trust_region import backtrack
from tests.node import needs_node, run_module

RADII = [i / 40 * 0.5**0.5 for i in range(41)]


def measured(direction: int) -> tuple[list[float], list[float]]:
    """KL and gain along a direction: a KL that outgrows its square, a gain that turns."""
    kls = [r**2 * (1 + direction * 6 * r) for r in RADII]
    return kls, [0.5 * r - direction * r**2 for r in RADII]


def explorable(**changes: Any) -> StepExplorable:
    kls, gains = zip(*(measured(direction) for direction in (1, 2)), strict=True)
    given = {"radii": RADII, "kls": kls, "gains": gains, "slopes": [0.5, 0.5], "iterations": [5, 10]}
    return StepExplorable(**{**given, "residuals": [1.0, 0.3, 0.1], **changes})


@needs_node
def test_the_page_searches_as_the_package_does(tmp_path_factory: pytest.TempPathFactory) -> None:
    widget, deltas = explorable(), [0.001, 0.02, 0.1, 0.31, 0.5]
    script = """
    const row = (i) => ({ radii: sent.data.radii, kls: sent.data.kls[i], gains: sent.data.gains[i] });
    result = {
      trials: [0, 1].map((i) => sent.deltas.map((delta) => m.lineSearch(row(i), delta, sent.data.tries))),
      between: [-1, 0, 0.5, 1, 1.5, 9].map((x) => m.between([0, 1, 2], [3, 5, 1], x)),
    };
    """
    found = run_module(
        StepExplorable, script, {"data": widget.data, "deltas": deltas}, tmp_path_factory.mktemp("js")
    )
    assert found["between"] == [3, 3, 4, 5, 3, 1]
    for row, direction in enumerate((1, 2)):
        for delta, trials in zip(deltas, found["trials"][row], strict=True):

            def attempt(
                share: float, delta: float = delta, direction: int = direction
            ) -> tuple[float, float]:
                r = share * delta**0.5
                return 0.5 * r - direction * r**2, r**2 * (1 + direction * 6 * r)

            expected = backtrack(attempt, delta, TRIES)
            assert [t["accepted"] for t in trials] == [t.accepted for t in expected]
            for mine, theirs in zip(trials, expected, strict=True):
                assert (mine["share"], mine["gain"], mine["kl"]) == pytest.approx(theirs[:3], abs=2e-3)


def test_the_static_figure_shows_the_direction_that_is_chosen() -> None:
    widget = explorable()
    assert widget.iterations == 10
    widget.iterations = 5
    true = [trace for trace in widget.figure().data if trace.name == "true"]
    assert list(true[0].y) == pytest.approx(measured(1)[0]) and list(true[1].y) == pytest.approx(
        measured(1)[1]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slopes": [1.0]}, "must be equally long, got 2, 2, 1, 2"),
        ({"kls": [[0.0], [0.0]]}, "kls must have 41 points per direction"),
        ({"gains": [[float("nan")] * 41] * 2}, "gains must be finite"),
        ({"radii": [1.0, *RADII[1:]]}, "radii must rise from 0"),
        ({"radii": [r / 2 for r in RADII]}, r"radii must rise from 0 to √0\.5 = 0\.7071 or more"),
        ({"radii": [], "kls": [[], []], "gains": [[], []]}, "radii must rise from 0"),
        ({"residuals": [1.0, float("inf")]}, "residuals must be finite"),
        ({"residuals": []}, "residuals must have at least one number, got none"),
        ({"max_kl": 3}, r"max_kl must be a number from 0\.001 to 0\.5, got 3"),
    ],
)
def test_bad_values_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explorable(**changes)
    with pytest.raises(ValueError, match="iterations must be one of 5, 10, got 7"):
        explorable().iterations = 7
