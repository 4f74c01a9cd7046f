"""The doctor: what is installed, which device and precision a training would use, and what mends what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from rlhflab.files import cache_folder
from rlhflab.remedies import REMOVE_TORCHAO, unfit_torchao, version_of

CORE = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "numpy",
    "plotly",
    "ipywidgets",
    "anywidget",
)
OPTIONAL = {
    "jupyterlab": "the notebooks on this machine",
    "trl": 'engine="trl", the comparison with TRL',
    "bitsandbytes": "4-bit models",
    "datasets": "data sets of the hub, and Parquet files",
    "gymnasium": "control problems",
    "joblib": "sweeps",
    "distributed": "sweeps on a Dask cluster",
}


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        found: what was found, in words.
        fix: the exact command or step that mends it; empty where nothing is to be done.
        problem: whether a training cannot work as long as it is not mended.
    """

    name: str
    found: str
    fix: str = ""
    problem: bool = False


def report() -> list[Check]:
    """Look at everything and return one check a line; never raises."""
    checks = [_python()]
    checks += [_package(name, "needed", problem=True) for name in CORE]
    checks += [_package(name, use, problem=False) for name, use in OPTIONAL.items()]
    checks += _torchao()
    checks += _device()
    checks += [_disk("cache folder", cache_folder()), _disk("working folder", Path.cwd())]
    return checks


def doctor() -> bool:
    """Print the report as a table, for notebooks and the command line; return whether training can work."""
    checks = report()
    names, found = (max(len(getattr(check, key)) for check in checks) for key in ("name", "found"))
    for check in checks:
        mark = "✗" if check.problem else "·" if check.fix else "✓"
        fix = f"   → {check.fix}" if check.fix else ""
        print(f"{mark} {check.name:<{names}}  {check.found:<{found if fix else 0}}{fix}")
    problems = sum(check.problem for check in checks)
    print(f"{problems} to mend before training." if problems else "Ready to train.")
    return not problems


def _python() -> Check:
    old = sys.version_info < (3, 11)
    return Check("Python", platform.python_version(), "install Python 3.11 or newer" if old else "", old)


def _package(name: str, use: str, problem: bool) -> Check:
    version = version_of(name)
    if version is None:
        return Check(name, f"missing ({use})", f"python -m pip install {name}", problem)
    return Check(name, version)


def _torchao() -> list[Check]:
    unfit = unfit_torchao()
    if unfit is None:
        return []
    version, why = unfit
    found = f"{version}: PEFT makes no LoRA model beside one {why}"
    return [Check("torchao", found, REMOVE_TORCHAO, problem=True)]


def _device() -> list[Check]:
    try:
        from rlhflab.models.devices import choose_device
        from rlhflab.models.memory import device_words
        from rlhflab.models.precision import choose_dtype

        device = choose_device("auto")
        words, dtype = device_words(device), choose_dtype(device)
    except Exception as error:  # a broken CUDA or a half-installed package: that is what a doctor is for
        found = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return [Check("device", found, "mend the packages above, then run the doctor again", problem=True)]
    return [Check("device", words), Check("precision", str(dtype).removeprefix("torch."))]


def _disk(name: str, folder: Path) -> Check:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        free = shutil.disk_usage(there).free / 2**30
    except OSError as error:
        return Check(name, f"{folder}: {error.strerror}", f"make {there} readable", problem=True)
    found = f"{folder} ({free:.1f} GiB free)"
    if not os.access(there, os.W_OK):
        return Check(name, found + ", not writable", f"make {there} writable", problem=True)
    if free < 1:
        return Check(name, found, "free at least 1 GiB", problem=False)
    return Check(name, found)
