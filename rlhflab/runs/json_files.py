"""A run's files: JSON objects, and lines of JSON that a crash may tear."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhflab.boundary import Fault
from rlhflab.files import written_beside
from rlhflab.strict_json import dumps, loads


def line_of(data: Any) -> bytes:
    """A value as a line of JSON."""
    return dumps(data, separators=(",", ":")).encode() + b"\n"


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object); a last line without a newline was torn by a crash and is skipped."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                data = loads(line)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: not JSON ({error})") from None
            if not isinstance(data, dict):
                raise ValueError(f"{path}:{number}: not a JSON object")
            yield number, data


def drop_torn_line(path: Path) -> None:
    """Cut off a last line without a newline."""
    if path.exists():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            with path.open("rb+") as file:
                file.truncate(content.rfind(b"\n") + 1)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what prevents writing a file (no space, no permission, no folder) into a `Fault` that names the file."""
    try:
        yield
    except Exception as error:
        if (
            not isinstance(error, OSError) and type(error).__name__ != "SafetensorError"
        ):  # which is not imported here
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise Fault(f"cannot write {path}: {reason}") from error


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file, complete or not at all; `Fault` if that is impossible."""
    with writing(path), written_beside(path) as beside:
        beside.write_text(dumps(data, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """A JSON object from a file; None if there is no file, ValueError if it is damaged."""
    if not path.exists():
        return None
    try:
        found = loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: not a JSON object")
    return found
