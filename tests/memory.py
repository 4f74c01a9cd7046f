"""What running out of memory looks like: the messages as PyTorch and others write them, raised where a test wants."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.74 GiB of which 1.06 GiB is "
    "free. Process 1 has 13.67 GiB memory in use. Of the allocated memory 12.90 GiB is allocated by PyTorch, and "
    "500.00 MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)
CUDA_1 = (
    "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 14.75 GiB total capacity; 13.90 GiB already allocated; "
    "10.06 MiB free; 14.10 GiB reserved in total by PyTorch)"
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "8796093022208 bytes. Error code 12 (Cannot allocate memory)"
)
MPS = (
    "MPS backend out of memory (MPS allocated: 9.06 GB, other allocations: 8.90 MB, max allowed: 9.07 GB). Tried to "
    "allocate 500.39 MB on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit"
)
CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


def short(text: str = CUDA) -> Exception:
    """The error as PyTorch raises it."""
    return (torch.OutOfMemoryError if text.startswith("CUDA out") else RuntimeError)(text)


class Large(torch.autograd.Function):
    """Nothing, but what comes in is noted, and the way back may fail."""

    @staticmethod
    def forward(context: Any, hidden: torch.Tensor, failing: Failing) -> torch.Tensor:
        context.failing = failing
        return hidden.clone()

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        context.failing.go("backward")
        return gradients[0], None


class Failing:
    """Lets a module's pass fail, forward or backward, in the calls that are wanted.

    Attributes:
        seen: weak references to the activations that went through since it was switched on.
    """

    def __init__(self, way: str, error: Exception | None = None) -> None:
        self.way, self.error, self.on = way, error or short(), False
        self.seen: list[weakref.ref[torch.Tensor]] = []

    def go(self, way: str) -> None:
        if self.on and way == self.way:
            self.on = False
            raise self.error

    def __call__(self, module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        if not self.on:
            return None
        if hidden.requires_grad:
            kept = Large.apply(hidden, self)
            self.seen.append(weakref.ref(kept))
        else:
            kept = hidden
        if torch.is_grad_enabled():
            self.go("forward")
        return (kept, *output[1:]) if isinstance(output, tuple) else kept


@contextmanager
def failing(module: torch.nn.Module, way: str, error: Exception | None = None) -> Iterator[Failing]:
    """A module whose next pass with gradient fails once, forward or backward."""
    found = Failing(way, error)
    hook = module.register_forward_hook(found)
    found.on = True
    try:
        yield found
    finally:
        hook.remove()


def alive(found: Failing) -> int:
    """How many of the activations that were seen still exist, without any help of the garbage collector."""
    assert found.seen, "no activation came by"
    return sum(reference() is not None for reference in found.seen)


def graphs() -> int:
    """How many tensors with a graph exist."""
    return sum(issubclass(type(each), torch.Tensor) and each.grad_fn is not None for each in gc.get_objects())
