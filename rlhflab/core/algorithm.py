"""The contract of every algorithm: an iterator of records that can be stopped and continued exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from rlhflab.core.knobs import Knobs
from rlhflab.core.record import Backdrop, Record
from rlhflab.oom import OutOfMemory

__all__ = ["Algorithm", "OutOfMemory", "TrainingDiverged"]


class TrainingDiverged(RuntimeError):
    """The loss or a weight became NaN or infinite; the message names the step and the knobs in force."""


class Algorithm(Protocol):
    """What drivers, runs and boards may use of an algorithm; it never prints, plots, writes or sleeps.

    Attributes:
        name: "dpo", "ppo", …
        steps: how many updates the iterator makes before it ends.
        step: updates made so far.
        knobs: the live values; set from outside between steps, read once per step.
        backdrop: the exact frontier where the world is enumerable, else None.
    """

    name: str
    steps: int
    step: int
    backdrop: Backdrop | None

    @property
    def knobs(self) -> Knobs: ...

    def __iter__(self) -> Iterator[Record]: ...

    def __next__(self) -> Record:
        """Make one update and return its record; raise StopIteration after `steps`.

        An update that fails does not count. It raises TrainingDiverged on NaN, and OutOfMemory when memory runs out.
        That error keeps nothing of the update alive, so the next update can be tried, or a smaller training built.
        """
        ...

    def rewind(self) -> bool:
        """After a failed update, go back to the last complete one, as if the failed one had never been tried.

        Returns False, and does nothing, if the weights have already been changed.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser, random state and position: nested dicts with string keys, tensors or JSON leaves."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state` was taken."""
        ...
