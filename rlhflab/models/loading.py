"""Models from a folder or a hub, plain or with adapters, in 4 bits or not; the one rule for precision.

Weights are read from safetensors only, and code that comes with a model is run only if the user allows it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from rlhflab.boundary import Fault, one_line
from rlhflab.models.attention import has_fused
from rlhflab.models.causal import require_causal, require_decoder
from rlhflab.models.devices import choose_device
from rlhflab.models.lora import AdaptersOff, add_lora, is_adapted, lora_targets
from rlhflab.models.memory import Memory, Workload, empty_model, estimate, free_memory, smaller
from rlhflab.models.precision import PRECISIONS, choose_dtype
from rlhflab.models.quantised import keep_gradients, nf4, wake_bitsandbytes
from rlhflab.models.quiet import quiet_loading
from rlhflab.models.reward import HEAD_FILE, replace_head, reward_head
from rlhflab.models.threads import take_all_threads
from rlhflab.models.tokens import load_tokenizer
from rlhflab.models.weights import EXPECTED, base_of, is_adapters, load_weights, no_hub_id
from rlhflab.oom import NoRoom, Way
from rlhflab.remedies import require_four_bit, require_lora

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def above_float16(dtype: str, device: str) -> str:
    """Return `dtype`, but float32 for "auto" on a device whose precision would be float16, which is too coarse."""
    coarse = dtype == "auto" and choose_dtype(choose_device(device)) == torch.float16
    return "float32" if coarse else dtype


@dataclass(frozen=True)
class LoadSettings:
    """How a real model is loaded.

    Attributes:
        four_bit: the linear layers' weights in NF4; they are not trained, so this needs `lora`.
        lora: train adapters on the linear layers and freeze the rest.
        lora_rank: r from 1 to 1024, usually 8–64.
        lora_alpha: α > 0, the adapters' scale is α/r; by default 2r.
        lora_dropout: in [0, 1), on the adapters' input in training.
        lora_targets: names of the layers with adapters; by default all linear layers of the blocks.
        gradient_checkpointing: recompute activations in the backward pass: less memory, about a third more time.
        dtype: of frozen weights and computation: float32, bfloat16, float16, or auto; see `choose_dtype`. Weights that
            are trained are float32.
        rows, max_length: sequences in a forward pass and tokens per sequence, for the estimate of memory.
        answer_tokens, twice: also for the estimate; see `memory.estimate`.
        device: "auto", "cpu", "cuda" or "mps"; see `models.devices`.
        device_map: "auto" lets accelerate spread the layers over several GPUs; None keeps them on one device.
        trust_remote_code: run code that comes with the model; only if you trust its authors.
        seed: of the adapters.
    """

    four_bit: bool = False
    lora: bool = False
    lora_rank: int = 16
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ()
    gradient_checkpointing: bool = False
    dtype: str = "auto"
    rows: int = 8
    max_length: int = 512
    answer_tokens: int = 0
    twice: float = 0.0
    device: str = "auto"
    device_map: str | None = None
    trust_remote_code: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.four_bit and not self.lora:
            raise ValueError(
                "4-bit weights cannot be trained: give --lora with --four-bit, to train adapters"
            )
        if not 1 <= self.lora_rank <= 1024:
            raise ValueError(f"lora_rank must be from 1 to 1024, got {self.lora_rank}")
        if self.lora_alpha is not None and not self.lora_alpha > 0:
            raise ValueError(f"lora_alpha must be > 0, got {self.lora_alpha}")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout must be in [0, 1), got {self.lora_dropout}")
        if self.lora_targets and not self.lora:
            raise ValueError("lora_targets names layers for adapters: give --lora with it")
        if self.dtype not in ("auto", *PRECISIONS):
            raise ValueError(f"dtype must be one of auto, {', '.join(PRECISIONS)}, got {self.dtype!r}")
        if self.dtype not in ("auto", "float32") and not self.lora:
            raise ValueError(f"weights that are trained are float32: {self.dtype} needs --lora")
        for name in ("rows", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be ≥ 1, got {getattr(self, name)}")
        if not 0 <= self.twice <= 1:
            raise ValueError(f"twice must be in [0, 1], got {self.twice}")


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer.

    Attributes:
        model: ready to train, on its device.
        tokenizer: with an EOS token.
        note: one line: number of parameters, how many are trained, device, precision, layers with adapters, expected
            memory.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    note: str


def load_policy(name: str, settings: LoadSettings | None = None) -> Loaded:
    """Load a causal LM to be trained.

    Args:
        name: a folder written by save_pretrained, with adapters or without, or a hub id such as "gpt2".
        settings: see `LoadSettings`.

    Raises:
        ValueError: in one line with its remedy: nothing to load there, no network, a gated model without a token, no
            EOS token, an architecture with unknown layers, a package missing or too old, not enough memory.
    """
    return _load(name, settings or LoadSettings(), reward=False)


def load_reward_model(name: str, settings: LoadSettings | None = None) -> Loaded:
    """Load a model as a reward model to be trained: its trunk and a new head, so r_φ is 0 for every answer.

    Arguments and errors are those of `load_policy`. Files of `save_reward_model` are read by `read_reward_model`.
    """
    return _load(name, settings or LoadSettings(), reward=True)


def load_reference(policy: Any) -> Any:
    """π_ref for a policy that has not been trained yet.

    Returns:
        if the policy has adapters, the policy itself with its adapters off, so that one copy of the weights serves as
        both; else a frozen copy.
    """
    return AdaptersOff(policy) if is_adapted(policy) else frozen_copy(policy)


def expected_memory(name: str, settings: LoadSettings | None = None, reward: bool = False) -> Memory:
    """The most memory that a training will take, from the model's configuration alone, without loading weights.

    Arguments and errors are those of `load_policy`; `reward` is True for a reward model.
    """
    return _plan(name, settings or LoadSettings(), reward).needed


class _Plan(NamedTuple):
    """What is known of a model before its weights are loaded."""

    config: Any
    device: torch.device
    compute: torch.dtype
    empty: Any
    targets: tuple[str, ...]
    needed: Memory


def _plan(name: str, settings: LoadSettings, reward: bool) -> _Plan:
    from transformers import AutoConfig

    if settings.lora:
        require_lora()
    if settings.four_bit:
        require_four_bit()
    _check_name(name, settings, reward)
    base, what = base_of(name), f"model {name!r}"
    if base != name:
        what = f"model {base!r}, to which the adapters in {name} belong"
    device, code = choose_device(settings.device), {"trust_remote_code": settings.trust_remote_code}
    with one_line(what, EXPECTED), quiet_loading():
        config = AutoConfig.from_pretrained(base, **code)
    require_decoder(config, what)
    if getattr(config, "quantization_config", None):
        if not settings.lora or base != name:
            raise Fault(
                f"the weights of {what} are quantised and cannot be "
                + (
                    "trained: give --lora, to train adapters"
                    if base == name
                    else "changed by adapters for good"
                )
            )
        wake_bitsandbytes()
    _change(config)
    compute = choose_dtype(device, config.get_text_config().hidden_size) if settings.lora else torch.float32
    compute = PRECISIONS.get(settings.dtype, compute)
    with one_line(f"{what}, as its config.json describes it", EXPECTED), quiet_loading():
        empty = empty_model(config, **code)
    targets = lora_targets(empty, settings.lora_targets) if settings.lora else ()
    needed = _require_memory(name, empty, settings, device, compute, reward)
    return _Plan(config, device, compute, empty, targets, needed)


def _load(name: str, settings: LoadSettings, reward: bool) -> Loaded:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    config, device, compute, empty, targets, needed = _plan(name, settings, reward)
    take_all_threads()
    code: dict[str, Any] = {"trust_remote_code": settings.trust_remote_code}
    tokenizer = load_tokenizer(
        name, config.get_text_config().vocab_size, repr(name), settings.trust_remote_code
    )
    if tokenizer.eos_token_id is None:
        raise Fault(
            f"the tokenizer of {name!r} has no EOS token, so no answer could end; name one as eos_token in its "
            "tokenizer_config.json"
        )
    quantised = {"quantization_config": nf4(compute)} if settings.four_bit else {}
    if reward:
        config.num_labels = 1
    kind = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    model, notes = load_weights(
        kind, name, "reward" if reward else "policy", config=config, dtype=compute,
        device_map=settings.device_map or {"": device}, **quantised, **code,
    )  # fmt: skip
    if reward:
        if "ForSequenceClassification" in str(config.architectures):
            notes.append("its classifier's own head is left out: a reward model begins with a new one")
        replace_head(model)
    keep_gradients(model)
    require_causal(model, f"model {name!r}", reward)
    if settings.gradient_checkpointing:
        _checkpoint(model)
    if settings.lora:
        alpha = settings.lora_alpha or 2.0 * settings.lora_rank
        model = add_lora(model, settings.lora_rank, alpha, settings.lora_dropout, targets, settings.seed)
        if reward:
            reward_head(model).requires_grad_(True)
    note = _note(model, empty, settings, compute, device, targets, needed)
    return Loaded(in_training(model), tokenizer, "; ".join([note, *notes]))


def save_model(model: Any, tokenizer: Any, folder: str | Path) -> None:
    """Save a model, or only its adapters if it has any, with its tokenizer, for `load_policy`."""
    with quiet_loading():
        model.save_pretrained(folder, **({"save_embedding_layers": False} if is_adapted(model) else {}))
        tokenizer.save_pretrained(folder)


def in_training(model: Any, dropout: bool = True) -> Any:
    """Put a model into training mode: with gradient checkpointing, if set, and the adapters' dropout.

    The model itself has no dropout: `load_policy` removes it from the configuration.

    Args:
        model: any Hugging Face model.
        dropout: False if there must be none, because two passes over the same tokens are compared.
    """
    newer = "is_activation_checkpointing"  # if it exists, transformers warns about the older name
    checkpointing = getattr(model, newer if hasattr(model, newer) else "is_gradient_checkpointing", False)
    return model.train() if checkpointing or (dropout and is_adapted(model)) else model.eval()


def _checkpoint(model: Any) -> None:
    if hasattr(model, "activation_checkpointing_enable"):  # its newer name
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _check_name(name: str, settings: LoadSettings, reward: bool) -> None:
    folder = Path(name)
    if not reward and (folder / HEAD_FILE).is_file():
        raise Fault(f"{name} holds a reward model ({HEAD_FILE}), which has no LM head: give a language model")
    if is_adapters(name):
        if settings.four_bit:
            raise ValueError(
                f"{name} holds adapters, which cannot be added to 4-bit weights for good: leave out --four-bit"
            )
    elif folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"model folder {name} holds no config.json; expected one written by save_pretrained"
            )
    elif no_hub_id(name):
        raise ValueError(f"there is no model folder {name!r}")


def _change(config: Any) -> None:
    """Remove dropout, and use GPT-2's GELU in one kernel: the same function in half the time and memory.

    With dropout log π_θ(y|x) would be random, and no ratio or difference of two of them correct.
    """
    for setting, value in config.to_dict().items():
        if "drop" in setting and isinstance(value, float):
            setattr(config, setting, 0.0)
    if getattr(config, "activation_function", "") == "gelu_new":
        config.activation_function = "gelu_pytorch_tanh"


def _require_memory(
    name: str, empty: Any, settings: LoadSettings, device: torch.device, compute: torch.dtype, reward: bool
) -> Memory:
    """Return the estimate; raise NoRoom with what would help if it exceeds the free memory."""

    def needed(**changes: Any) -> Memory:
        other = replace(settings, **changes)
        work = Workload(
            other.rows, min(other.max_length, positions_of(empty)), compute, other.lora_rank if other.lora else 0,
            other.lora_targets, other.four_bit, other.gradient_checkpointing, copies=1 if other.lora or reward else 2,
            logits=not reward, answer_tokens=other.answer_tokens, twice=other.twice, fused=has_fused(device, compute),
        )  # fmt: skip
        return estimate(empty, work)

    asked, free = needed(), free_memory(device)
    if settings.device_map is not None or asked.total <= free:
        return asked
    now = {**vars(settings), "model": name, "batch_size": None, "max_length": None}
    half = {"rows": max(1, settings.rows // 2), "max_length": max(1, settings.max_length // 2)}
    ways = []
    for changes in smaller(now):
        named = {"rows" if key == "batch_size" else key: value for key, value in changes.items()}
        other = {key: half[key] if value is None else value for key, value in named.items()}
        ways.append(Way(changes, needed(**other).total))
    raise NoRoom(
        f"{name} would need about {asked.words()}, and {free / 1e9:.2g} GB are free on {device.type}",
        [way for way in ways if way.then < 0.95 * asked.total],
        "a smaller model",
    )


def positions_of(model: Any) -> int:
    """Longest sequence a model supports; 1024 if it does not say, or has no limit."""
    found = int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or 0)
    return found if found > 0 else 1024


def _note(
    model: Any, empty: Any, settings: LoadSettings, compute: torch.dtype, device: torch.device,
    targets: tuple[str, ...], needed: Memory,
) -> str:  # fmt: skip
    every = empty.num_parameters()
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    precision = str(compute).removeprefix("torch.")
    words = f"{every / 1e6:.4g}M parameters on {device.type} in "
    words += f"NF4 computing in {precision}" if settings.four_bit else precision
    if settings.lora:
        words += f"; LoRA of rank {settings.lora_rank} on {', '.join(targets)}"
    return f"{words}; {trained / 1e6:.3g}M trained; at most about {needed.words()} of memory"


def frozen_copy(model: Any) -> Any:
    """Return a copy in evaluation mode whose weights get no gradient: the reference π_ref of a policy."""
    return copy.deepcopy(model).eval().requires_grad_(False)
