"""The precision to compute in on a device, to read weights in, and the one product that needs more than 16 bits.

    logits = h·Wᵀ        h and W in 16 bits, summed and kept in float32

Rounded to bfloat16 a logit of 10 is wrong by up to 0.03, one of 20 by 0.06. So the same answer would have different
log-probabilities in sampling and in training, and PPO's ratios would not start at 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AT_ONCE = 2**20
"""Weights of the LM head converted to float32 at once if no kernel gives float32 from 16 bits: 4 MB."""


def choose_dtype(device: torch.device, width: int = 0) -> torch.dtype:
    """Return the precision to compute in.

    On CUDA bfloat16 from compute capability 8 on, else float16; torch.cuda.is_bf16_supported() is not used, as it says
    yes on a T4, by emulation. On a CPU float32, but bfloat16 if the CPU has AMX and the model's width is at least 512:
    a step then takes 0.4 of the time (width 1024, with or without 4-bit weights); small models are slower in it.

    Args:
        device: where the model is.
        width: its hidden size.
    """
    if device.type != "cuda":
        amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        return torch.bfloat16 if width >= 512 and amx() else torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def reading_dtype(stored: torch.dtype | str | None, device: torch.device, width: int = 0) -> torch.dtype:
    """Return the precision to read stored weights in.

    Weights in 16 bits are read in this device's precision: a T4 only emulates bfloat16, a CPU is slow in float16.
    Float32, which every device supports, is kept.

    Args:
        stored: the precision they were stored in, or its name; None if unknown.
        device, width: see `choose_dtype`.
    """
    name = str(stored).removeprefix("torch.")
    return choose_dtype(device, width) if name in ("bfloat16", "float16") else torch.float32


def in_16_bits(model: Any) -> bool:
    """Whether a causal LM computes in bfloat16 or float16, from its LM head, which is never in 4 bits."""
    return model.get_output_embeddings().weight.dtype in (torch.bfloat16, torch.float16)


def computes_in(model: Any) -> str:
    """How a causal LM computes, in words: log-probabilities of two models are comparable if it is the same."""
    words = str(model.get_output_embeddings().weight.dtype).removeprefix("torch.")
    return f"{words} on {model.device.type}"


@contextmanager
def float32_logits(model: Any) -> Iterator[None]:
    """Within the block, the LM head of a model in 16 bits gives logits in float32; one in float32 is unchanged.

    Inputs, weights and gradients stay the same: only the result is not rounded.
    """
    if not in_16_bits(model):
        yield
        return
    head = model.get_output_embeddings()
    before = head.__dict__.get("forward")  # accelerate's, if it moves the input to the head's device
    head.forward = lambda hidden: _product(hidden.to(head.weight.device), head.weight, head.bias)
    try:
        yield
    finally:
        del head.forward
        if before is not None:
            head.forward = before


def _product(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    logits: Tensor = _Float32Product.apply(hidden, weight)
    return logits if bias is None else logits + bias.float()


class _Float32Product(torch.autograd.Function):
    """hidden [..., in] times weight [out, in], both in 16 bits: [..., out] float32.

    The gradients are those of the product in 16 bits, and can be differentiated again.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        flat = hidden.reshape(-1, hidden.shape[-1])
        return _multiply(flat, weight).view(*hidden.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        hidden, weight = ctx.saved_tensors
        gradient = gradient.to(hidden.dtype)
        to_hidden = gradient @ weight if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return to_hidden, None
        return to_hidden, gradient.flatten(0, -2).T @ hidden.flatten(0, -2)


def _multiply(hidden: Tensor, weight: Tensor) -> Tensor:
    """[rows, in] times [out, in] in 16 bits: [rows, out] float32."""
    if hidden.is_cuda:
        try:
            return torch.mm(hidden, weight.T, out_dtype=torch.float32)
        except (TypeError, NotImplementedError):  # before torch 2.8
            pass
    made, precise = hidden.new_empty(len(hidden), len(weight), dtype=torch.float32), hidden.float()
    step = max(1, AT_ONCE // weight.shape[1])
    for part, into in zip(weight.split(step), made.split(step, 1), strict=True):
        into.copy_(precise @ part.float().T)
    return made
