"""What the command line says: one line an error, on stderr, and the exit code that goes with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer


def say(message: str) -> None:
    """Print one line on stderr."""
    print(f"rlhflab: {' '.join(message.split())}", file=sys.stderr)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What a person typed or named wrongly ends the command with one line; a bug keeps its traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        say(str(error))
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        say("interrupted before the first step; nothing to continue")
        raise typer.Exit(130) from None
