"""A Python environment with the versions of Google Colab's widget stack, made once and kept in the cache folder.

Colab's Python is 3.13. The environment has it where this machine does: RLHFLAB_COLAB_PYTHON, python3.13 on the PATH, or
pyenv's; else the Python that runs the tests, and `instead` says so. torch is the release that the tests run on, not
Colab's 2.11: with the same Python it is a link to it, else pip installs it, on Linux with its CUDA libraries (5 GB).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from rlhflab.files import cache_folder

PYTHON = "3.13"
# Colab's versions as of PLATFORMS.md and its public list of 2026-08-19; notebook 6 is Colab's page's ancestor.
PINS = (
    "ipywidgets==7.7.1", "ipykernel==6.17.1", "ipython==7.34.0", "plotly==5.24.1", "anywidget==0.9.21",
    "transformers==5.15.0", "peft==0.20.0", "accelerate==1.14.0", "datasets==4.0.0", "pyarrow==18.1.0",
    "notebook==6.5.7", "numpy==2.1.3", "pandas==2.2.3", "tqdm==4.67.3", "typer==0.27.1",
)  # fmt: skip
TORCHAO = "torchao==0.10.0"  # the set-up cell removes it, so its wheel is kept
TORCH = ("torch", "torchgen", "functorch")


def make() -> Path:
    """Return the Python of that environment, as Colab's is before the set-up cell: without rlhflab, with torchao.

    Raises:
        RuntimeError: pip could not install the versions.
    """
    colab, why = _colab_python()
    if colab is not None:
        try:
            return _ready(colab, "")
        except RuntimeError as error:
            why = str(error)
    return _ready(sys.executable, f"Colab's Python {PYTHON} cannot be had here: {why}")


def instead(python: Path) -> str:
    """Which Python that environment has instead of Colab's, and why; empty where it has Colab's."""
    return (python.parents[1] / "instead.txt").read_text()


def _colab_python() -> tuple[str | None, str]:
    """A Python that works, or None and where it was looked for."""
    named = os.environ.get("RLHFLAB_COLAB_PYTHON")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{PYTHON}"), *sorted(pyenv.glob(f"{PYTHON}.*/bin/python{PYTHON}"))]
    for candidate in [named] if named else [str(path) for path in found if path]:
        if (version := _version(candidate)) and (named or version.startswith(f"{PYTHON}.")):
            return candidate, ""
    where = f"RLHFLAB_COLAB_PYTHON={named}" if named else f"PATH, {pyenv}"
    return None, f"none that can make an environment ({where})"


def _version(python: str) -> str:
    """Its version; empty where it cannot run, as a shim of pyenv's, or cannot make an environment."""
    code = "import ensurepip, sys, venv; print(*sys.version_info[:3], sep='.')"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _ready(interpreter: str, why: str) -> Path:
    version = _version(interpreter)
    differs = "" if version.startswith(f"{PYTHON}.") else f"Python {version}. {why}"
    folder = cache_folder() / f"colab-stack-{version}"
    python, stamp, wheels = folder / "bin" / "python", folder / "pins.txt", folder / "wheels"
    torch = f"torch=={metadata.version('torch').split('+')[0]}"
    wanted = "\n".join((torch, TORCHAO, *PINS))
    if not (stamp.is_file() and stamp.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([interpreter, "-m", "venv", str(folder)], check=True)
        packages = list(PINS)
        if version == ".".join(map(str, sys.version_info[:3])):
            _link_torch(folder)
        else:
            packages.append(torch)
        _pip(python, "install", *packages)
        _pip(python, "download", "--no-deps", "--dest", str(wheels), TORCHAO)
        stamp.write_text(wanted)
    (folder / "instead.txt").write_text(differs)
    _pip(python, "uninstall", "--yes", "rlhflab")
    _pip(python, "install", "--no-index", "--no-deps", "--find-links", str(wheels), TORCHAO)
    return python


def _link_torch(folder: Path) -> None:
    """It is large, and this environment's is the same."""
    bases = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_paths(vars=bases)["purelib"])
    for there in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if there.name in TORCH or there.name.startswith("torch-"):
            (packages / there.name).symlink_to(there)


def _pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the Colab-like environment could not be made: {last}")
