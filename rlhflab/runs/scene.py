"""A run's records as scenes to draw: its algorithm's plots, and everything else that it recorded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rlhflab.core.record import Backdrop, Record
from rlhflab.plots.history import History
from rlhflab.plots.marks import Scene
from rlhflab.plots.panels import PANELS, stored_name
from rlhflab.plots.panels_general import general_panels

POINTS = 1000  # of a curve; longer runs are shown in as many buckets, extrema kept


def scenes(
    records: Iterable[Record], backdrop: Backdrop | None = None, algorithm: str = ""
) -> tuple[Scene, Scene]:
    """Return two scenes of a run: its algorithm's panels, and general panels for everything else in its records.

    Args:
        records: in the order of their steps.
        backdrop: the frontier, if known.
        algorithm: its name in the run's configuration; without panels of its own the general ones show everything.
    """
    history = History(POINTS)
    turns: list[tuple[int, float]] = []
    for record in records:
        history.add(record)
        beta = record.knobs.get("beta")
        if beta is not None and (not turns or turns[-1][1] != beta):
            turns.append((record.step, beta))
    own = PANELS.get(stored_name(algorithm, history), ())
    frame = history.snapshot(rows=0, whole=True)
    scene = Scene(own, frame, backdrop, history.knobs.get("beta"), turns=turns)
    rest = general_panels(history.names(), history.arrays(), beside=own)
    return scene, replace(scene, panels=rest)
