"""A checkpoint: the nested state of an algorithm in one safetensors file; nothing is pickled.

Tensors are stored as such. The rest is JSON in the file's metadata, in which {"tensor": name} stands for a tensor;
mappings are stored as lists of [key, value], because an optimiser's state has integer keys.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rlhflab.files import written_beside


def write_checkpoint(
    path: Path, state: Mapping[str, Any], step: int, settings: Mapping[str, Any] | None = None
) -> None:
    """Write `state` to `path`; an existing file is replaced atomically, and kept if writing fails.

    Args:
        path: the file; its folder must exist.
        state: nested mappings (keys: strings and integers), lists and tuples of tensors and JSON values.
        step: updates made so far.
        settings: those of the run, JSON values; see `read_settings`.

    Raises:
        ValueError: a value that is neither a tensor nor JSON; names its place.
    """
    tensors: dict[str, torch.Tensor] = {}
    packed = _pack(state, "state", tensors)
    with written_beside(path) as beside:
        beside.touch()
        mode = beside.stat().st_mode
        meta = {"step": str(step), "state": json.dumps(packed), "settings": json.dumps(settings)}
        save_file(_separate(tensors), beside, meta)
        beside.chmod(mode)  # safetensors makes files that only the owner can read


def read_checkpoint(path: Path) -> tuple[int, dict[str, Any]]:
    """Return (step, state) as passed to `write_checkpoint`; tensors are on the CPU.

    Raises:
        ValueError: the file is not a checkpoint.
    """
    with _opened(path) as file:
        meta = file.metadata() or {}
        return int(meta["step"]), _unpack(json.loads(meta["state"]), file.get_tensor)


def read_settings(path: Path) -> dict[str, Any] | None:
    """The run's settings when the checkpoint was written; None if they are not in it.

    Raises:
        ValueError: the file is not a checkpoint.
    """
    with _opened(path) as file:
        found: dict[str, Any] | None = json.loads((file.metadata() or {}).get("settings", "null"))
        return found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a checkpoint: {error}") from None


def _pack(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach()
        return {"tensor": name}
    if isinstance(value, Mapping):
        items = list(value.items())
        if not all(isinstance(key, str | int) for key, _ in items):
            raise ValueError(f"{name} has keys that are neither strings nor integers")
        return {"map": [[key, _pack(item, f"{name}.{key}", tensors)] for key, item in items]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{name} is a {type(value).__name__}; a state holds tensors and JSON values only")


def _unpack(value: Any, tensor: Callable[[str], torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensor(content)
    if kind == "map":
        return {key: _unpack(item, tensor) for key, item in content}
    if kind == "float":
        return float(content)
    items = [_unpack(item, tensor) for item in content]
    return tuple(items) if kind == "tuple" else items


def _separate(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Move to the CPU and copy what shares memory (tied weights), which safetensors refuses."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        tensor = tensor.cpu().contiguous()
        address = tensor.untyped_storage().data_ptr()
        if address in seen and tensor.numel():
            tensor = tensor.clone()
        seen.add(address)
        result[name] = tensor
    return result
