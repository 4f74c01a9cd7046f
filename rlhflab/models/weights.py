"""Weights from a folder or a hub, from safetensors only, with previously trained adapters."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rlhflab.boundary import Fault, one_line
from rlhflab.models.attention import keep_fused
from rlhflab.models.fit import UNWRAP, WRAPPED, Purpose, four_bit_shapes, left_over, misfit
from rlhflab.models.intact import require_intact
from rlhflab.models.lora import put_adapters
from rlhflab.models.quiet import quiet_loading
from rlhflab.oom import is_out_of_memory

EXPECTED = "expected tiny, a folder or a hub id"


def base_of(name: str) -> str:
    """The folder or hub id of the weights themselves; `name` may be a folder of adapters on them."""
    return next(reversed([*_chain(name)]))


def under(folder: str) -> str:
    """The base of the adapters in a folder: a model, or other adapters on it."""
    chain = _chain(folder)
    next(chain)
    return next(chain)


def is_adapters(name: str) -> bool:
    """Whether a name is that of a folder with adapters instead of a model."""
    return (Path(name) / "adapter_config.json").is_file()


class Weights(NamedTuple):
    """A model with its weights.

    Attributes:
        model: adapters that are added to it and saved will name the loaded source as their base.
        notes: on how they were read; usually empty.
    """

    model: Any
    notes: list[str]


def load_weights(
    kind: Any,
    name: str,
    purpose: Purpose = "policy",
    what: str = "",
    otherwise: str = EXPECTED,
    **settings: Any,
) -> Weights:
    """Load a model; if `name` is a folder of adapters, merge them into its weights.

    Args:
        kind: transformers' class, such as AutoModelForCausalLM.
        name: a folder or a hub id.
        purpose: what the model is for, which decides which weights may be missing; see `fit`.
        what, otherwise: for messages: by default "model 'name'", and what could be given instead.
        settings: for `from_pretrained`.

    Raises:
        Fault: nothing to load there, or weights that are not the model's, in one line.
        MemoryError: not enough memory for a tensor; or PyTorch's error.
    """
    what = what or f"model {name!r}"
    *adapters, base = _chain(name)
    keep_fused()
    model, notes = _read(kind, base, purpose, what, otherwise, settings)
    for folder in reversed(adapters):
        model = put_adapters(model, folder, purpose)
        with one_line(f"the adapters in {folder}"):
            model = model.merge_and_unload()
        model.requires_grad_(True)  # PEFT freezes what it puts adapters on
    model.name_or_path = absolute(name)
    return Weights(model, notes)


def _read(
    kind: Any, base: str, purpose: Purpose, what: str, otherwise: str, settings: dict[str, Any]
) -> tuple[Any, list[str]]:
    """The model, if all of its weights are present; wrapper prefixes in their names are removed."""

    def read(**more: Any) -> tuple[Any, dict[str, Any], str | None]:
        with one_line(what, otherwise), quiet_loading(), _memory_errors():
            model, told = kind.from_pretrained(
                base,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **settings,
                **more,
            )
        shapes = [*told["mismatched_keys"], *four_bit_shapes(model)]
        own = model.state_dict().keys()
        return model, told, misfit(own, told["missing_keys"], told["unexpected_keys"], shapes, purpose)

    model, told, wrong = read()
    notes = []
    if wrong and any(map(WRAPPED.search, told["unexpected_keys"])):
        del model  # before the next one is made
        model, told, wrong = read(key_mapping=UNWRAP)
        vars(model).pop("_weight_conversions", None)  # otherwise it would be saved with the wrapper's names
        notes.append(
            "the names of its weights are read without those of a wrapper (torch.compile, DDP or FSDP)"
        )
    if wrong:
        raise Fault(f"the weights of {what} do not fit {type(model).__name__}: {wrong}")
    if spare := left_over(told["unexpected_keys"]):
        notes.append(f"left out of its file: {', '.join(spare[:2])}{', …' if len(spare) > 2 else ''}")
    return model, notes


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Raise memory errors that transformers 5 only mentions in its report."""
    try:
        yield
    except RuntimeError as error:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            told = getattr(frame.f_locals.get("loading_info"), "conversion_errors", None) or {}
            for reason in told.values():
                if "MemoryError" in reason or is_out_of_memory(RuntimeError(reason)):
                    raise MemoryError(reason) from error
        raise


def absolute(name: str) -> str:
    """A folder's absolute path; a hub id unchanged."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _chain(name: str) -> Iterator[str]:
    """The name, the base of its adapters, and so on down to the weights; each checked to be intact."""
    seen: set[str] = set()
    while is_adapters(name):
        require_intact(name)
        yield name
        seen.add(name)
        base = json.loads((Path(name) / "adapter_config.json").read_text(encoding="utf-8")).get(
            "base_model_name_or_path"
        )
        where = f"correct base_model_name_or_path in {Path(name) / 'adapter_config.json'}"
        if not isinstance(base, str) or not base:
            raise Fault(f"the adapters in {name} do not say which model they belong to; {where}")
        if base in seen:
            raise Fault(f"the adapters in {name} belong to themselves; {where}")
        if no_hub_id(base) and not Path(base).is_dir():
            raise Fault(f"the adapters in {name} belong to {base}, which is not there; {where}")
        name = base
    if Path(name).is_dir():
        require_intact(name)
    elif no_hub_id(name):
        raise Fault(f"there is no folder {name!r}")
    yield name


def no_hub_id(name: str) -> bool:
    """Whether a name can only be that of a folder."""
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1
