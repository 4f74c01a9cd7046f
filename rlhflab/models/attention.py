"""The choice of attention kernel: fused ones keep no time × time matrix, PyTorch's math path keeps several.

On CUDA devices the fused kernels support fewer key than query heads only in 16 bits from compute capability 8 on;
elsewhere transformers' unmasked grouped-query attention would fall back to the math path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def keep_fused() -> None:
    """Make transformers models with PyTorch's attention repeat keys and values if no kernel supports sharing them."""
    from transformers import AttentionInterface

    AttentionInterface.register("sdpa", _attend)


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **named: Any) -> Any:
    """transformers' own function, which repeats keys and values if there is a mask; here, also when necessary."""
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    groups = getattr(module, "num_key_value_groups", 1)
    paged = named.get("cache") is not None  # it takes keys and values before they are repeated
    if mask is None and groups > 1 and not paged and not shares_keys(query.device, query.dtype):
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        module = SimpleNamespace(is_causal=getattr(module, "is_causal", True))
    return sdpa_attention_forward(module, query, key, value, mask, **named)


def shares_keys(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a fused kernel supports fewer key than query heads."""
    if device.type != "cuda":
        return True
    return dtype != torch.float32 and torch.cuda.get_device_capability(device)[0] >= 8


def has_fused(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is a fused kernel at all: CUDA devices before compute capability 8 have none for bfloat16."""
    if device.type != "cuda" or dtype != torch.bfloat16:
        return True
    return torch.cuda.get_device_capability(device)[0] >= 8


@contextmanager
def twice_differentiable(model: Any) -> Iterator[None]:
    """Within the block, forward passes of `model` leave a graph that can be differentiated twice.

    The fused kernels have no second derivative. Gradient checkpointing is off: it would recompute the activations with
    another kernel, and the graph of the first derivative keeps them anyway.
    """
    was_training = model.training
    model.eval()
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        model.train(was_training)
