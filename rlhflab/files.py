"""Files: one way to write them, whole or not at all; one folder for what can be made again; what runs in a page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_beside(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path`; when the block ends well that file takes `path`'s place at once.

    A crash at any instant leaves the former file or the new one, whole. An exception in the block removes what
    was written beside.

    Args:
        path: the file to create or replace; its folder must exist.

    Yields:
        The path to write to, in the same folder.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        _sync(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself; Windows cannot open a folder
        _sync(path.parent)


def cache_folder() -> Path:
    """The folder for models trained on first use: $RLHFLAB_CACHE, else rlhflab in the user's cache folder."""
    if folder := os.environ.get("RLHFLAB_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlhflab"


def static_source(module: str | Path, *names: str) -> str:
    """Return JavaScript or CSS files as one text.

    Args:
        module: a module's `__file__`; the files lie in the folder `static` beside it.
        names: the files, in order.
    """
    folder = Path(module).parent / "static"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
