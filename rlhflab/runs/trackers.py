"""Records to TensorBoard, Trackio or Weights & Biases, through accelerate's trackers; off by default.

TensorBoard writes into the run's folder. The other two store records wherever they are configured to, possibly on
another machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhflab.core.record import Record

TRACKERS = ("tensorboard", "trackio", "wandb")


def check_tracker(name: str) -> None:
    """Raise ValueError in one line if `name` is not a tracker, or not installed."""
    if name not in TRACKERS:
        raise ValueError(f"tracker must be one of {', '.join(TRACKERS)}, got {name!r}")
    from accelerate.tracking import get_available_trackers

    if name not in {str(tracker) for tracker in get_available_trackers()}:
        raise ValueError(f"tracker {name} is not installed: python -m pip install {name}")


class Tracker:
    """Sends every record to a tracker; `log` is a sink for `Board` and `Player`.

    Args:
        name: "tensorboard", "trackio" or "wandb".
        folder: the run's; its name becomes the run's name in the tracker.
        config: the run's settings.

    Raises:
        ValueError: unknown or not installed, in one line.
    """

    def __init__(self, name: str, folder: str | Path, config: Mapping[str, Any] | None = None) -> None:
        check_tracker(name)
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        folder = Path(folder)
        if name == "tensorboard":
            self._tracker = LOGGER_TYPE_TO_CLASS[name]("tensorboard", logging_dir=folder)
        else:
            self._tracker = LOGGER_TYPE_TO_CLASS[name]("rlhflab", name=folder.name)
        self._tracker.start()
        if config:
            plain = (str, int, float, bool)
            self._tracker.store_init_configuration(
                {key: value if isinstance(value, plain) else str(value) for key, value in config.items()}
            )

    def log(self, record: Record) -> None:
        """Log a record's scalars, knobs and evaluations: `loss`, `knobs/beta`, `exact/regret`, `estimated/kl`, …"""
        self._tracker.log(values_of(record), step=record.step)

    def finish(self) -> None:
        """Flush and close it."""
        self._tracker.finish()


@contextmanager
def tracking(name: str | None, folder: Path, config: Mapping[str, Any]) -> Iterator[Tracker | None]:
    """A tracker that is finished at the end of the block; None if no name is given."""
    tracker = Tracker(name, folder, config) if name is not None else None
    try:
        yield tracker
    finally:
        if tracker is not None:
            tracker.finish()


def values_of(record: Record) -> dict[str, float]:
    """All single numbers of a record; names other than scalars get the prefix of their part."""
    values = dict(record.scalars)
    for part in ("knobs", "exact", "estimated"):
        values |= {f"{part}/{name}": value for name, value in (getattr(record, part) or {}).items()}
    return values
