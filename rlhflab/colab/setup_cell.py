"""What the first cell of a Colab notebook runs, before rlhflab is there: the standard library and pip are all it has.

`notebooks.py` copies this file into that cell. It installs the package by itself, adds only what is missing, and never
lets pip replace what Colab's page and GPU driver depend on.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

# Colab's front end or driver breaks, or asks for a restart, when one of these changes.
KEEP = ("torch", "torchvision", "torchaudio", "numpy", "pandas", "ipykernel", "ipywidgets", "ipython")


def set_up(source: str, extras: tuple[str, ...] = ()) -> None:
    """Install rlhflab and what it lacks here, repair what is known to break, print one line of versions.

    Args:
        source: a wheel's path, or the address of an archive of the repository.
        extras: groups of optional packages that this notebook uses.
    """
    pip("install", "--no-deps", "--force-reinstall", source)
    importlib.invalidate_caches()
    wanted = missing(extras)
    if wanted:
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(folder) / "keep.txt"
            kept.write_text("\n".join(f"{name}=={metadata.version(name)}" for name in KEEP if has(name)))
            pip("install", "--constraint", str(kept), *wanted)
    if has("torchao") and numbers(metadata.version("torchao")) < (0, 16):
        pip("uninstall", "--yes", "torchao")  # with it every LoRA model raises ImportError
    importlib.invalidate_caches()
    print(versions())


def unpacked(wheel: str, sha256: str, name: str) -> str:
    """Write the wheel that a notebook carries as base64 text to a file of that name; returns its path."""
    data = base64.b64decode(wheel)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SystemExit(
            "rlhflab's text in this cell is damaged: its checksum differs. Take a fresh notebook."
        )
    path = Path(tempfile.mkdtemp()) / name
    path.write_bytes(data)
    return str(path)


def pip(*arguments: str) -> None:
    """Run pip; where it fails, end the cell with its last line."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise SystemExit(f"pip {arguments[0]} failed: {lines[-1]}")


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
                raise SystemExit(f"rlhflab needs {needs}; this runtime has {there}: choose a newer runtime")
        wanted.append(f"{requirement.name}{requirement.specifier}")
    return wanted


def has(name: str) -> bool:
    """Whether a package is installed."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def versions() -> str:
    """One line: versions, and the GPU with its memory."""
    import torch

    parts = [f"Python {sys.version.split()[0]}"]
    parts += [f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "ipywidgets")]
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        parts.append(f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB")
    else:
        parts.append("no GPU")
    return f"rlhflab {metadata.version('rlhflab')} is ready: " + " · ".join(parts)
