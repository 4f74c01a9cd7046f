"""Ghosts: the faint curves that a run leaves on its board for later runs of the same algorithm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rlhflab.plots.buckets import evenly, rounded
from rlhflab.plots.history import History
from rlhflab.plots.panel import Panel, ghost_series

MAX_GHOSTS = 4
_POINTS = 60  # of one curve


def ghost_of(
    history: History, panels: Iterable[Panel], algorithm: str, choices: Sequence[str]
) -> dict[str, Any] | None:
    """Return a run's curves and trail as a frame shows them, JSON-serialisable; None if there is too little to see.

    Args:
        history: of the run.
        panels: their lines determine what is kept.
        algorithm: its name; boards show only ghosts of their own algorithm.
        choices: the run's choices in words; they follow β in its label.
    """
    series = {}
    for name in ghost_series(panels):
        points = evenly([(b[0], b[2] / b[1]) for b in history.curve(name) if b[1]], _POINTS)
        if len(points) > 1:
            series[name] = {"x": [p[0] for p in points], "y": [rounded(p[1], 4) for p in points]}
    places = [(kl, r) for _, (kl, r, *_) in history.trail()]
    trail = evenly([place for place in places if all(map(math.isfinite, place))], _POINTS)
    if history.records < 2 or (not series and len(trail) < 2):
        return None
    beta = history.knobs.get("beta")
    return {
        "algorithm": algorithm,
        "label": ", ".join([*([] if beta is None else [f"β {beta:.3g}"]), *choices]),
        "series": series,
        "trail": {"kl": [rounded(p[0], 4) for p in trail], "reward": [rounded(p[1], 4) for p in trail]},
    }
