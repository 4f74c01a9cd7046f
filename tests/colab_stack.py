"""A Python environment with the versions of Google Colab's widget stack, made once and kept in the cache folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from rlhflab.files import cache_folder

# Colab's versions as of PLATFORMS.md; torch is this environment's, CPU only, and notebook 6 is Colab's page's ancestor.
PINS = (
    "ipywidgets==7.7.1", "ipykernel==6.17.1", "plotly==5.24.1", "anywidget==0.9.21", "transformers==5.15.0",
    "peft==0.20.0", "accelerate==1.14.0", "notebook==6.5.7", "numpy", "pandas", "tqdm", "typer",
)  # fmt: skip
TORCH = ("torch", "torchgen", "functorch")


def make() -> Path:
    """Return the Python of that environment, without rlhflab.

    Raises:
        RuntimeError: pip could not install the versions.
    """
    folder = cache_folder() / "colab-stack"
    python, stamp = folder / "bin" / "python", folder / "pins.txt"
    wanted = "\n".join((sys.version, *PINS))
    if not (stamp.is_file() and stamp.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        packages = Path(sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})["purelib"])
        for there in Path(sysconfig.get_paths()["purelib"]).iterdir():
            if there.name in TORCH or there.name.startswith("torch-"):  # a link: torch itself is large
                (packages / there.name).symlink_to(there)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PINS]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(f"the Colab-like environment could not be made: {last}")
        stamp.write_text(wanted)
    else:
        subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "rlhflab"], check=True)
    return python
