"""The number of threads of torch: one for the tiny model, all cores for real ones, unless the user chose a number.

The tiny model's operations are so small that two threads gain little if both have a core (1.0 to 1.2 times), and wait
for each other if other programs use the cores: 3 to 40 times slower.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch

CHOSEN_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

_at_import = torch.get_num_threads()  # by default as many as there are cores
_ours: int | None = None  # the last number set here


def take_one_thread() -> None:
    """Make torch compute with one thread, in this Python thread and in new ones, unless the user chose a number."""
    _take(1)


def take_all_threads() -> None:
    """Undo `take_one_thread` when a model is loaded that is large enough for all cores."""
    if _ours is not None:
        _take(_at_import)


def _take(threads: int) -> None:
    global _ours
    if not are_chosen():
        torch.set_num_threads(threads)
        _ours = threads


def are_chosen() -> bool:
    """Whether the user chose the number of threads: by a variable of CHOSEN_BY, or by torch.set_num_threads."""
    if any(os.environ.get(name) for name in CHOSEN_BY):
        return True
    threads = torch.get_num_threads()  # applies a number that was set before to this Python thread
    return threads != _ours and _is_set(threads)


def _is_set(threads: int) -> bool:
    """Whether torch.set_num_threads was called, which is seen in MKL's number of threads for this thread of Python.

    Setting that number returns the previous one, 0 if none was set. Without MKL, any number but the default was set.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        set_local = ctypes.CDLL(str(library)).MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):
        return threads != _at_import
    former = set_local(0)
    set_local(former)
    return bool(former)
