"""Files: atomic writes, and the cache folder."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = "RLHFLAB_CACHE"  # the environment variable for the cache folder


@contextmanager
def written_beside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; if the block succeeds, that file atomically replaces `path`.

    A crash at any instant leaves the old file or the new one, complete. An exception in the block removes the
    temporary file.

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


def cache_folder(holding: str = "") -> Path:
    """The folder for files that can be recreated: $RLHFLAB_CACHE, else rlhflab in the user's cache folder.

    If it is not writable, a temporary folder is used by this process and those it starts, and a warning names the
    variable.

    Args:
        holding: a name to be read there: if the folder has it, it need not be writable.
    """
    folder = wanted_cache_folder()
    if folder is not None and ((holding and (folder / holding).exists()) or can_write(folder)):
        return folder
    temporary = Path(tempfile.mkdtemp(prefix="rlhflab-"))
    os.environ[CACHE] = str(temporary)
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    why = "no home folder is known" if folder is None else f"cannot write to {folder}"
    warnings.warn(
        f"{why}: what is trained or measured once is kept in {temporary} until this process ends; set {CACHE} to a "
        "folder that keeps it",
        stacklevel=2,
    )
    return temporary


def wanted_cache_folder() -> Path | None:
    """The cache folder that the environment asks for, existing or not; None without a home folder."""
    try:
        if folder := os.environ.get(CACHE):
            return Path(folder).expanduser().absolute()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlhflab"
    except RuntimeError:  # no HOME, and an unknown user id
        return None


def can_write(folder: Path) -> bool:
    """Whether a file can be written in a folder, or the folder can be created."""
    try:
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        with tempfile.TemporaryFile(dir=there):
            return True
    except OSError:
        return False


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
