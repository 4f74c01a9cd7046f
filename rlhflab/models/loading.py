"""Models from a folder or a hub, and the one rule for device and precision.

Weights are read from safetensors only and no code that comes with a model is run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called `name`: "cpu", "cuda", or "auto" for CUDA where there is one.

    Raises:
        ValueError: unknown name, or CUDA asked for where there is none.
    """
    if name not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {name!r}")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError("device cuda was asked for, but torch sees no CUDA device; use auto or cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def choose_dtype(device: torch.device) -> torch.dtype:
    """Return the precision to compute in: float32 on a CPU, bfloat16 from compute capability 8, else float16.

    torch.cuda.is_bf16_supported() is not asked: it says yes on a T4, by emulation.
    """
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def load_model(name: str, device: torch.device) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal LM in float32 and its tokenizer from a folder or a hub id.

    Args:
        name: a folder written by save_pretrained, or a hub id such as "gpt2".
        device: where the model goes.

    Returns:
        the model in evaluation mode, and its tokenizer with an EOS token.

    Raises:
        ValueError: nothing to load there, or no tokenizer with an EOS token, in one line.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise ValueError(f"model folder {name} holds no config.json; expected one written by save_pretrained")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"cannot load model {name!r} (expected tiny, a folder or a hub id): {reason}"
        ) from error
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {name!r} has no EOS token, so no answer could end")
    return model.to(device).eval(), tokenizer


def frozen_copy(model: Any) -> Any:
    """Return a copy in evaluation mode whose weights take no gradient: the reference π_ref of a policy."""
    return copy.deepcopy(model).eval().requires_grad_(False)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silence transformers' bars around small loads and saves, where they are noise."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
