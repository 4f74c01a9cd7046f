"""How much memory a training takes, from the model's configuration alone, without loading anything.

For activations, each linear layer's input and output are counted once. That is what is kept for the backward pass of a
transformer with fused attention (16·h numbers per token and layer in GPT-2, as in Korthikanti et al., 2022, "Reducing
activation recomputation in large transformer models", without dropout and attention matrix). With gradient
checkpointing one input per layer is kept, and one complete layer. Without fused attention, heads × time × time numbers
per layer are added. A graph to be differentiated twice holds TWICE as much, and checkpointing does not help.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlhflab import processes
from rlhflab.models import quantised
from rlhflab.models.logps import LOGITS_AT_ONCE
from rlhflab.models.lora import linear_layers, lora_targets
from rlhflab.models.weights import is_adapters

HEADROOM = 1.2  # on everything: allocator, kernels' workspace, other growth
TWICE = (
    4.5  # measured on CPUs, adapters or not: 3 (OPT), 4 (GPT-2), 5 (Qwen2: gated layers and float32 norms)
)
VECTORS = 11  # of the size of all trained weights, in a conjugate-gradient step at once; measured too


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes:
        weights: the model's, and those of a separate reference if there is one.
        adapters: LoRA's, in float32.
        optimiser: gradients and AdamW's two moments, in float32; or conjugate gradient's vectors.
        activations: kept for the backward pass of one batch, logits included.
    """

    weights: float
    adapters: float
    optimiser: float
    activations: float

    @property
    def total(self) -> float:
        """The sum, with headroom."""
        return HEADROOM * (self.weights + self.adapters + self.optimiser + self.activations)

    def words(self) -> str:
        """One line, in GB of 10⁹ bytes."""
        parts = ", ".join(f"{name} {size / 1e9:.2g}" for name, size in vars(self).items() if size)
        return f"{self.total / 1e9:.2g} GB ({parts}, and a fifth on top)"


def empty_model(config: Any, trust_remote_code: bool = False) -> Any:
    """A causal LM of this configuration on the meta device, where weights take no memory."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights(include_buffers=True):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)


@dataclass(frozen=True)
class Workload:
    """The size of one update.

    Attributes:
        rows: sequences in a forward pass; for pairs, twice their number.
        length: tokens per sequence.
        dtype: of the weights that are not trained, and of the activations.
        lora_rank: r of the adapters, or 0 if all weights are trained, in float32.
        named: the layers with adapters; see `lora_targets`.
        four_bit: whether the linear layers' weights are in NF4.
        checkpointing: gradient checkpointing.
        copies: of the weights: 2 if the reference is a separate model.
        logits: whether the output layer is used; a reward model has none.
        answer_tokens: tokens per answer whose logits all exist at once; 0 if they are computed in parts.
        twice: fraction in [0, 1] of the rows whose graph is differentiated twice, as for TRPO's Fisher matrix.
        fused: whether the device has fused attention in this precision; see `attention.has_fused`. A model with its own
            attention instead of PyTorch's never has it.
    """

    rows: int
    length: int
    dtype: torch.dtype = torch.float32
    lora_rank: int = 0
    named: tuple[str, ...] = ()
    four_bit: bool = False
    checkpointing: bool = False
    copies: int = 1
    logits: bool = True
    answer_tokens: int = 0
    twice: float = 0.0
    fused: bool = True


def estimate(model: Any, work: Workload) -> Memory:
    """Estimate a training of a model, which may come from `empty_model` or be loaded."""
    size = work.dtype.itemsize if work.lora_rank else 4
    layers = list(linear_layers(model))
    every = sum(weight.numel() for weight in model.parameters())
    linear = sum(inputs * outputs for _, inputs, outputs in layers)
    targets = lora_targets(model, work.named) if work.lora_rank else ()
    adapters = sum(
        work.lora_rank * (inputs + outputs)
        for name, inputs, outputs in layers
        if name.rsplit(".", 1)[-1] in targets
    )
    text = model.config.get_text_config()
    tokens, blocks = work.rows * work.length, text.num_hidden_layers
    linears = size * sum(inputs + outputs for _, inputs, outputs in layers)
    scores = text.num_attention_heads * work.length  # a token and layer
    kept = linears
    if not work.fused or text._attn_implementation == "eager":
        # softmax is in float32, before it is converted back to 16 bits; a cap on the scores keeps them too
        entry = (4 if size == 4 else 6) + 4 * bool(getattr(text, "attn_logit_softcapping", None))
        kept += blocks * entry * scores
    if work.checkpointing:
        kept = size * blocks * text.hidden_size + kept / blocks
    kept = max(kept, work.twice * TWICE * (linears + blocks * 4 * scores))
    read = 0.0
    if (
        work.answer_tokens and work.logits
    ):  # and those of the distribution before, and what the loss makes of them
        read = 24.0 * work.rows * min(work.answer_tokens, work.length) * text.vocab_size
    elif work.logits:  # in float32, their log-softmax, its gradient, and that in the model's precision
        read = (3 * 4 + size) * min(tokens * text.vocab_size, LOGITS_AT_ONCE)
    return Memory(
        weights=work.copies
        * ((every - linear) * size + linear * (quantised.BYTES if work.four_bit else size)),
        adapters=4.0 * adapters,
        optimiser=4.0 * (VECTORS if work.twice else 3) * (adapters if work.lora_rank else every),
        activations=tokens * kept + read,
    )


def smaller(
    settings: Mapping[str, Any], gradients: bool = True, batches: bool = True
) -> list[dict[str, Any]]:
    """Changes of a training's settings that need less memory: only those that are allowed and not already made.

    Args:
        settings: a recipe's, by name; None for an unknown number.
        gradients: whether memory for the backward pass matters.
        batches: whether there is a batch at all; else only the weights and the data matter.

    Returns:
        setting → new value, several if one needs the other; None for half of an unknown number.

    >>> smaller({"model": "gpt2", "batch_size": 8, "gradient_checkpointing": True, "lora": True})
    [{'batch_size': 4}, {'four_bit': True}]
    >>> smaller({"model": "tiny", "batch_size": None, "lora": False})
    [{'batch_size': None}]
    """
    real, get = settings.get("model", "tiny") != "tiny", settings.get
    names = ["batch_size", "envs", "horizon"] if batches else [] if real else ["texts", "pairs"]
    if real and batches:
        names += ["max_length", "max_new_tokens"]
    least = {"batch_size": processes.count(), "max_length": (get("max_new_tokens") or 1) + 1}
    found: list[dict[str, Any]] = []
    for name in names:
        now = settings.get(name, 0)
        if now is None:
            found.append({name: None})
        elif isinstance(now, int) and now // 2 >= least.get(name, 1):
            found.append({name: now // 2})
    parts, rows = get("minibatches") or 0, get("batch_size", 0)
    if gradients and 0 < 2 * parts <= (2 * parts if rows is None else rows):
        found.insert(1, {"minibatches": 2 * parts})
    shared = {"value": "shared"} if get("value") == "own" else {}  # adapters allow only one trunk
    found += [shared] if shared else []
    if real and gradients and not get("gradient_checkpointing"):
        found.append({"gradient_checkpointing": True})
    adapters = {} if get("lora") else {"lora": True, **shared}
    found += [adapters] if real and adapters else []
    if real and not get("four_bit") and not is_adapters(get("model", "")):
        found.append({**adapters, "four_bit": True})
    return found


def free_memory(device: torch.device) -> float:
    """Free bytes on a CUDA device, including those that torch keeps for later tensors, or in this machine."""
    if device.type == "cuda":
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + spare)
    import psutil

    return float(psutil.virtual_memory().available)


def device_words(device: torch.device) -> str:
    """The device in words: a GPU's name, memory and compute capability, or the CPU's cores and torch's threads."""
    if device.type != "cuda":
        threads = torch.get_num_threads()
        return f"{device.type} ({os.cpu_count()} cores, {threads} thread{'s' * (threads > 1)})"
    found = torch.cuda.get_device_properties(device)
    return f"cuda ({found.name}, {found.total_memory / 2**30:.0f} GiB, compute capability {found.major}.{found.minor})"


def forget_peak(device: torch.device) -> None:
    """Make `peak_memory` count from now on, if the system supports it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        with suppress(OSError):  # some sandboxes forbid it: the peak is then that since the start
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory(device: torch.device) -> float:
    """Most bytes in use since `forget_peak`: by tensors on a CUDA device; on a CPU by the whole process.

    macOS and some sandboxes do not count them: there it is the current use of the process.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if status.is_file() and "VmHWM:" in (words := status.read_text(encoding="utf-8")):
        return 1024.0 * int(words.split("VmHWM:")[1].split()[0])
    import psutil

    found = psutil.Process().memory_info()
    return float(getattr(found, "peak_wset", found.rss))
