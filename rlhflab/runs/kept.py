"""Runs driven by a board: every start gets its own folder, with records, checkpoints and finally the model."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhflab.core.algorithm import Algorithm, OutOfMemory, TrainingDiverged
from rlhflab.core.recipe import Recipe
from rlhflab.core.record import Record
from rlhflab.remedies import headline
from rlhflab.runs.drive import CHECKPOINT_EVERY, Checkpoints, finish, resume
from rlhflab.runs.store import Run, default_run_folder


class KeptRuns:
    """A source for boards that saves its runs: it makes the algorithm, and receives its records.

    A run's folder is made with its first record. If a run is continued, the first algorithm is that run's; resetting
    the board begins a new one beside it.

    Args:
        recipe: what is trained.
        parent: the folder for the runs' folders.
        every: steps between checkpoints; slow steps make them due earlier, see `Checkpoints`.

    >>> kept = KeptRuns(recipes.DPO(steps=100))                            # doctest: +SKIP
    >>> board = Board(kept)                                                # doctest: +SKIP
    """

    def __init__(
        self,
        recipe: Recipe,
        parent: str | Path = "runs",
        every: int = CHECKPOINT_EVERY,
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be ≥ 1 step, got {every}")
        self.recipe = recipe
        self.run: Run | None = None
        """The newest run; None before its first record."""
        self._parent, self._every = Path(parent), every
        self._waiting: Algorithm | None = None  # built, but not yet given to a board
        self._made: weakref.ref[Algorithm] | None = (
            None  # only the board keeps it alive: two models might not fit
        )
        self._continues = False  # the next algorithm to be built is that of `run`
        self._started = time.perf_counter()
        self._checkpoints: Checkpoints | None = None  # of `run`
        self._recorded = 0  # step of its last record

    @classmethod
    def open(
        cls,
        recipe_of: Callable[[Mapping[str, Any]], Recipe],
        folder: str | Path,
        every: int = CHECKPOINT_EVERY,
    ) -> KeptRuns:
        """Continue the run in a folder from its last checkpoint.

        Args:
            recipe_of: config → recipe; `recipes.from_config`.
            folder, every: of the run, and as above.

        Raises:
            ValueError: the folder is not a run, or one of its files is damaged.
        """
        run = Run.open(folder)
        kept = cls(recipe_of(run.config), run.folder.parent, every)
        kept.run, kept._continues = run, True
        return kept

    @property
    def before(self) -> Iterator[Record]:
        """The records so far of the continued run; a board shows them."""
        return iter(()) if self.run is None else self.run.records()

    def prepare(self) -> dict[str, str]:
        """Build the first algorithm now rather than on the training thread, where nothing can be printed.

        Returns:
            notes on its model and data, one line each, by name.

        Raises:
            ValueError: as the recipe's `build`.
        """
        self._waiting = self._built(self.recipe)
        return dict(getattr(self._waiting, "notes", {}))

    def make(self, **changes: Any) -> Algorithm:
        """The prepared algorithm, or a new one whose settings differ in `changes`."""
        same = all(getattr(self.recipe, name) == value for name, value in changes.items())
        algorithm, self._waiting = self._waiting if same else None, None
        self._continues = self._continues and same  # a run continues only with its own settings
        self.recipe = self.recipe.but(**changes)
        if algorithm is None:
            algorithm = self._built(self.recipe)
        self._made, self._started = weakref.ref(algorithm), time.perf_counter()
        return algorithm

    def __call__(self, record: Record) -> None:
        """Save a record, and a checkpoint if one is due; the last record ends the run."""
        algorithm = self._made() if self._made else None
        assert algorithm is not None, "records come from the algorithm that was made"
        if self.run is None:
            folder = default_run_folder(self.recipe.algorithm, self._parent)
            notes = getattr(algorithm, "notes", None)
            self.run = Run.create(folder, self.recipe.config(), algorithm.backdrop, notes)
        if self._checkpoints is None:
            self._checkpoints = Checkpoints(self.run, record.step - 1, self._every)
        self.run.append(record)
        self._recorded = record.step
        if algorithm.step >= algorithm.steps:
            self._checkpoints.write(algorithm)
            finish(algorithm, self.run, "finished", time.perf_counter() - self._started)
        else:
            self._checkpoints.after(algorithm)

    def save(self) -> Path:
        """Save a checkpoint now, while the training is paused; returns the run's folder.

        Raises:
            ValueError: there is no run yet, or an update has failed with the weights changed.
        """
        algorithm = self._made() if self._made else None
        if self.run is None or algorithm is None or self._checkpoints is None:
            raise ValueError("there is nothing to save before the first update")
        if getattr(algorithm, "halfway", False) and not algorithm.rewind():
            raise ValueError(
                f"the update that failed had begun to change the weights; {self.run.folder} has the checkpoint of step "
                f"{self._checkpoints.kept}"
            )
        self._checkpoints.write(algorithm)
        return self.run.folder

    def failed(self, error: BaseException) -> None:
        """After an error save the last complete update, and the error in the status; called by a board's player."""
        algorithm = self._made() if self._made else None
        if self.run is None or algorithm is None or self._checkpoints is None:
            return
        said: dict[str, Any] = {"error": headline(error)}
        status = "out of memory" if isinstance(error, OutOfMemory) else "failed"
        if isinstance(error, TrainingDiverged):
            status = "diverged"
        else:
            said["checkpoint"] = self._checkpoints.rescue(algorithm, self._recorded)
        finish(algorithm, self.run, status, time.perf_counter() - self._started, **said)

    def close(self) -> None:
        """Release what was prepared, and stop writing: another `KeptRuns` may open the run, or need the memory."""
        self._waiting = self._made = None
        if self.run is not None:
            self.run.close()

    def _built(self, recipe: Recipe) -> Algorithm:
        gc.collect()  # models are in reference cycles, the previous one perhaps too
        if self.run is not None and self._continues:
            self._continues = False
            algorithm = resume(recipe, self.run)
            self._checkpoints = Checkpoints(self.run, algorithm.step, self._every)
            self._recorded = algorithm.step
            if algorithm.step >= algorithm.steps:  # no further record will come to end it
                finish(algorithm, self.run, "finished", 0.0)
            return algorithm
        if self.run is not None:
            self.run.close()
        self.run = self._checkpoints = None
        return recipe.build()
