"""The first cell of a Colab notebook, run before rlhflab is installed: it has only the standard library and pip.

`notebooks.py` copies this file into that cell. It installs the package by itself, adds only what is missing, and never
lets pip replace what Colab's page and GPU driver depend on.
"""

from __future__ import annotations

import base64
import builtins
import errno
import hashlib
import importlib
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Iterator, NoReturn  # noqa: UP035  an old runtime must be able to read this cell

LEAST_PYTHON = (3, 11)
# Colab's front end or driver breaks, or asks for a restart, when one of these changes.
KEEP = ("torch", "torchvision", "torchaudio", "numpy", "pandas", "ipykernel", "ipywidgets", "ipython")
NEWER = "choose a newer runtime (Runtime > Change runtime type > Runtime version)"
NO_ROOM = (
    "the disk of this runtime is full: free some space, or take a fresh runtime, and run this cell again"
)
NO_NETWORK = "the network cannot be reached from this runtime: run this cell again once it can"
# What pip prints about them, in any of the libraries that it uses.
NO_ROOM_SIGNS = r"No space left on device|Disk quota exceeded"
NO_NETWORK_SIGNS = (
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|Max retries exceeded"
    r"|Failed to establish a new connection|Temporary failure in name resolution|Connection refused"
)


class Stop(Exception):
    """Ends the cell; a notebook shows it in one line."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [f"✗ {self}"]


def stop(why: str) -> NoReturn:
    """End the cell with one line. In a notebook SystemExit would print three more lines of IPython's own."""
    kind = Stop if hasattr(builtins, "get_ipython") else SystemExit
    raise kind(" ".join(why.split())) from None


@contextmanager
def plainly() -> Iterator[None]:
    """End the cell with one line if the system refuses something: a full disk, a folder, a process."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        stop(NO_ROOM if full else f"this runtime refuses: {error}")


@plainly()
def set_up(source: str, extras: tuple[str, ...] = ()) -> None:
    """Install rlhflab and its missing requirements, fix known problems, print one line of versions.

    Args:
        source: a wheel's path, or the address of an archive of the repository.
        extras: groups of optional packages that this notebook uses.
    """
    if sys.version_info < LEAST_PYTHON:
        least, here = (".".join(map(str, version[:3])) for version in (LEAST_PYTHON, sys.version_info))
        stop(f"rlhflab needs Python {least} or newer; this runtime has {here}: {NEWER}")
    pip("install", "--no-deps", "--force-reinstall", source)
    importlib.invalidate_caches()
    wanted = missing(extras)
    if wanted:
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(folder) / "keep.txt"
            pins = "\n".join(f"{name}=={metadata.version(name)}" for name in KEEP if has(name))
            kept.write_text(pins, encoding="utf-8")
            pip("install", "--constraint", str(kept), *wanted)
    peft = metadata.version("peft") if has("peft") else None
    if has("torchao") and torchao_clashes(metadata.version("torchao"), peft):
        pip("uninstall", "--yes", "torchao")  # with it every LoRA model raises ImportError
    importlib.invalidate_caches()
    print(versions())


@plainly()
def unpacked(wheel: str, sha256: str, name: str) -> str:
    """Write the wheel that a notebook embeds as base64 text to a file of that name; return its path."""
    try:
        data = base64.b64decode(wheel)
    except ValueError:  # no base64
        data = b""
    if hashlib.sha256(data).hexdigest() != sha256:
        stop("rlhflab's text in this cell is damaged: its checksum differs. Take a fresh notebook.")
    path = Path(tempfile.mkdtemp()) / name
    path.write_bytes(data)
    return str(path)


def pip(*arguments: str) -> None:
    """Run pip; if it fails, end the cell with one line."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        stop(f"pip {arguments[0]} failed: {reason(done.stderr)}")


def reason(stderr: str) -> str:
    """Why pip failed, in one line: its first line of an error, or its last line where it has none or crashed."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()] or ["no message"]
    errors = [line[7:] for line in lines if line.lower().startswith("error: ")]
    found = "\n".join([*errors, lines[-1]])
    if re.search(NO_ROOM_SIGNS, found):
        return NO_ROOM
    # All that is asked for exists: where pip finds no version of it, it could not ask the package index.
    unheard = "(from versions: none)" in found and "different python version" not in stderr.lower()
    if unheard or re.search(NO_NETWORK_SIGNS, found):
        return NO_NETWORK
    return errors[0] if errors and errors[0] != "Exception:" else lines[-1]


def missing(extras: tuple[str, ...]) -> list[str]:
    """Requirements of rlhflab that are not met here; one of `KEEP` that is too old ends the cell instead."""
    try:
        from packaging.requirements import Requirement
    except ImportError:  # pip carries its own copy
        from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]

    wanted = []
    for line in metadata.requires("rlhflab") or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        if has(requirement.name):
            there = metadata.version(requirement.name)
            if requirement.specifier.contains(there, prereleases=True):
                continue
            if requirement.name in KEEP:
                needs = f"{requirement.name}{requirement.specifier}"
                stop(f"rlhflab needs {needs}; this runtime has {there}: {NEWER}")
        wanted.append(f"{requirement.name}{requirement.specifier}")
    return wanted


def has(name: str) -> bool:
    """Whether a package is installed."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def torchao_clashes(torchao: str, peft: str | None) -> bool:
    """Whether PEFT raises ImportError for every LoRA model beside this torchao: the rule of `rlhflab.remedies`."""
    if peft is None or numbers(peft) >= (0, 19):
        return numbers(torchao) < (0, 16)
    return not (0, 4) <= numbers(torchao) < (0, 18)


def numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"[0-9]+", version.split("+")[0])[:2])


def compared() -> str:
    """The speed of the tiny model on the GPU, measured once: labs train it where it is faster."""
    try:
        from rlhflab.models.devices import choose_device
        from rlhflab.recipes.trials import compared as measured

        return measured(choose_device("cuda"))
    except Exception as error:  # labs then train on the CPU, as before a measurement
        return f"the GPU was not compared with the CPU ({type(error).__name__}: {error})"


def versions() -> str:
    """One line: versions, and the GPU with its memory."""
    try:
        import torch
    except (ImportError, OSError) as error:  # a library is missing or broken
        stop(f"torch cannot be imported here ({error}): take a fresh runtime and run this cell again")

    parts = [f"Python {sys.version.split()[0]}"]
    parts += [f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "ipywidgets")]
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        parts.append(f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB")
        parts.append(compared())
    else:
        parts.append("no GPU")
    return f"rlhflab {metadata.version('rlhflab')} is ready: " + " · ".join(parts)
