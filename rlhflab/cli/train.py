"""`rlhflab train ALGORITHM`: build, drive to the end, keep the run; one command for every builder."""

from __future__ import annotations

import inspect
import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from rlhflab.algorithms.builders import BUILDERS, builder
from rlhflab.cli.messages import one_line_errors, say
from rlhflab.cli.options import command_from

if TYPE_CHECKING:
    from rlhflab.algorithms.algorithm import Algorithm
    from rlhflab.algorithms.record import Record
    from rlhflab.runs.store import Run

CHECKPOINT_EVERY = 100  # steps
WORDS = {
    "pretrain": "Pre-train the tiny model on unedited text.",
    "sft": "Fine-tune it on clean text, or on the chosen answers of a file.",
    "reward": "Fit a reward model to preferences.",
    "dpo": "Train with direct preference optimisation.",
    "reinforce": "Optimise a reward with REINFORCE.",
    "trpo": "Optimise a reward with trust-region policy optimisation.",
    "ppo": "Optimise a reward with proximal policy optimisation.",
}


class TrainGroup(TyperGroup):
    """Commands made from the builders when they are called: the help of `train` must not wait for torch."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(BUILDERS)

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in BUILDERS:
            return None
        one = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

        def run(given: dict[str, Any], out: Path | None, resume: Path | None, as_json: bool) -> None:
            train(name, given, out, resume, as_json)

        one.command(name, help=WORDS[name])(command_from(builder(name), run))
        return typer.main.get_command(one)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(WORDS.items()))


def train(name: str, given: dict[str, Any], out: Path | None, resume: Path | None, as_json: bool) -> None:
    """Start a run of the algorithm `name` with the settings `given`, or continue one, and drive it to its end."""
    given = {**given, **{key: _absolute(given[key]) for key in ("world", "model", "reward") if key in given}}
    with one_line_errors():
        if resume is not None:
            forbidden = [key for key in given if key != "device"] + (["out"] if out is not None else [])
            if forbidden:
                option = forbidden[0].replace("_", "-")
                raise ValueError(
                    f"--resume takes its settings from the run; --{option} is not allowed with it"
                )
            algorithm, run = _continue(name, resume, given)
        else:
            algorithm, run = _start(name, given, out)
    _drive(algorithm, run, as_json)


def _start(name: str, given: dict[str, Any], out: Path | None) -> tuple[Algorithm, Run]:
    if (
        out is not None and out.exists() and (not out.is_dir() or any(out.iterdir()))
    ):  # before minutes of work
        raise ValueError(f"--out {out} exists and is not an empty folder; continue a run with --resume {out}")
    if isinstance(given.get("pairs"), str) and given["pairs"] != "fresh":
        given["pairs"] = _whole("--pairs", given["pairs"], " or fresh")
    from rlhflab.runs.store import Run, default_run_folder

    build = builder(name)
    defaults = {key: parameter.default for key, parameter in inspect.signature(build).parameters.items()}
    config = {**defaults, **given}
    algorithm = build(**config)
    folder = out or default_run_folder(name)
    run = Run.create(folder, {"algorithm": name, **config}, algorithm.backdrop)
    run.save_checkpoint(algorithm)  # so that there is one from the first step on
    return algorithm, run


def _continue(name: str, folder: Path, given: dict[str, Any]) -> tuple[Algorithm, Run]:
    from rlhflab.runs.store import Run

    run = Run.open(folder)
    config = {**run.config, **given}
    found = config.pop("algorithm", "dpo")
    if found != name:
        raise ValueError(f"{folder} is a run of {found}; continue it with rlhflab train {found}")
    algorithm = builder(name)(**config)
    run.load_checkpoint(algorithm)
    return algorithm, run


def _drive(algorithm: Algorithm, run: Run, as_json: bool) -> None:
    """Drive the algorithm to its end; checkpoints, progress and the last line are made here."""
    from tqdm import tqdm

    from rlhflab.algorithms.algorithm import TrainingDiverged

    name = run.config["algorithm"]
    last: Record | None = None
    exact: dict[str, float] | None = None
    estimated: dict[str, float] | None = None
    started = time.perf_counter()
    with (
        _interruptible() as interrupted,
        tqdm(total=algorithm.steps, initial=algorithm.step, desc=name, unit="step") as bar,
    ):
        try:
            for record in algorithm:
                run.append(record)
                last, exact = record, dict(record.exact) if record.exact else exact
                estimated = dict(record.estimated) if record.estimated else estimated
                bar.set_postfix(_progress(record, exact), refresh=False)
                bar.update()
                if record.step % CHECKPOINT_EVERY == 0:
                    run.save_checkpoint(algorithm)
                if interrupted:
                    break
        except TrainingDiverged as error:
            bar.close()
            run.finish("diverged", error=str(error))
            say(f"{error}; the run and its last checkpoint are kept in {run.folder}")
            raise typer.Exit(1) from None
    run.save_checkpoint(algorithm)
    if interrupted and algorithm.step < algorithm.steps:
        run.finish("stopped", step=algorithm.step)
        say(f"stopped at step {algorithm.step}; continue with: rlhflab train {name} --resume {run.folder}")
        raise typer.Exit(130)
    seconds = time.perf_counter() - started
    if hasattr(algorithm, "save_model"):
        algorithm.save_model(run.folder / "model")
    run.finish("finished", step=algorithm.step, seconds=seconds)
    if last is None:  # resumed after its end
        for last in run.records():
            exact = dict(last.exact) if last.exact else exact
            estimated = dict(last.estimated) if last.estimated else estimated
    result = {
        "algorithm": name,
        "engine": "lab",
        "steps": algorithm.step,
        "seconds": round(seconds, 3),
        "beta": algorithm.knobs.snapshot().get("beta", run.config.get("beta")),
        "seed": run.config.get("seed"),
        "run": str(run.folder),
        "exact": exact,
        "estimated": estimated,
        "scalars": dict(last.scalars) if last else {},
    }
    if as_json:
        print(json.dumps(_no_nan(result), allow_nan=False))
    else:
        print(f"{algorithm.step} steps in {seconds:.1f} s, kept in {run.folder}")
        for kind, block in (("exact", exact), ("estimated", estimated)):
            if block:
                print(f"{kind}: " + ", ".join(f"{key} {value:.4g}" for key, value in block.items()))
        print(f"look at it: rlhflab report {run.folder}")


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """The first Ctrl-C fills the list, so that the step in hand ends and can be kept; a second one acts at once."""
    signals: list[int] = []

    def note(number: int, frame: Any) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    former = signal.signal(signal.SIGINT, note)
    try:
        yield signals
    finally:
        signal.signal(signal.SIGINT, former)


def _absolute(value: str) -> str:
    """A path that exists, made absolute, so that a run can be continued from another folder; other words stay."""
    words = ("micro", "reviews", "tiny", "true", "model")
    return value if value in words or not Path(value).exists() else str(Path(value).resolve())


def _whole(option: str, value: str, otherwise: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{option} must be a whole number{otherwise}, got {value!r}") from None


def _progress(record: Record, exact: dict[str, float] | None) -> dict[str, str]:
    shown = {"loss": record.scalars.get("loss"), "score": record.scalars.get("objective/scores")}
    shown |= {key: (exact or {}).get(key) for key in ("reward", "kl")}
    return {name: f"{value:.3f}" for name, value in shown.items() if value is not None}


def _no_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _no_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
