"""Several processes that train one model together: each takes its part of every batch.

    accelerate launch --multi_gpu --num_processes 2 -m rlhflab train dpo …

All processes draw the same random numbers, so each of them knows the whole batch. Each computes with its own rows; the
gradients are summed, and a record's values are gathered, so that N processes give the same result as one.
accelerate finds the other processes and chooses the device. Without a call of `join`, everything here acts as for a
single process.

Left out: a model that is itself split over processes (each holds all of it), and sums that overlap with the backward
pass.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from torch import Tensor

SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # torchrun's and mpirun's
AT_ONCE = 2**24
"""How many numbers of gradients are summed together."""

_state: Any = None  # accelerate's PartialState, once joined


class ProcessLost(RuntimeError):
    """Another process of the training has ended; it has already reported why."""


def launched() -> int:
    """How many processes a launcher has started; 1 without one."""
    return max(int(os.environ.get(name) or 1) for name in SIZES)


def started_as_one() -> bool:
    """Whether accelerate was asked for several processes on CPUs with --cpu, with which it starts only one."""
    asked = os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ
    return asked and launched() == 1


def join(device: str = "auto") -> None:
    """Become one of the processes that a launcher has started; does nothing for a single process.

    Args:
        device: "cpu" for processes on CPUs, or "auto" with RLHFLAB_DEVICE=cpu; otherwise each takes the GPU of its
            local rank, where there are GPUs.

    Raises:
        ValueError: there are GPUs, and fewer than processes, in one line.
    """
    global _state
    if launched() == 1 or _state is not None:
        return
    import torch
    from accelerate import PartialState

    if device == "auto":
        device = os.environ.get("RLHFLAB_DEVICE") or "auto"
    gpus = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    if 0 < gpus < here:
        raise ValueError(
            f"{here} processes need a GPU each, and torch sees {gpus}: start {gpus}, or give --device cpu"
        )
    with _meeting():
        _state = PartialState(cpu=not gpus)


def end(code: int) -> NoReturn:
    """Leave Python with an exit code.

    One of several processes exits immediately: gloo's threads sometimes abort a process during shutdown ("terminate
    called without an active exception"), and a launcher would treat its training as failed.
    """
    if _state is None:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def count() -> int:
    """How many processes train together, ≥ 1."""
    return 1 if _state is None else int(_state.num_processes)


def device() -> Any:
    """The torch.device of this process among several; None for a single process."""
    return None if _state is None else _state.device


def rank() -> int:
    """The number of this process, from 0."""
    return 0 if _state is None else int(_state.process_index)


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def speaks() -> bool:
    """Whether this process prints errors: the main one, also before it has joined the others."""
    return is_main() if _state is not None or launched() == 1 else int(os.environ.get("RANK") or 0) == 0


def share(rows: int, of: int | None = None) -> slice:
    """The part of the batch's `rows` that belongs to this process, or to process `of`; sizes differ by at most one."""
    of = rank() if of is None else of
    return slice(rows * of // count(), rows * (of + 1) // count())


def largest_share(rows: int) -> int:
    """Rows of the process that has the most."""
    return -(-rows // count())


def require_rows(rows: int, name: str = "batch_size") -> None:
    """Raise ValueError in one line if a batch has fewer rows than there are processes."""
    if rows < count():
        raise ValueError(f"{name} must be ≥ {count()}, a row for each of {count()} processes, got {rows}")


def whole(part: Tensor, rows: int) -> Tensor:
    """Gather a batch: [rows, …] from every process's part, without gradient."""
    if count() == 1:
        return part
    import torch

    part = part.detach()
    kind, part = part.dtype, part.to(torch.uint8) if part.dtype == torch.bool else part
    filled = part.new_zeros(largest_share(rows), *part.shape[1:])
    filled[: len(part)] = part
    parts = [torch.empty_like(filled) for _ in range(count())]
    with _meeting():
        torch.distributed.all_gather(parts, filled)
    sizes = [len(range(rows)[share(rows, of)]) for of in range(count())]
    return torch.cat([each[:size] for each, size in zip(parts, sizes, strict=True)]).to(kind)


def total(values: Tensor) -> Tensor:
    """Sum over all processes, without gradient; the same shape."""
    if count() == 1:
        return values
    import torch

    found = values.detach().clone()
    with _meeting():
        torch.distributed.all_reduce(found)
    return found


def largest(value: int, device: Any = "cpu") -> int:
    """The largest of all processes' values; `device` is where the training is."""
    if count() == 1:
        return value
    import torch

    found = torch.tensor(value, device=device)
    with _meeting():
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return int(found)


def sum_gradients(parameters: Iterable[Any]) -> None:
    """Replace the gradients by their sums over all processes; one that is missing counts as 0."""
    import torch

    group: list[Tensor] = []
    every = list(parameters)
    for place, parameter in enumerate(every):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        group.append(parameter.grad)
        if place == len(every) - 1 or sum(gradient.numel() for gradient in group) >= AT_ONCE:
            sums = total(torch.cat([gradient.flatten() for gradient in group]))
            parts = sums.split([gradient.numel() for gradient in group])
            for gradient, part in zip(group, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
            group = []


def agree(decision: bool) -> bool:
    """The main process's decision; all processes must call this."""
    if count() == 1:
        return decision
    return bool(largest(int(decision and is_main()), _state.device))


@contextmanager
def together() -> Iterator[None]:
    """All processes complete the block, or none: if one raises ValueError or OSError, all raise ValueError."""
    if count() == 1:
        yield
        return
    import torch

    said = None
    try:
        yield
    except (ValueError, OSError) as error:
        said = str(error)
    heard: list[str | None] = [None] * count()
    with _meeting():
        torch.distributed.all_gather_object(heard, said)
    failed = next((place for place, words in enumerate(heard) if words is not None), None)
    if failed is not None:
        raise ValueError(heard[failed] if failed == 0 else f"process {failed}: {heard[failed]}")


@contextmanager
def main_first() -> Iterator[None]:
    """The main process of a machine runs the block first, so that the others find its results in a cache.

    They also follow if it fails (with accelerate's own version they would wait forever).
    """
    if count() == 1:
        yield
        return
    first = _state.is_local_main_process
    try:
        if not first:
            with _meeting():
                _state.wait_for_everyone()
        yield
    finally:
        if first:
            with _meeting():
                _state.wait_for_everyone()


@contextmanager
def _meeting() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ProcessLost(
            f"another process of this training has ended or cannot be reached ({why})"
        ) from error
