"""Messages of the command line: one line per error, on stderr, and the exit code that goes with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from rlhflab import processes
from rlhflab.oom import DoesNotFit, OutOfMemory, out_of_memory


def say(message: str, everybody: bool = False) -> None:
    """Print one line on stderr; of several processes only the main one prints, unless `everybody` is set."""
    if everybody or processes.speaks():
        print("rlhflab:", " ".join(filter(None, map(str.strip, message.splitlines()))), file=sys.stderr)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line on wrong input or lack of memory, and with a traceback on a bug."""
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted before the first step; nothing to continue")
        raise typer.Exit(130) from None
    except Exception as error:
        short = out_of_memory(error, "before the first step")
        if short is not None:
            say(line(short), everybody=True)
        elif isinstance(error, ValueError | OSError):
            say(line(error))
        else:
            raise
        raise typer.Exit(2 if short is None else 1) from None


def line(error: Exception) -> str:
    """An error's message, with settings named as options; out of memory, which of several processes it was."""
    if not isinstance(error, DoesNotFit):
        return str(error)
    mine = isinstance(error, OutOfMemory) and processes.count() > 1
    return (f"process {processes.rank()}: " if mine else "") + error.words(options=True)


def labs_folder() -> Path:
    """Return the folder of the notebooks: in the working folder, or beside the package.

    Raises:
        ValueError: neither is a clone of the project.
    """
    for parent in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (parent / "labs" / "00_start_here.ipynb").is_file():
            return parent / "labs"
    raise ValueError(
        "no labs/00_start_here.ipynb here or next to the package; run this in a clone of the project"
    )
