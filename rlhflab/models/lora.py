"""LoRA: small trainable terms on the linear layers of a frozen model, and a reference without a second model.

    W·x + (α/r)·B·A·x        A [r, in] random, B [out, r] zero: at the start the model is unchanged

Source: Hu et al. (2021), "LoRA: Low-rank adaptation of large language models"; on every linear layer of the blocks, as
in Dettmers et al. (2023), "QLoRA".
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlhflab.boundary import Fault, cause, given, one_line
from rlhflab.models.fit import Purpose, misfit, other_base, state_misfit
from rlhflab.models.quantised import wake_bitsandbytes
from rlhflab.remedies import require_lora


def lora_targets(model: Any, named: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the layers that get adapters.

    Args:
        model: any Hugging Face model; its weights may be on the meta device.
        named: the user's choice; if empty, all linear layers of the model's blocks, without the head and anything
            before the first block or after the last one.

    Raises:
        ValueError: a name that no linear layer has, or no linear layer in a block; the message lists the existing ones.
    """
    names = [name for name, _, _ in linear_layers(model)]
    known = sorted({_last(name) for name in names})
    chosen = tuple(named) or tuple(
        dict.fromkeys(_last(name) for name in names if re.search(r"\.\d+\.", name))
    )
    if not chosen:
        raise ValueError(
            f"this {_kind(model)} has no blocks with linear layers: name layers with --lora-targets (lora_targets), "
            f"out of {', '.join(known) or 'none at all'}"
        )
    missing = sorted(set(chosen) - set(known))
    if missing:
        raise ValueError(
            f"no linear layer is called {missing[0]!r}; this {_kind(model)} has {', '.join(known)}"
        )
    return chosen


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _kind(model: Any) -> str:
    return str(model.config.get_text_config().model_type)


def linear_layers(model: Any) -> Iterator[tuple[str, int, int]]:
    """(name, inputs, outputs) of every linear layer but the output layer."""
    from transformers.pytorch_utils import Conv1D

    last = model.get_output_embeddings()
    for name, module in model.named_modules():
        if module is last or name in ("lm_head", "score"):
            continue
        if isinstance(module, nn.Linear):
            yield name, module.in_features, module.out_features
        elif isinstance(module, Conv1D):
            yield name, module.nx, module.nf


def add_lora(
    model: Any, rank: int, alpha: float, dropout: float, targets: Sequence[str], seed: int = 0
) -> Any:
    """Freeze `model` and add adapters to it, in float32 whatever its precision.

    Args:
        model: any Hugging Face model, its weights in 4 bits or not; changed in place.
        rank: r ≥ 1, usually 8–64.
        alpha: α > 0, usually r to 2r.
        dropout: in [0, 1), on the adapters' input while the model is in training mode.
        targets: names of the layers; see `lora_targets`.
        seed: of A; the global random state is left unchanged.

    Returns:
        PEFT's model.
    """
    require_lora()
    wake_bitsandbytes()  # PEFT does
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    transposed = any(isinstance(module, Conv1D) for module in model.modules())  # GPT-2's, unless in 4 bits
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none", target_modules=list(targets),
        fan_in_fan_out=transposed,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".*is_gradient_checkpointing", FutureWarning
        )  # PEFT uses the older name
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
    return _in_float32(adapted)


def read_lora(model: Any, folder: str) -> Any:
    """Load adapters from `folder` onto `model`, for use without training; they compute as in training.

    Args:
        model: the one they were trained on, in any precision; changed in place.
        folder: written by PEFT's save_pretrained.

    Returns:
        PEFT's model.
    """
    # in the base's precision they would be rounded before they could be converted to float32
    return _in_float32(put_adapters(model, folder, "reward"))


def put_adapters(model: Any, folder: str, purpose: Purpose) -> Any:
    """Load adapters onto the model that they were trained on, for use or merging.

    Args:
        model: changed in place.
        folder: written by PEFT's save_pretrained.
        purpose: what the model is for; see `fit`.

    Returns:
        PEFT's model.

    Raises:
        Fault: the adapters belong to another model, or are of a kind that cannot be merged.
    """
    require_lora()
    from peft import PeftConfig, PeftModel

    what = f"the adapters in {folder}"
    with one_line(what), given(f"cannot load {what}", _shapes), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about missing weights, which are checked here
        config = PeftConfig.from_pretrained(folder)
        config.inference_mode = True
        if config.is_prompt_learning:
            raise Fault(f"{what} ({config.peft_type.value}) change no weights; give adapters such as LoRA's")
        adapted = PeftModel(model, config)
        read = adapted.load_adapter(folder, "default", use_safetensors=True)
    kind, trained_on = type(model).__name__, (config.auto_mapping or {}).get("base_model_class", "")
    wrong = misfit((), read.missing_keys, read.unexpected_keys, (), purpose)
    if wrong or (trained_on and other_base(kind, trained_on, purpose)):
        raise Fault(
            f"{what} do not fit {kind} in {config.base_model_name_or_path}: {wrong or ''}{'; ' * bool(wrong)}they were "
            f"trained on {trained_on if trained_on not in ('', kind) else 'another model'}"
        )
    return adapted


def _shapes(error: BaseException) -> str:
    """PEFT's first complaint about weights of another shape, without the rest of its list."""
    found = re.search(r"size mismatch for (\S+): .*?Size\((.*?)\).*?Size\((.*?)\)", str(error), re.DOTALL)
    if found is None:
        return cause(error)
    return "{} is {}, expected {}; they were trained on another model, or with another rank".format(
        *found.groups()
    )


def _in_float32(adapted: Any) -> Any:
    for module in adapted.modules():
        if hasattr(module, "lora_A"):
            module.cast_input_dtype_enabled = False
            for adapter in (*module.lora_A.values(), *module.lora_B.values()):
                adapter.float()
                adapter.__class__ = _Adapter
    return adapted


class _Adapter(nn.Linear):
    """A or B: stored in float32, but computing in the precision of its input.

    PEFT would convert the input to float32 instead: copies of all activations, and much slower products on a GPU.
    """

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight.to(input.dtype))


def is_adapted(model: Any) -> bool:
    """Whether a model carries adapters that can be switched off."""
    return hasattr(model, "disable_adapter")


class AdaptersOff:
    """The reference of a policy with adapters: the same weights, seen with the adapters off.

    It is called like a model, and computes what the policy was before training, without a second copy of the weights.

    Args:
        policy: a PEFT model.
    """

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        with torch.no_grad(), self.policy.disable_adapter():
            return self.policy(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name == "policy" or name.startswith("__"):  # while being copied
            raise AttributeError(name)
        return getattr(self.policy, name)


def trained_state(model: Any) -> dict[str, Tensor]:
    """The weights that training changes: all of a plain model, the adapters (and a head) of an adapted one."""
    if not is_adapted(model):
        return dict(model.state_dict())
    return {name: weight.detach() for name, weight in _trained(model).items()}


@torch.no_grad()
def load_trained_state(model: Any, state: Mapping[str, Tensor]) -> None:
    """Inverse of `trained_state`; ValueError if the weights belong to another model or to other adapters."""
    if not is_adapted(model):
        if wrong := state_misfit(model.state_dict(), state):
            raise other_model(wrong)
        model.load_state_dict(state)
        return
    trained = _trained(model)
    if wrong := state_misfit(trained, state):
        raise ValueError(f"the checkpoint's adapters are not this model's: rank or layers differ: {wrong}")
    for name, weight in trained.items():
        weight.copy_(state[name])


def other_model(wrong: str) -> ValueError:
    """The error for a checkpoint whose weights are not the model's; `wrong` says which."""
    return ValueError(f"the checkpoint is not this model's: {wrong}; has the model's folder changed since?")


def _trained(model: Any) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
