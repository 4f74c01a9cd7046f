"""How many threads torch computes with: one for the tiny model, all cores for real ones, unless somebody chose.

The tiny model's operations are so small that two threads gain little where both find a core (1.0 to 1.2 times), and
wait for each other where other programs use the cores: 3 to 40 times slower.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch

CHOSEN_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

_at_import = torch.get_num_threads()  # by default as many as there are cores
_ours: int | None = None  # what was set here last


def take_one_thread() -> None:
    """Let torch compute with one thread, in this thread of Python and in new ones, unless somebody chose a number."""
    _take(1)


def take_all_threads() -> None:
    """Undo `take_one_thread`, where a model is loaded that is large enough for all cores."""
    if _ours is not None:
        _take(_at_import)


def _take(threads: int) -> None:
    global _ours
    if not are_chosen():
        torch.set_num_threads(threads)
        _ours = threads


def are_chosen() -> bool:
    """Whether somebody chose the number of threads: by a variable of CHOSEN_BY, or by torch.set_num_threads."""
    if any(os.environ.get(name) for name in CHOSEN_BY):
        return True
    threads = torch.get_num_threads()  # brings a number that was set before into this thread of Python
    return threads != _ours and _is_set(threads)


def _is_set(threads: int) -> bool:
    """Whether torch.set_num_threads was called, which is seen in MKL's number of threads for this thread of Python.

    To set that number gives the former one, 0 where none was set. Without MKL any number but the default was set.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        set_local = ctypes.CDLL(str(library)).MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):
        return threads != _at_import
    former = set_local(0)
    set_local(former)
    return bool(former)
