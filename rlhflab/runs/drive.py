"""Run an algorithm to its end and save its run: what `rlhflab train` and every cell of a sweep do."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from rlhflab import processes
from rlhflab.boundary import Fault
from rlhflab.core.algorithm import Algorithm, OutOfMemory, TrainingDiverged
from rlhflab.core.recipe import Recipe
from rlhflab.core.record import Record
from rlhflab.oom import out_of_memory
from rlhflab.remedies import headline
from rlhflab.runs.json_files import writing
from rlhflab.runs.store import Run, default_run_folder
from rlhflab.runs.unchanged import require_unchanged

CHECKPOINT_EVERY = 100  # steps
CHECKPOINT_SECONDS = 60.0  # the most that a kill may cost
WRITING = 0.02  # largest fraction of the time spent on checkpoints
FREE = 1.0  # seconds of writing that never matter


def begin(recipe: Recipe, folder: Path | None = None) -> tuple[Algorithm, Run]:
    """Build a recipe's algorithm and create its run, with a first checkpoint at the start.

    Args:
        recipe: its config is saved.
        folder: new or empty; by default a new one in runs/, made once the algorithm is built.

    Raises:
        ValueError: a setting that makes no sense, or a folder that is not empty.
    """
    algorithm = recipe.build()
    notes = getattr(algorithm, "notes", None)
    run = Run.create(
        folder or default_run_folder(recipe.algorithm), recipe.config(), algorithm.backdrop, notes
    )
    run.save_checkpoint(algorithm)
    return algorithm, run


def resume(recipe: Recipe, run: Run) -> Algorithm:
    """Rebuild a run's algorithm and restore its last checkpoint.

    Args:
        recipe: the run's own, possibly with another device.
        run: its records after that checkpoint are dropped; of several processes the main one does it.

    Raises:
        Fault: the run's settings or data have changed since its checkpoint, or it does not fit the rebuilt algorithm.
    """
    require_unchanged(run)
    algorithm = recipe.build()
    run.load_checkpoint(algorithm, drop=processes.is_main())
    return algorithm


class Checkpoints:
    """Decides when a run's state is written while its algorithm advances, and knows which step is on the disk.

    A checkpoint is due every `every` steps, and earlier if more than CHECKPOINT_SECONDS could be lost; but if writing
    is slow, only so often that it takes at most the fraction WRITING of the time.

    Args:
        run: its last checkpoint, if any, is of the algorithm's current step.
        step: that step.
        every: steps between checkpoints.

    Attributes:
        kept: the step of the last checkpoint.
    """

    def __init__(self, run: Run, step: int, every: int | None = None) -> None:
        self.run, self.kept, self._every = run, step, every or CHECKPOINT_EVERY
        self._began = self._written = self._stepped = time.perf_counter()
        self._spent = 0.0

    def after(self, algorithm: Algorithm) -> None:
        """Write a checkpoint if one is due after the algorithm's newest step."""
        now, cost = time.perf_counter(), self.run.seconds_to_save
        another = now - self._stepped  # the next step will take as long
        self._stepped, waited = now, now - self._written
        by_count = algorithm.step % self._every == 0
        by_time = waited + another >= CHECKPOINT_SECONDS and waited >= cost / WRITING
        if by_time or (by_count and self._spent + cost <= FREE + WRITING * (now - self._began)):
            self.write(algorithm)

    def write(self, algorithm: Algorithm) -> None:
        """Write one now."""
        self.run.save_checkpoint(algorithm)
        self.kept = algorithm.step
        self._written = self._stepped = time.perf_counter()
        self._spent += self.run.seconds_to_save

    def rescue(self, algorithm: Algorithm, recorded: int) -> int | None:
        """After a failure, save the last complete update if it is still in memory; else the last checkpoint stays.

        Args:
            algorithm: the one that has failed.
            recorded: step of the last record that was saved.

        Returns:
            the step that is on the disk; None if there is no checkpoint, or no longer one.
        """
        with suppress(
            Exception
        ):  # such as a full disk: the previous checkpoint is intact, and the message names its step
            if algorithm.rewind() and algorithm.step == recorded:
                self.write(algorithm)
        return self.kept if self.run.has_checkpoint else None


def drive(
    algorithm: Algorithm,
    run: Run,
    watch: Callable[[Record], object] | None = None,
    line: Callable[[OutOfMemory], str] = str,
) -> dict[str, Any]:
    """Run an algorithm to its end; its run keeps every record, the checkpoints and how it ended.

    Args:
        algorithm: new, or restored from its run's checkpoint.
        run: the run to append to.
        watch: called with every record; if it returns a true value the run is stopped, to be continued later.
        line: makes the message when memory runs out.

    Returns:
        The contents of status.json as plain data: `status` ("finished", "stopped", "diverged", "out of memory" or
        "failed"), `algorithm`, `engine`, `steps`, `seconds` of this stretch, `beta`, `seed`, the last `exact` and
        `estimated` blocks (or None) and the last `scalars`; if it diverged, failed or ran out of memory, `error` in
        one line, and the step of the last `checkpoint`, from which it can continue (None if none could be saved).

    Raises:
        Anything but a failure of user input: Ctrl-C ("stopped"), or a bug ("failed"), once the run is saved.
    """
    resumed, recorded = algorithm.step > 0, algorithm.step
    seen, checkpoints = Seen(), Checkpoints(run, algorithm.step)
    started = time.perf_counter()

    def end(status: str, **error: Any) -> dict[str, Any]:
        run.close()
        seconds = time.perf_counter() - started
        whole = None if resumed else seen  # the last evaluation may be in an earlier stretch
        return finish(algorithm, run, status, seconds, whole, **error)

    try:
        for record in algorithm:
            run.append(record)
            recorded = record.step
            seen.note(record)
            checkpoints.after(algorithm)
            if processes.agree(bool(watch and watch(record))) and algorithm.step < algorithm.steps:
                checkpoints.write(algorithm)
                return end("stopped")
        checkpoints.write(algorithm)
        return end("finished")
    except TrainingDiverged as diverged:
        return end("diverged", error=str(diverged), checkpoint=checkpoints.kept)
    except BaseException as failed:
        short = out_of_memory(failed, f"after step {algorithm.step} of {algorithm.steps} of {algorithm.name}")
        status = "failed" if short is None else "out of memory"
        words = headline(failed) if short is None else line(short)
        del short
        kept = checkpoints.rescue(algorithm, recorded)
        if isinstance(failed, KeyboardInterrupt):
            status, words = "stopped", "interrupted"
        result = end(status, error=words, checkpoint=kept)
        if status == "out of memory" or isinstance(failed, Fault):
            return result
        failed.add_note(f"the run's step {kept} is kept in {run.folder}")
        raise


def finish(
    algorithm: Algorithm, run: Run, status: str, seconds: float, seen: Seen | None = None, **error: Any
) -> dict[str, Any]:
    """Write how a run ended, and its model if it is finished; returns the same as `drive`.

    Args:
        algorithm, run: the last checkpoint has already been written.
        status: one of those of `drive`.
        seconds: of this stretch.
        seen: the last evaluations; by default read from the run's records.
        error: further entries of the status.

    Raises:
        Fault: something cannot be written, unless another error is already being reported.
    """
    if status == "finished" and hasattr(algorithm, "save_model"):
        with writing(run.folder / "model"):
            algorithm.save_model(run.folder / "model")
    if seen is None:
        seen = Seen()
        with suppress(OSError) if error else nullcontext():
            for record in run.records():
                seen.note(record)
    result = {
        "algorithm": run.config.get("algorithm", algorithm.name),
        "engine": getattr(algorithm, "engine", "lab"),
        "steps": algorithm.step,
        "seconds": round(seconds, 3),
        "beta": algorithm.knobs.snapshot().get("beta", run.config.get("beta")),
        "seed": run.config.get("seed"),
        **vars(seen),
        **error,
    }
    with suppress(Fault) if error else nullcontext():
        run.finish(status, **result)
    return {"status": status, **result}


def follow(algorithm: Algorithm) -> None:
    """Run an algorithm in a process other than the main one: until the main one ends, saving nothing."""
    with suppress(TrainingDiverged):
        for _ in algorithm:
            if processes.agree(False):
                break


class Seen:
    """The last evaluations and scalars seen."""

    def __init__(self) -> None:
        self.exact: dict[str, float] | None = None
        self.estimated: dict[str, float] | None = None
        self.scalars: dict[str, float] = {}

    def note(self, record: Record) -> None:
        self.exact = dict(record.exact) if record.exact else self.exact
        self.estimated = dict(record.estimated) if record.estimated else self.estimated
        self.scalars = dict(record.scalars)
