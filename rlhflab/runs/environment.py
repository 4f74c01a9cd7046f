"""Where a run is made: Python, packages, machine."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

from rlhflab import processes

PACKAGES = (
    "rlhflab", "torch", "transformers", "peft", "accelerate", "safetensors", "numpy", "plotly", "ipywidgets",
    "anywidget", "trl", "bitsandbytes",
)  # fmt: skip


def environment_now() -> dict[str, Any]:
    """Python, package versions, machine and GPU, as JSON values; a GPU is looked for only where torch is there."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    environment = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "processes": processes.count(),
        "packages": versions,
    }
    torch = sys.modules.get("torch")  # only if it is already imported
    if torch is not None and torch.cuda.is_available():
        environment["gpu"] = torch.cuda.get_device_name()
    return environment
