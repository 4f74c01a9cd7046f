"""Weights from a folder or a hub, from safetensors only, with the adapters that were trained on them before."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhflab.boundary import one_line
from rlhflab.models.attention import keep_fused
from rlhflab.models.quiet import quiet_loading
from rlhflab.oom import is_out_of_memory

EXPECTED = "expected tiny, a folder or a hub id"


def base_of(name: str) -> str:
    """The folder or hub id of the weights themselves, where `name` may be a folder of adapters on them."""
    return next(reversed([*_chain(name)]))


def is_adapters(name: str) -> bool:
    """Whether a name is that of a folder that holds adapters and not a model."""
    return (Path(name) / "adapter_config.json").is_file()


def load_weights(kind: Any, name: str, **settings: Any) -> Any:
    """Load a model, with the adapters added to its weights where `name` is a folder of adapters.

    Args:
        kind: transformers' class, such as AutoModelForCausalLM.
        name: a folder or a hub id.
        settings: of its `from_pretrained`.

    Returns:
        the model; adapters that are put on it and saved name `name` as what they belong to.

    Raises:
        ValueError: nothing to load there, in one line.
        MemoryError: no room for a tensor; or what PyTorch raises then.
    """
    *adapters, base = _chain(name)
    keep_fused()
    with one_line(f"model {name!r}", EXPECTED), quiet_loading(), _memory_errors():
        model = kind.from_pretrained(base, use_safetensors=True, **settings)
        for folder in reversed(adapters):
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, folder, use_safetensors=True).merge_and_unload()
    model.name_or_path = absolute(name)
    return model


@contextmanager
def _memory_errors() -> Iterator[None]:
    """transformers 5 puts what went wrong with a tensor into its report alone, also where memory ran out."""
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
    """A folder's absolute path; a hub id as it is."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _chain(name: str) -> Iterator[str]:
    """The name, what its adapters belong to, and so on to the weights."""
    seen: set[str] = set()
    while is_adapters(name):
        yield name
        seen.add(name)
        with one_line(f"the adapters in {name}"):
            found = json.loads((Path(name) / "adapter_config.json").read_text(encoding="utf-8"))
            name = str(found.get("base_model_name_or_path"))
            if name in seen:
                raise ValueError("they belong to themselves")
    yield name
