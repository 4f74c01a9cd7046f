"""Drive an algorithm to its end and keep its run: what `rlhflab train` and every cell of a sweep do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlhflab import processes
from rlhflab.algorithms.algorithm import Algorithm, OutOfMemory, TrainingDiverged
from rlhflab.algorithms.record import Record
from rlhflab.oom import out_of_memory
from rlhflab.runs.store import Run, default_run_folder

CHECKPOINT_EVERY = 100  # steps

Build = Callable[..., Algorithm]  # keyword arguments → an algorithm
Builder = Callable[
    [str, str | None], Build
]  # names of algorithm and world → what builds it; known to the layers above


def build_from(builder: Builder, config: Mapping[str, Any]) -> Algorithm:
    """Build an algorithm from a run's config: its name as `algorithm`, and its keyword arguments."""
    settings = dict(config)
    return builder(settings.pop("algorithm"), settings.get("world"))(**settings)


def begin(builder: Builder, config: Mapping[str, Any], folder: Path | None = None) -> tuple[Algorithm, Run]:
    """Build an algorithm and make its run, with a checkpoint from the first step on.

    Args:
        builder: finds what builds an algorithm, by its name and the world's.
        config: the algorithm's name as `algorithm`, and the keyword arguments that build it; JSON values.
        folder: new or empty; by default a new one in runs/, made once the algorithm is built.

    Raises:
        ValueError: a setting that makes no sense, or a folder that holds something.
    """
    algorithm = build_from(builder, config)
    notes = getattr(algorithm, "notes", None)
    run = Run.create(folder or default_run_folder(config["algorithm"]), config, algorithm.backdrop, notes)
    run.save_checkpoint(algorithm)
    return algorithm, run


def resume(builder: Builder, run: Run, **changes: Any) -> Algorithm:
    """Build a run's algorithm again and put it where its last checkpoint was taken.

    Args:
        builder: as in `begin`.
        run: its records after that checkpoint are dropped, by the main one of several processes.
        changes: keyword arguments that take the place of the run's own, such as another device.
    """
    algorithm = build_from(builder, {**run.config, **changes})
    run.load_checkpoint(algorithm, drop=processes.is_main())
    return algorithm


def drive(
    algorithm: Algorithm,
    run: Run,
    watch: Callable[[Record], object] | None = None,
    line: Callable[[OutOfMemory], str] = str,
) -> dict[str, Any]:
    """Drive an algorithm to its end; every record, the checkpoints and how it ended are kept in its run.

    Args:
        algorithm: new, or where its run's checkpoint was taken.
        run: the run to append to.
        watch: called with every record; when it returns something true the run is stopped, to be continued later.
        line: what to say where memory runs out.

    Returns:
        What status.json then says, as plain data: `status` ("finished", "stopped", "diverged" or "out of memory"),
        `algorithm`, `engine`, `steps`, `seconds` of this stretch, `beta`, `seed`, the last `exact` and `estimated`
        blocks (or None) and the last `scalars`; `error` where it diverged; `error` and the step of the last
        `checkpoint`, from which it can go on, where it ran out of memory.
    """
    resumed, kept = algorithm.step > 0, algorithm.step
    seen = Seen()
    status = "finished"
    error: dict[str, Any] = {}
    started = time.perf_counter()
    try:
        for record in algorithm:
            run.append(record)
            seen.note(record)
            if record.step % CHECKPOINT_EVERY == 0:
                run.save_checkpoint(algorithm)
                kept = record.step
            if processes.agree(bool(watch and watch(record))) and algorithm.step < algorithm.steps:
                status = "stopped"
                break
        run.save_checkpoint(algorithm)
    except TrainingDiverged as diverged:
        status, error = "diverged", {"error": str(diverged)}
    except Exception as failed:
        short = out_of_memory(failed, f"after step {algorithm.step} of {algorithm.steps} of {algorithm.name}")
        if short is None:
            raise
        status, error = "out of memory", {"error": line(short), "checkpoint": kept}
        del short
    finally:
        run.close()
    seconds = time.perf_counter() - started
    whole = None if resumed else seen  # the last evaluation may lie in an earlier stretch
    return finish(algorithm, run, status, seconds, whole, **error)


def finish(
    algorithm: Algorithm, run: Run, status: str, seconds: float, seen: Seen | None = None, **error: Any
) -> dict[str, Any]:
    """Write how a run ended, and its model where it came to its end; returns what `drive` returns.

    Args:
        algorithm, run: its last checkpoint is there already.
        status: "finished", "stopped", "diverged" or "out of memory".
        seconds: of this stretch.
        seen: the last evaluations; read from the run's records where it is not given.
        error: what else there is to say.
    """
    if status == "finished" and hasattr(algorithm, "save_model"):
        algorithm.save_model(run.folder / "model")
    if seen is None:
        seen = Seen()
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
    run.finish(status, **result)
    return {"status": status, **result}


def follow(algorithm: Algorithm) -> None:
    """Drive an algorithm as every process but the main one does: until that one ends, and nothing is kept."""
    with suppress(TrainingDiverged):
        for _ in algorithm:
            if processes.agree(False):
                break


class Seen:
    """The last of each that came by."""

    def __init__(self) -> None:
        self.exact: dict[str, float] | None = None
        self.estimated: dict[str, float] | None = None
        self.scalars: dict[str, float] = {}

    def note(self, record: Record) -> None:
        self.exact = dict(record.exact) if record.exact else self.exact
        self.estimated = dict(record.estimated) if record.estimated else self.estimated
        self.scalars = dict(record.scalars)
