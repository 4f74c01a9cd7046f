"""What can be missing outside this package, and the line that fixes it; nothing heavy is imported here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from typing import Any

LEAST_BITSANDBYTES = (0, 48)  # trains NF4 on a CPU too
REMOVE_TORCHAO = "python -m pip uninstall -y torchao"


def version_of(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> tuple[int, ...]:
    """The first three numbers of a version, for comparison.

    >>> numbers("0.16.0+cu128")
    (0, 16, 0)
    """
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3])


def torchao_clash(torchao: str, peft: str | None) -> str | None:
    """Why PEFT raises ImportError for every LoRA model with this torchao; None if it does not.

    PEFT checks torchao for every LoRA layer, quantised or not. From 0.19 on it rejects versions older than 0.16;
    before, those older than 0.4, and it imports `LinearActivationQuantizedTensor`, which torchao 0.18 removed. (Tested
    with PEFT 0.18.0 to 0.21.2 and torchao 0.3.1 to 0.18.0.) A missing PEFT counts as the newest.

    Returns:
        which torchao is meant, as in "older than 0.16".
    """
    if peft is None or numbers(peft) >= (0, 19):
        return "older than 0.16" if numbers(torchao) < (0, 16) else None
    if numbers(torchao) < (0, 4):
        return "older than 0.4"
    return "newer than 0.17 (PEFT 0.19 does)" if numbers(torchao) >= (0, 18) else None


def unfit_torchao() -> tuple[str, str] | None:
    """The installed torchao's version, and which versions PEFT cannot use; None if nothing is wrong."""
    version = version_of("torchao")
    why = None if version is None else torchao_clash(version, version_of("peft"))
    return None if version is None or why is None else (version, why)


def require_lora() -> None:
    """Raise ValueError in one line if PEFT cannot make LoRA adapters here."""
    if find_spec("peft") is None:
        raise ValueError("LoRA needs peft: python -m pip install peft")
    if (unfit := unfit_torchao()) is not None:
        version, why = unfit
        raise ValueError(
            f"torchao {version} is installed, and PEFT {version_of('peft')} makes no LoRA model beside one {why}: "
            f"{REMOVE_TORCHAO}"
        )


def require_four_bit() -> None:
    """Raise ValueError in one line if bitsandbytes is missing or too old."""
    version = version_of("bitsandbytes")
    if version is None:
        raise ValueError("4-bit weights need bitsandbytes: python -m pip install bitsandbytes")
    if numbers(version) < LEAST_BITSANDBYTES:
        raise ValueError(
            f"4-bit weights need bitsandbytes 0.48 or newer, found {version}: "
            "python -m pip install -U bitsandbytes"
        )


def require_package(package: str, purpose: str) -> None:
    """Raise ValueError in one line if `package` is not installed; `purpose` is what needs it."""
    if find_spec(package) is None:
        raise ValueError(f"{purpose} needs {package}: python -m pip install {package}")


class OneLine(Exception):
    """An error that is fully described by one line: notebooks show it without a traceback."""

    @property
    def line(self) -> str:
        """The line shown in a notebook."""
        return str(self)

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [f"✗ {self.line}"]


class Refusal(OneLine, ValueError):
    """What is wrong and how to fix it, in one line."""


@contextmanager
def plainly() -> Iterator[None]:
    """Turn a ValueError into a `Refusal`, which a notebook's cell shows in one line."""
    try:
        yield
    except ValueError as error:
        raise Refusal(error.line if isinstance(error, OneLine) else str(error)) from None


def headline(error: BaseException) -> str:
    """An error in one line: its own message if that is enough, else with the name of its class."""
    return error.line if isinstance(error, OneLine) else f"{type(error).__name__}: {error}"


def require_gymnasium() -> Any:
    """Return the package; ValueError with the remedy if it is missing or too old."""
    remedy = "python -m pip install 'gymnasium>=1.0'"
    try:
        import gymnasium
    except ImportError:
        raise ValueError(f"control worlds need gymnasium: {remedy}") from None
    if int(gymnasium.__version__.split(".")[0]) < 1:
        raise ValueError(f"control worlds need gymnasium ≥ 1.0, found {gymnasium.__version__}: {remedy}")
    return gymnasium
