"""Out of memory: which errors mean it, what they say, and how the memory is released.

PyTorch, NumPy, bitsandbytes and Python each have their own error. Here all of them become `OutOfMemory`: one line with
how much was asked for, how much was free, and the settings that need less. The original error is not kept: its
traceback holds the frames of the failed step, which hold activations and graphs.
"""

from __future__ import annotations

import errno
import gc
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from rlhflab.remedies import OneLine

MEANS = re.compile(
    r"out of memory|out_of_memory|can't allocate memory|cannot allocate memory|not enough memory|"
    r"invalid buffer size|cudaErrorMemoryAllocation|"
    r"STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN, cuSPARSE, …
    re.IGNORECASE,
)
"""Messages of a RuntimeError that mean out of memory."""

_UNITS = {"bytes": 1, "byte": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
_SIZE = r"([\d.]+) ?([KMGTP](?=i?B)|bytes?\b|B\b)"
_TOLD = {
    "asked": rf"(?:tried to allocate|unable to allocate|invalid buffer size:?) {_SIZE}",
    "free": rf"{_SIZE}(?:i?B)?(?: is)? free",
    "total": rf"(?:total capac?ity of|max allowed:) {_SIZE}|{_SIZE}(?:i?B)? total capacity",
    "own": rf"(?:allocated memory|MPS allocated:) {_SIZE}|{_SIZE}(?:i?B)? already allocated",
    "spare": rf"{_SIZE}(?:i?B)? is reserved by PyTorch but unallocated",
}


class Way(NamedTuple):
    """Settings that take less memory.

    Attributes:
        changes: setting → its new value; None for half of the current one.
        then: bytes needed with them; 0 if unknown.
    """

    changes: Mapping[str, Any]
    then: float = 0.0

    def words(self, options: bool) -> str:
        """As options of the command line, or as a recipe's arguments.

        >>> Way({"lora": True, "batch_size": None}).words(options=True)
        '--lora half the --batch-size'
        >>> Way({"max_length": 256}, 3e9).words(options=False)
        'max_length=256 (3 GB)'
        """
        parts = []
        for name, value in self.changes.items():
            shown = f"--{name.replace('_', '-')}" if options else name
            if value is None:
                parts.append(f"half the {shown}")
            elif options:
                parts.append(shown if value is True else f"{shown} {value}")
            else:
                parts.append(f"{shown}={value!r}")
        size = f" ({self.then / 1e9:.2g} GB)" if self.then else ""
        return (" " if options else " with ").join(parts) + size


class DoesNotFit(OneLine):
    """Something does not fit into memory; with settings that need less.

    Args:
        what: the line up to the remedies.
        ways: the settings that help, best first.
        otherwise: what helps if no setting does.
    """

    options = False
    """Whether `str` names settings as options of the command line."""

    def __init__(self, what: str, ways: Sequence[Way] = (), otherwise: str = "") -> None:
        super().__init__(what, ways, otherwise)  # all of it, so that it can be pickled
        self.what, self.ways, self.otherwise = what, list(ways), otherwise

    def words(self, options: bool) -> str:
        """The line, for the command line or for Python."""
        helps = ", ".join(way.words(options) for way in self.ways)
        return f"{self.what}; what makes it smaller: {helps or self.otherwise}"

    def __str__(self) -> str:
        return self.words(self.options)

    @property
    def line(self) -> str:
        """With settings named as a recipe's arguments."""
        return self.words(options=False)


class OutOfMemory(DoesNotFit, RuntimeError):
    """Memory ran out: where, how much was asked for and free, and which settings take less; see `out_of_memory`."""


class NoRoom(DoesNotFit, ValueError):
    """A training is rejected because its estimate exceeds the free memory."""

    options = True


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or the one it was raised from, means that memory ran out, on whatever device."""
    while error is not None:
        if isinstance(error, OutOfMemory | MemoryError):
            return True
        if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):  # PyTorch's
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError) and MEANS.search(str(error)):
            return True
        error = error.__cause__
    return False


def out_of_memory(
    error: BaseException, place: str, ways: Sequence[Way] = (), otherwise: str = ""
) -> OutOfMemory | None:
    """Return the exception to raise instead of an out-of-memory error, and release what that error holds.

    Raise it outside the `except` clause: inside, Python would keep `error` in the new exception.

    Args:
        error: as caught. Its frames are cleared, and those of its causes.
        place: what was being done, for the message: "in step 3 of dpo".
        ways: the settings that help.
        otherwise: what helps if no setting does; by default closing what else uses the memory.

    Returns:
        None if the error means something else; then nothing is changed. An `OutOfMemory` keeps its line.
    """
    if not is_out_of_memory(error):
        return None
    if isinstance(error, OutOfMemory):
        found = error
    else:
        found = OutOfMemory(
            f"out of memory {place}: {amounts(error)}",
            ways,
            otherwise or "nothing here; close what else uses this memory, such as other notebooks and boards",
        )
    for each in chain(error):
        traceback.clear_frames(each.__traceback__)
        each.__traceback__ = None
    release()
    return found


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all its causes and contexts."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__context__, one.__cause__, *getattr(one, "exceptions", ())]


def release() -> None:
    """Release unused memory: reference cycles, and what PyTorch keeps for later tensors."""
    gc.collect()
    torch = sys.modules.get("torch")  # only if it is already imported
    if torch is None:
        return
    with suppress(RuntimeError):  # a lost device has nothing to release
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        elif torch.backends.mps.is_available():
            torch.mps.empty_cache()


def amounts(error: BaseException) -> str:
    """How much was asked for, was free and is in use: from the error, else from the device.

    >>> amounts(RuntimeError("you tried to allocate 8589934592 bytes. 1.50 GiB is free"))
    '8.00 GiB asked for, 1.50 GiB free, 6.50 GiB too little'
    """
    text = next(
        (str(each) for each in chain(error) if re.search(_TOLD["asked"], str(each), re.I)), str(error)
    )
    found = {}
    for name, pattern in _TOLD.items():
        if match := re.search(pattern, text, re.IGNORECASE):
            number, unit = (group for group in match.groups() if group)
            found[name] = float(number) * _UNITS[unit if unit in _UNITS else unit.upper()[0]]
    gpu = re.search(r"\bGPU \d+", text)
    where = f" on {gpu[0]}" if gpu else ""
    if "free" not in found and "total" in found and "own" in found:  # as on MPS
        found["free"] = max(0.0, found["total"] - found["own"])
    if "free" not in found:
        where, found["free"], total = _device_says(text)
        found |= {"total": total} if total else {}
    asked, free, total = (found.get(name, 0.0) for name in ("asked", "free", "total"))
    words = f"{_size(asked)} asked for, " if asked else ""
    words += f"{_size(free)} free" + (f" of {_size(total)}" if total else "") + where
    if asked > free:
        words += f", {_size(asked - free)} too little"
    elif found.get("spare", 0.0) >= asked > 0 and gpu:
        words += " but in pieces (PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True joins them)"
    others = total - free - found.get("own", total) - found.get("spare", 0.0)
    if others > 2**30:
        words += f"; other programs hold about {_size(others)}"
    return words


def _device_says(text: str) -> tuple[str, float, float]:
    """Where memory ran out, the free and the total bytes there, if the error does not say."""
    torch = sys.modules.get("torch")
    if torch is not None and re.search(r"cu(da|blas|dnn|sparse|solver)|hip", text, re.IGNORECASE):
        with suppress(RuntimeError, AssertionError):
            if torch.cuda.is_available():
                free, total = torch.cuda.mem_get_info()
                return f" on GPU {torch.cuda.current_device()}", float(free), float(total)
    import psutil

    memory = psutil.virtual_memory()
    return " in this machine", float(memory.available), float(memory.total)


def _size(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.2f} {unit}"
