"""The command line: train, sweep, report, doctor, lab, colab. Heavy imports wait until a command needs them.

Exit codes: 0 done, 1 the training diverged, ran out of memory or failed (a reward, an environment, a full disk), or
the doctor found something to fix, 2 a value that is not allowed, 130 interrupted.
Messages go to stderr, one line per error; results go to stdout.
"""

from __future__ import annotations

import os
import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from rlhflab import __version__, processes
from rlhflab.cli.colab import colab_command
from rlhflab.cli.messages import labs_folder, one_line_errors, say
from rlhflab.cli.options import path
from rlhflab.cli.sweep import sweep_command
from rlhflab.cli.train import TrainGroup
from rlhflab.cli.words import WINDOWS, speak_any_code_page

SETTINGS: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(
    help="A laboratory for reinforcement learning from human feedback.", no_args_is_help=True, **SETTINGS
)


def _version(asked: bool) -> None:
    if asked:
        print(f"rlhflab {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A laboratory for reinforcement learning from human feedback."""


app.add_typer(
    typer.Typer(
        cls=TrainGroup,
        help="Train a model and keep the run in a folder. In N processes: accelerate launch --multi_gpu "
        "--num_processes N -m rlhflab train …",
        no_args_is_help=True,
        **SETTINGS,
    ),
    name="train",
)


app.command(
    "sweep", help="Train a grid of algorithms × β × seeds, and compare the runs in one table and one page."
)(sweep_command)
app.command("colab", help="Write the labs as notebooks that open in Google Colab.")(colab_command)


def main() -> None:
    """Run the command line; a usage error is one line on stderr and exit code 2."""
    speak_any_code_page()
    command = typer.main.get_command(app)
    try:
        code = command.main(prog_name="rlhflab", standalone_mode=False)
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's errors have it, in any version of click
            raise
        message = error.format_message()
        if type(error).__name__ == "NoArgsIsHelpError":
            print(message)
        else:
            say(message)
        code = error.exit_code if hasattr(error, "exit_code") else 2
    processes.end(code if isinstance(code, int) else 0)


@app.command("report", help="Write a run's report, one HTML file that needs no network.")
def report_command(
    folder: Annotated[Path, typer.Argument(parser=path, help="The run's folder.")],
    out: Annotated[
        Path | None, typer.Option(parser=path, help="The HTML file; default report.html in the folder.")
    ] = None,
) -> None:
    from rlhflab.runs.report import write_report
    from rlhflab.runs.store import Run

    with one_line_errors():
        print(write_report(Run.open(folder), out))


@app.command("doctor", help="Show versions, device, precision, what is missing and how to fix it.")
def doctor_command(
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda or mps: try an update of every kind there, and compare it with the CPU."
        ),
    ] = None,
) -> None:
    from rlhflab.doctor import doctor

    with one_line_errors():
        well = doctor(device)
    if not well:
        raise typer.Exit(1)


@app.command("lab", help="Open the notebooks in JupyterLab.")
def lab_command(
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
    port: Annotated[int | None, typer.Option(help="Port of the server.")] = None,
) -> None:
    from importlib.util import find_spec

    with one_line_errors():
        folder = labs_folder()
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
    if WINDOWS:  # its execv splits paths at spaces
        processes.end(subprocess.call(command))
    os.execv(sys.executable, command)


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
