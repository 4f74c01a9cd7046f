"""A stored run as an algorithm: a board replays it as if it were training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlhflab.core.knobs import Knobs
from rlhflab.core.record import Backdrop, Record


class StoredRun:
    """An Algorithm that returns stored records one by one; it has no knobs.

    Args:
        records: in the order of their steps.
        backdrop: the frontier, if the world has one.
        name: of the algorithm that ran.
        step: how many of the records have already been returned.
    """

    def __init__(
        self, records: list[Record], backdrop: Backdrop | None, name: str = "stored", step: int = 0
    ) -> None:
        self.name = name
        self.steps = len(records)
        self.step = step
        self.knobs = Knobs()
        self.backdrop = backdrop
        self._records = records

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        if self.step >= self.steps:
            raise StopIteration
        self.step += 1
        return self._records[self.step - 1]

    def rewind(self) -> bool:
        """Always possible, as nothing changes."""
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the position."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the position."""
        self.step = int(state["step"])
