"""Batches of row indices: shuffled epochs that can be stopped and continued exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class ShuffledBatches:
    """Row indices in shuffled epochs, each row once per epoch; a batch may span two epochs.

    Args:
        rows: size of the data set, ≥ 1.
        batch_size: rows per batch.
        seed: of the shuffling.
    """

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        if rows < 1:
            raise ValueError("the data set is empty")
        self._rows, self._size = rows, batch_size
        self._generator = torch.Generator().manual_seed(seed)
        self._queue = torch.empty(0, dtype=torch.long)

    def next(self) -> torch.Tensor:
        """The next batch's indices, [batch_size]."""
        while len(self._queue) < self._size:
            self._queue = torch.cat([self._queue, torch.randperm(self._rows, generator=self._generator)])
        batch, self._queue = self._queue[: self._size], self._queue[self._size :]
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The rest of the epoch and the random state."""
        return {
            "rows": self._rows, "queue": self._queue.clone(), "generator": self._generator.get_state()
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; ValueError if the data have another size."""
        rows = state.get("rows", self._rows)  # absent in older runs
        if rows != self._rows or (len(state["queue"]) and int(state["queue"].max()) >= rows):
            raise ValueError(f"it is a position among {rows} rows of data, but now there are {self._rows}")
        self._queue = state["queue"].clone()
        self._generator.set_state(state["generator"])
