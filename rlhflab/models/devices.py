"""The device of a training: one rule, and one place that changes it for a whole process.

"auto" means, in this order: the device set by `use_device`; that of the environment variable RLHFLAB_DEVICE, if
available; with several processes, the device on which each has joined the others; and otherwise
- for real models the GPU, if there is one;
- for the tiny model the GPU if it was measured to be faster (`remember_speed`), else the CPU;
- for control problems the CPU: their environments run in Python, and their networks are even smaller.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Literal

import torch

from rlhflab import processes
from rlhflab.files import cache_folder, written_beside
from rlhflab.models.memory import device_words
from rlhflab.models.threads import take_one_thread

DEVICES = ("auto", "cpu", "cuda", "mps")
VARIABLE = "RLHFLAB_DEVICE"

Use = Literal["real", "tiny", "control"]
"""What is trained: a real model, the tiny model of a built-in world, or a control problem's networks."""

_told = "auto"


def use_device(name: str = "auto") -> str:
    """Make "auto" mean the device `name` from now on, in this process: one line for a whole notebook.

    Args:
        name: one of DEVICES; "auto" for the rule above.

    Returns:
        one line: where the tiny model trains now, and why.

    Raises:
        ValueError: unknown name, or a device that is not available.
    """
    global _told
    choose_device(name)
    _told = name
    take_one_thread()
    device = choose_device("auto", "tiny")
    words = f"trains on {device_words(device)}"
    if name == "auto" and (asked := os.environ.get(VARIABLE, "auto")) not in ("auto", device.type):
        return f"{words}; torch sees no {asked} device for {VARIABLE}={asked}"
    if _wanted("auto") != "auto" or not torch.cuda.is_available():
        return words
    speed = known_speed(torch.device("cuda", torch.cuda.current_device()))
    if speed is None:
        return f'{words}; rlhflab doctor --device cuda measures whether the GPU is faster, DEVICE = "cuda" takes it'
    return f"{words}; cuda, {speed:.2g} times the CPU"


def choose_device(name: str = "auto", use: Use = "real") -> torch.device:
    """Return the device called `name`; a GPU with its index, which with several processes is this one's.

    Args:
        name: one of DEVICES; see above for "auto".
        use: what "auto" is for.

    Raises:
        ValueError: unknown name, or a device that is not available.
    """
    if name not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {name!r}")
    wanted = _wanted(name)
    if wanted == "auto" and processes.device() is not None:
        return torch.device(processes.device())
    if wanted == "cpu" or (wanted == "auto" and (use == "control" or not torch.cuda.is_available())):
        return torch.device("cpu")
    if not _is_there(wanted):
        kind = "CUDA device" if wanted == "cuda" else "Apple GPU"
        raise ValueError(f"device {wanted} was requested, but torch sees no {kind}; use auto or cpu")
    if wanted == "mps":
        return torch.device("mps")
    found = torch.device("cuda", torch.cuda.current_device())
    slower = wanted == "auto" and use == "tiny" and (known_speed(found) or 0.0) <= 1
    return torch.device("cpu") if slower else found


def _wanted(name: str) -> str:
    """The device that `name` means, before checking what is available."""
    if name != "auto" or _told != "auto":
        return name if name != "auto" else _told
    given = os.environ.get(VARIABLE) or "auto"
    if given not in DEVICES:
        raise ValueError(f"{VARIABLE} must be one of {', '.join(DEVICES)}, got {given!r}")
    return given if _is_there(given) else "auto"


def _is_there(name: str) -> bool:
    if name == "mps":
        return torch.backends.mps.is_available()
    return name != "cuda" or torch.cuda.is_available()


def remember_speed(device: torch.device, speed: float) -> None:
    """Keep in the cache folder how many times faster than the CPU a GPU trains the tiny model."""
    path = cache_folder() / "devices.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as beside:
        text = json.dumps({**_speeds(), _key(device): round(speed, 3)}, indent=1) + "\n"
        beside.write_text(text, encoding="utf-8")


def known_speed(device: torch.device) -> float | None:
    """The value of `remember_speed` for this GPU, CPU and torch; None if not measured."""
    return _speeds().get(_key(device))


def _speeds() -> dict[str, float]:
    with suppress(OSError, ValueError, AttributeError, TypeError):  # absent or damaged: measured again
        found = json.loads((cache_folder("devices.json") / "devices.json").read_text(encoding="utf-8"))
        return {str(key): float(speed) for key, speed in found.items()}
    return {}


def _key(device: torch.device) -> str:
    return f"{device_name(device)}, {os.cpu_count()} CPUs, torch {torch.__version__}"


def device_name(device: torch.device) -> str:
    """The name of a GPU's model, or the device's type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
