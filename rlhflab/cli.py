"""The command line: train, report, doctor, lab. Heavy imports wait until a command needs them.

Exit codes: 0 done, 1 the training diverged or something is to mend, 2 a value that is not allowed, 130 interrupted.
What a person reads goes to stderr, one line an error; results go to stdout.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import signal
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rlhflab.algorithms.algorithm import Algorithm
    from rlhflab.algorithms.record import Record
    from rlhflab.runs.store import Run

CHECKPOINT_EVERY = 100  # steps

SETTINGS: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}
app = typer.Typer(
    help="A laboratory for reinforcement learning from human feedback.", no_args_is_help=True, **SETTINGS
)
train = typer.Typer(help="Train a model and keep the run in a folder.", no_args_is_help=True, **SETTINGS)
app.add_typer(train, name="train")


def main() -> None:
    """Run the command line; errors in what was typed are one line on stderr and exit code 2."""
    command = typer.main.get_command(app)
    try:
        code = command.main(prog_name="rlhflab", standalone_mode=False)
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's errors have it, whichever click typer uses
            raise
        message = error.format_message()
        if type(error).__name__ == "NoArgsIsHelpError":
            print(message)
        else:
            _say(message)
        code = error.exit_code if hasattr(error, "exit_code") else 2
    sys.exit(code if isinstance(code, int) else 0)


@train.command("dpo", help="Train with direct preference optimisation.")
def train_dpo(
    world: Annotated[
        str | None, typer.Option(help="micro, or a JSONL file of preference pairs; default micro.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="tiny, a folder, or a Hugging Face id; default tiny.")
    ] = None,
    beta: Annotated[float | None, typer.Option(help="KL strength β > 0; default 1.0.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Greater than 0; default by model.")] = None,
    pairs: Annotated[
        str | None,
        typer.Option(metavar="N|fresh", help="Pairs to sample, or fresh ones each step; default 2000."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="sft, or preferred: fine-tuned on the chosen answers; default sft."),
    ] = None,
    label_noise: Annotated[
        float | None, typer.Option(help="Probability that a label is flipped; default 0.0.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Updates to make; default 600.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Pairs an update; default 32, of fresh pairs 256.")
    ] = None,
    evaluate_every: Annotated[
        int | None, typer.Option(help="Updates between exact evaluations; default 25.")
    ] = None,
    skip_bad: Annotated[
        bool | None, typer.Option("--skip-bad", help="Leave bad lines of a file out; default False.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same run; default 0.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; default auto.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default a new one in runs/.")] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Continue the run in this folder with its settings (--device may change)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    given = {
        "world": _absolute(world, "micro"), "model": _absolute(model, "tiny"), "beta": beta,
        "learning_rate": learning_rate, "pairs": pairs, "label_noise": label_noise, "steps": steps,
        "batch_size": batch_size, "seed": seed, "device": device, "reference": reference,
        "evaluate_every": evaluate_every, "skip_bad": skip_bad,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    with _one_line_errors():
        if resume is not None:
            forbidden = [name for name in given if name != "device"] + (["out"] if out is not None else [])
            if forbidden:
                option = forbidden[0].replace("_", "-")
                raise ValueError(
                    f"--resume takes its settings from the run; --{option} is not allowed with it"
                )
            algorithm, run = _resume_dpo(resume, given)
        else:
            algorithm, run = _start_dpo(given, out)
    _train(algorithm, run, as_json)


def _start_dpo(given: dict[str, Any], out: Path | None) -> tuple[Algorithm, Run]:
    if (
        out is not None and out.exists() and (not out.is_dir() or any(out.iterdir()))
    ):  # before minutes of work
        raise ValueError(f"--out {out} exists and is not an empty folder; continue a run with --resume {out}")
    if given.get("pairs", "fresh") != "fresh":
        given["pairs"] = _whole("--pairs", given["pairs"], " or fresh")
    from rlhflab.algorithms.build import build_dpo
    from rlhflab.runs.store import Run, default_run_folder

    defaults = {
        name: parameter.default for name, parameter in inspect.signature(build_dpo).parameters.items()
    }
    config = {**defaults, **given}
    algorithm = build_dpo(**config)
    folder = out or default_run_folder("dpo")
    run = Run.create(folder, {"algorithm": "dpo", **config}, algorithm.backdrop)
    run.save_checkpoint(algorithm)  # so that there is one from the first step on
    return algorithm, run


def _resume_dpo(folder: Path, given: dict[str, Any]) -> tuple[Algorithm, Run]:
    from rlhflab.runs.store import Run

    run = Run.open(folder)
    config = {**run.config, **given}
    name = config.pop("algorithm", "dpo")
    if name != "dpo":
        raise ValueError(f"{folder} is a run of {name}; continue it with rlhflab train {name}")
    from rlhflab.algorithms.build import build_dpo

    algorithm = build_dpo(**config)
    run.load_checkpoint(algorithm)
    return algorithm, run


def _train(algorithm: Algorithm, run: Run, as_json: bool) -> None:
    """Drive the algorithm to its end; checkpoints, progress and the last line are made here."""
    from tqdm import tqdm

    from rlhflab.algorithms.algorithm import TrainingDiverged

    last: Record | None = None
    exact: dict[str, float] | None = None
    started = time.perf_counter()
    with (
        _interruptible() as interrupted,
        tqdm(total=algorithm.steps, initial=algorithm.step, desc=algorithm.name, unit="step") as bar,
    ):
        try:
            for record in algorithm:
                run.append(record)
                last, exact = record, dict(record.exact) if record.exact else exact
                bar.set_postfix(_progress(record, exact), refresh=False)
                bar.update()
                if record.step % CHECKPOINT_EVERY == 0:
                    run.save_checkpoint(algorithm)
                if interrupted:
                    break
        except TrainingDiverged as error:
            bar.close()
            run.finish("diverged", error=str(error))
            _say(f"{error}; the run and its last checkpoint are kept in {run.folder}")
            raise typer.Exit(1) from None
    run.save_checkpoint(algorithm)
    if interrupted and algorithm.step < algorithm.steps:
        run.finish("stopped", step=algorithm.step)
        _say(
            f"stopped at step {algorithm.step}; continue with: rlhflab train {algorithm.name} --resume {run.folder}"
        )
        raise typer.Exit(130)
    seconds = time.perf_counter() - started
    run.finish("finished", step=algorithm.step, seconds=seconds)
    if last is None:  # resumed after its end
        for last in run.records():
            exact = dict(last.exact) if last.exact else exact
    result = {
        "algorithm": algorithm.name,
        "engine": "lab",
        "steps": algorithm.step,
        "seconds": round(seconds, 3),
        "beta": algorithm.knobs.snapshot().get("beta"),
        "seed": run.config.get("seed"),
        "run": str(run.folder),
        "exact": exact,
        "scalars": dict(last.scalars) if last else {},
    }
    if as_json:
        print(json.dumps(_no_nan(result), allow_nan=False))
    else:
        print(f"{algorithm.step} steps in {seconds:.1f} s, kept in {run.folder}")
        if exact:
            print("exact: " + ", ".join(f"{name} {value:.4g}" for name, value in exact.items()))
        print(f"look at it: rlhflab report {run.folder}")


@app.command("report", help="Write a run's report, one HTML file that needs no network.")
def report_command(
    folder: Annotated[Path, typer.Argument(help="The run's folder.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file; default report.html in the folder.")
    ] = None,
) -> None:
    from rlhflab.runs.report import write_report
    from rlhflab.runs.store import Run

    with _one_line_errors():
        print(write_report(Run.open(folder), out))


@app.command("doctor", help="Show versions, device, precision, what is missing and what mends it.")
def doctor_command() -> None:
    from rlhflab.doctor import doctor

    if not doctor():
        raise typer.Exit(1)


@app.command("lab", help="Open the notebooks in JupyterLab.")
def lab_command(
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
    port: Annotated[int | None, typer.Option(help="Port of the server.")] = None,
) -> None:
    from importlib.util import find_spec

    with _one_line_errors():
        folder = _labs()
        if find_spec("jupyterlab") is None:
            raise ValueError("JupyterLab is not installed: python -m pip install jupyterlab")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder.parent}"]
    command.append("--LabApp.default_url=/lab/tree/labs/00_start_here.ipynb")  # printed, and opened
    if not (browser and _has_browser()):
        print("Open the address with the token that JupyterLab prints below.", file=sys.stderr)
        command.append("--no-browser")
    if port is not None:
        command.append(f"--port={port}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    os.execv(sys.executable, command)


def _labs() -> Path:
    for parent in (Path.cwd(), Path(__file__).resolve().parent.parent):
        if (parent / "labs" / "00_start_here.ipynb").is_file():
            return parent / "labs"
    raise ValueError(
        "no labs/00_start_here.ipynb here nor beside the package; run this in a clone of the project"
    )


def _has_browser() -> bool:
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def _say(message: str) -> None:
    print(f"rlhflab: {' '.join(message.split())}", file=sys.stderr)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """What a person typed or named wrongly ends the command with one line; a bug keeps its traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        _say(str(error))
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        _say("interrupted before the first step; nothing to continue")
        raise typer.Exit(130) from None


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


def _absolute(value: str | None, built_in: str) -> str | None:
    """A path that exists, made absolute, so that a run can be continued from another folder."""
    if value is None or value == built_in or not Path(value).exists():
        return value
    return str(Path(value).resolve())


def _whole(option: str, value: str, otherwise: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{option} must be a whole number{otherwise}, got {value!r}") from None


def _progress(record: Record, exact: dict[str, float] | None) -> dict[str, str]:
    shown = {"loss": record.scalars.get("loss"), **{key: (exact or {}).get(key) for key in ("reward", "kl")}}
    return {name: f"{value:.3f}" for name, value in shown.items() if value is not None}


def _no_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _no_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main()
