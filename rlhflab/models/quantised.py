"""Weights in 4 bits: NF4 with double quantisation, by bitsandbytes, on CUDA devices and on CPUs.

    w ≈ s·q        q one of 16 quantiles of a normal distribution, s one 8-bit scale for 64 weights

The linear layers' weights are stored this way and converted to the compute precision for each product; they are not
trained, only adapters on them are. Embeddings, norms, output layer and reward head keep their precision.

Source: Dettmers et al. (2023), "QLoRA: Efficient finetuning of quantized LLMs".
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import torch

from rlhflab.remedies import require_four_bit

BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Per weight: 64 of them have a common 8-bit scale, and 256 such scales a common 32-bit one."""


def nf4(compute: torch.dtype) -> Any:
    """transformers' settings of NF4 with double quantisation, computing in `compute`.

    Raises:
        ValueError: bitsandbytes is missing or too old, in one line.
    """
    require_four_bit()
    wake_bitsandbytes()
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4",  # the default is fp4
        bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute,
    )  # fmt: skip


def wake_bitsandbytes() -> None:
    """Import bitsandbytes if installed, without its warning about a kernel that it would fetch from a hub."""
    log = logging.getLogger("bitsandbytes")
    level = log.level
    log.setLevel(logging.ERROR)
    with suppress(ImportError):
        import bitsandbytes  # noqa: F401
    log.setLevel(level)


def keep_gradients(model: Any) -> None:
    """Keep a 4-bit model trainable on CPUs with AVX512-BF16; call it before any forward pass.

    There bitsandbytes' first forward pass in evaluation mode would pack the weights into an operation without gradient:
    later training would lose the gradient silently (Llama) or crash (GPT-2, OPT).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def is_four_bit(model: Any) -> bool:
    """Whether any weight is in 4 bits."""
    return any(type(weight).__name__ == "Params4bit" for weight in model.parameters())
