"""The doctor: what is installed, which device and precision a training would use, and how to fix what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from rlhflab.files import CACHE, can_write, wanted_cache_folder
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


FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK=1 in the environment lets the CPU do what MPS cannot"


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was checked.
        found: what was found, in words.
        fix: the exact command or step that fixes it; empty if nothing is to be done.
        problem: whether training cannot work until it is fixed.
    """

    name: str
    found: str
    fix: str = ""
    problem: bool = False


def report(device: str | None = None) -> list[Check]:
    """Check everything and return one check per line; never raises.

    Args:
        device: a device on which an update of every kind is made, "cpu", "cuda" or "mps"; by default none.
    """
    checks = [_python()]
    checks += [_package(name, "needed", problem=True) for name in CORE]
    checks += [_package(name, use, problem=False) for name, use in OPTIONAL.items()]
    checks += _torchao()
    checks += _device()
    checks += [_cache(), _working_folder()]
    return checks if device is None else checks + _trials(device)


def doctor(device: str | None = None) -> bool:
    """Print the report as a table, for notebooks and the command line; return whether training can work.

    Args:
        device: see `report`.

    Raises:
        ValueError: a device that is not available.
    """
    if device is not None:
        from rlhflab.models.devices import choose_device

        choose_device(device)
    checks = report(device)
    names, found = (max(len(getattr(check, key)) for check in checks) for key in ("name", "found"))
    for check in checks:
        mark = "✗" if check.problem else "·" if check.fix else "✓"
        fix = f"   → {check.fix}" if check.fix else ""
        print(f"{mark} {check.name:<{names}}  {check.found:<{found if fix else 0}}{fix}")
    problems = sum(check.problem for check in checks)
    print(f"{problems} to fix before training." if problems else "Ready to train.")
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
    except (
        Exception
    ) as error:  # a broken CUDA or a half-installed package: finding these is the doctor's purpose
        found = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return [Check("device", found, "fix the packages above, then run the doctor again", problem=True)]
    return [Check("device", words), Check("precision", str(dtype).removeprefix("torch."))]


def _trials(device: str) -> list[Check]:
    """An update of every kind on a device; the speed of the tiny model there; notes on Apple GPUs."""
    import torch

    from rlhflab.models.devices import choose_device
    from rlhflab.recipes.trials import compared, try_on

    advice = "paste this whole report into an issue of rlhflab"
    checks = []
    for outcome in try_on(device):
        fix = FALLBACK if device == "mps" and "MPS" in outcome.error else advice
        found = outcome.error or f"{outcome.seconds:.1f} s"
        checks.append(Check(outcome.name, found, fix if outcome.error else "", bool(outcome.error)))
    if device == "mps":
        checks.append(Check("float64", "not on MPS: exact tables are on the CPU, sampling uses float32"))
        checks.append(
            Check("4 bits", "bitsandbytes has them for MPS; its optimisers, which nothing here uses, not")
        )
    if device != "cpu":
        try:
            checks.append(Check("tiny model", compared(choose_device(device))))
        except Exception as error:  # its trial above has the details
            checks.append(Check("tiny model", f"not compared with the CPU: {type(error).__name__}: {error}"))
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e6
        checks.append(Check("peak memory", f"{peak:.0f} MB of the GPU, in all of these trainings"))
    return checks


def _cache() -> Check:
    folder, fix = wanted_cache_folder(), f"set {CACHE} to a folder that can be written to"
    if folder is None:
        return Check("cache folder", "none: no home folder is known; each process has a temporary one", fix)
    if not can_write(folder):
        return Check("cache folder", f"{folder}, not writable; each process has a temporary one", fix)
    return _disk("cache folder", folder)


def _working_folder() -> Check:
    try:
        return _disk("working folder", Path.cwd())
    except OSError as error:
        return Check("working folder", f"{error.strerror}", "change to a folder that exists", problem=True)


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
