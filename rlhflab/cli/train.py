"""`rlhflab train ALGORITHM`: build a training, run it to the end, keep the run; one command per algorithm."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from rlhflab import processes
from rlhflab.boundary import Fault
from rlhflab.cli.messages import line, one_line_errors, say
from rlhflab.cli.options import absolute, command_from, value_of
from rlhflab.cli.words import command
from rlhflab.files import can_write
from rlhflab.oom import OutOfMemory
from rlhflab.recipes import CONTROL, LANGUAGE, from_config, recipe_class
from rlhflab.recipes.recipe import BuiltIn
from rlhflab.strict_json import json_line

if TYPE_CHECKING:
    from rlhflab.core.algorithm import Algorithm
    from rlhflab.core.record import Record
    from rlhflab.runs.store import Run


class TrainGroup(TyperGroup):
    """Commands that are made from the recipes when called."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        names: Any = dict.fromkeys(LANGUAGE)
        self.commands = names  # suggested when a name is mistyped

    def list_commands(self, ctx: Any) -> list[str]:
        return list(LANGUAGE)

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in LANGUAGE:
            return None
        one = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

        def run(given: dict[str, Any], *others: Any) -> None:
            train(name, given, *others)

        recipe = LANGUAGE[name]
        one.command(name, help=recipe.words)(command_from(recipe, run, CONTROL.get(name)))
        return typer.main.get_command(one)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, recipe.words) for name, recipe in LANGUAGE.items()])


def train(
    name: str,
    given: dict[str, Any],
    out: Path | None,
    resume: Path | None,
    tracker: str | None,
    as_json: bool,
) -> None:
    """Start a run of the algorithm `name` with the settings `given`, or continue one, and run it to the end."""
    try:
        if processes.started_as_one():
            say(
                "only one process trains: accelerate launch --cpu starts just one; for N use --multi_gpu "
                "--num_processes N"
            )
        with one_line_errors():
            given = {
                key: absolute(value) if _names_a_path(name, key) else value for key, value in given.items()
            }
            if resume is not None:
                _only_device(given, out)
            processes.join(_device(given, resume))
        algorithm, run = _prepare(name, given, out, resume, tracker)
        if run is None:
            _follow(algorithm)
        else:
            _drive(algorithm, run, tracker, as_json)
    except processes.ProcessLost as lost:
        say(str(lost))
        raise typer.Exit(1) from None


def _only_device(given: Mapping[str, Any], out: Path | None) -> None:
    """Raise ValueError if anything is given that --resume does not allow."""
    forbidden = [key for key in given if key != "device"] + (["out"] if out is not None else [])
    if forbidden:
        option = forbidden[0].replace("_", "-")
        raise ValueError(f"--resume takes its settings from the run; --{option} is not allowed with it")


def _device(given: Mapping[str, Any], resume: Path | None) -> str:
    """The requested device: a continued run keeps its own unless another is given."""
    from rlhflab.runs.store import Run

    asked = given if resume is None or "device" in given else Run.open(resume).config
    return str(asked.get("device", "auto"))


def _prepare(
    name: str, given: dict[str, Any], out: Path | None, resume: Path | None, tracker: str | None
) -> tuple[Algorithm, Run | None]:
    """The algorithm, and its run if this is the main process."""
    from rlhflab.runs.trackers import check_tracker

    run: Run | None
    with one_line_errors(), processes.together():
        if tracker is not None:  # before the work, which takes minutes
            check_tracker(tracker)
        if resume is not None:
            algorithm, run = _continue(name, resume, given)
        else:
            algorithm, run = _start(name, given, out)
    return algorithm, run if processes.is_main() else None


def _start(name: str, given: dict[str, Any], out: Path | None) -> tuple[Algorithm, Run | None]:
    with processes.together():  # before the work, which takes minutes
        taken = out is not None and out.exists() and (not out.is_dir() or any(out.iterdir()))
        if taken and processes.is_main():
            raise ValueError(
                f"--out {out} exists and is not an empty folder; "
                f"continue a run with: {command('train', name, '--resume', out)}"
            )
        kept_in = (out or Path("runs")).absolute()
        if processes.is_main() and not can_write(kept_in):
            raise ValueError(f"cannot write to {kept_in}; choose another folder with --out FOLDER")
    found = _recipe(name, given.get("world"), given)
    texts = {key for key, value in given.items() if isinstance(value, str)}
    for key in texts & {key for key, declared in found.declared().items() if declared.kind is not str}:
        if not found.declared()[key].path:  # fresh, or a number
            given[key] = value_of(f"--{key.replace('_', '-')}", found.declared()[key], given[key])
    recipe = found(**given)
    from rlhflab.runs.drive import begin

    return begin(recipe, out) if processes.is_main() else (recipe.build(), None)


def _continue(name: str, folder: Path, given: dict[str, Any]) -> tuple[Algorithm, Run]:
    from rlhflab.runs.drive import resume
    from rlhflab.runs.store import Run
    from rlhflab.runs.unchanged import require_unchanged

    run = Run.open(folder)
    require_unchanged(run)
    found = run.config.setdefault("algorithm", "dpo")
    if found != name:
        raise ValueError(
            f"{folder} is a run of {found}; continue it with: {command('train', found, '--resume', folder)}"
        )
    _recipe(name, run.config.get("world"), given)
    return resume(from_config({**run.config, **given}), run), run


def _names_a_path(algorithm: str, setting: str) -> bool:
    declared = LANGUAGE[algorithm].declared().get(setting)
    return declared is not None and declared.path


def _recipe(name: str, world: str | None, given: Mapping[str, Any]) -> type[BuiltIn]:
    """The recipe of an algorithm in a world; ValueError if a given setting does not exist there."""
    found = recipe_class(name, world)
    if processes.count() > 1 and not found.parallel:
        several = ", ".join(key for key, recipe in LANGUAGE.items() if recipe.parallel)
        raise ValueError(
            f"{name} on {world or 'micro'} trains in one process; only {several} on language can use several"
        )
    for key in given:
        if key not in found.declared():
            where = "a language world" if world is None else f"the world {world}"
            raise ValueError(f"--{key.replace('_', '-')} is not a setting of {name} in {where}")
    return found


def _drive(algorithm: Algorithm, run: Run, tracker: str | None, as_json: bool) -> None:
    """Run the algorithm to its end with a progress bar, and say how it ended."""
    from tqdm import tqdm

    from rlhflab.runs.drive import drive
    from rlhflab.runs.trackers import tracking

    name = run.config["algorithm"]
    for note in getattr(algorithm, "notes", {}).values():
        say(note)
    judged: dict[str, float] = {}
    result: dict[str, Any] | None = None
    with (
        _interruptible() as interrupted,
        tracking(tracker, run.folder, run.config) as tracked,
        tqdm(total=algorithm.steps, initial=algorithm.step, desc=name, unit="step") as bar,
    ):

        def watch(record: Record) -> bool:
            judged.update(record.judged)
            if tracked is not None:
                tracked.log(record)
            bar.set_postfix(_progress(record, judged), refresh=False)
            bar.update()
            return bool(interrupted)

        with suppress(KeyboardInterrupt):  # a second one, within a step
            result = drive(algorithm, run, watch, line)
    if result is None:
        say(f"stopped; {_kept(name, run, run.status.get('checkpoint'))}")
        raise typer.Exit(130)
    if result["status"] == "failed":
        say(f"{result['error']}; {_kept(name, run, result['checkpoint'])}")
        raise typer.Exit(1)
    if result["status"] == "diverged":
        say(
            f"{result['error']}; the run and its checkpoint of step {result['checkpoint']} are kept in {run.folder}"
        )
        raise typer.Exit(1)
    if result["status"] == "out of memory":
        if result["checkpoint"] is None:
            say(f"{result['error']}; {_kept(name, run, None)}", everybody=True)
            raise typer.Exit(1)
        say(
            f"{result['error']}; the run and its checkpoint of step {result['checkpoint']} are kept in {run.folder}: "
            f"{command('train', name, '--resume', run.folder)} continues with the same settings when more memory is "
            "free (--device may change); smaller ones need a new run",
            everybody=True,
        )
        raise typer.Exit(1)
    if result["status"] == "stopped":
        say(
            f"stopped at step {algorithm.step}; continue with: {command('train', name, '--resume', run.folder)}"
        )
        raise typer.Exit(130)
    if as_json:
        print(json_line({**result, "run": str(run.folder)}))
    else:
        print(f"{algorithm.step} steps in {result['seconds']:.1f} s, kept in {run.folder}")
        for block in ("exact", "estimated"):
            if result[block]:
                values = ", ".join(f"{key} {value:.4g}" for key, value in result[block].items())
                print(f"{block}: {values}")
        print(f"look at it: {command('report', run.folder)}")


def _kept(name: str, run: Run, step: int | None) -> str:
    """What is kept of a failed run, and how to continue it."""
    if step is None:
        return f"{run.folder} has no checkpoint to continue from"
    return f"step {step} is kept; continue with: {command('train', name, '--resume', run.folder)}"


def _follow(algorithm: Algorithm) -> None:
    """Run the same steps in every process but the main one, without keeping anything."""
    from rlhflab.runs.drive import follow

    try:
        with _interruptible():
            follow(algorithm)
    except OutOfMemory as short:  # the launcher ends the others
        say(line(short), everybody=True)
        raise typer.Exit(1) from None
    except Fault as fault:
        say(f"process {processes.rank()}: {fault}", everybody=True)
        raise typer.Exit(1) from None


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """The first Ctrl-C fills the list, so that the current step ends and can be kept; a second one acts at once.

    Of several processes the main one decides; they never act at once, as a launcher repeats a signal they already got.
    """
    signals: list[int] = []

    def note(number: int, frame: Any) -> None:
        if signals and processes.count() == 1:
            raise KeyboardInterrupt
        signals.append(number)

    former = signal.signal(signal.SIGINT, note)
    try:
        yield signals
    finally:
        signal.signal(signal.SIGINT, former)


def _progress(record: Record, judged: dict[str, float]) -> dict[str, str]:
    shown = {"loss": record.scalars.get("loss"), "score": record.scalars.get("objective/scores")}
    shown |= {key: judged.get(key) for key in ("reward", "kl", "return")}
    return {name: f"{value:.3f}" for name, value in shown.items() if value is not None}
