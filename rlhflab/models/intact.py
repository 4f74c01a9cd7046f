"""Checks that the files of a model's folder are complete and are what their names say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhflab.boundary import Fault, given

INDEX = "model.safetensors.index.json"
_SETTINGS = (
    "config.json", "generation_config.json", "adapter_config.json", "tokenizer_config.json", "tokenizer.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json",
)  # fmt: skip
_TEXTS = ("merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "chat_template.jinja")


def require_intact(folder: str | Path) -> None:
    """Check every file of a model's folder that loading would read; of weights, only the headers.

    Raises:
        Fault: a Git LFS pointer, an empty file, weights that are truncated or not safetensors, settings that are not
            JSON, missing shards; says which file and what to do.
    """
    folder = Path(folder)
    for name in (*_SETTINGS, *_TEXTS):
        if (folder / name).is_file():
            _require_content(folder / name)
    for name in _SETTINGS:
        if (folder / name).is_file():
            _json(folder / name)
    quantised = (folder / "config.json").is_file() and "quantization_config" in _json(folder / "config.json")
    for path in _weights(folder):
        _require_content(path)
        _require_safetensors(path, quantised)


def _weights(folder: Path) -> Iterator[Path]:
    """The weight files that transformers, PEFT and we would read."""
    adapters = folder / "adapter_model.safetensors"
    if (folder / "adapter_config.json").is_file() and not adapters.is_file():
        raise Fault(f"there is no {adapters}; other files can hold code and are not read")
    yield from (path for path in (adapters, folder / "reward_head.safetensors") if path.is_file())
    if (folder / "model.safetensors").is_file():
        yield folder / "model.safetensors"
    elif (folder / INDEX).is_file():
        _require_content(folder / INDEX)
        found = _json(folder / INDEX).get("weight_map")
        if not (isinstance(found, dict) and all(isinstance(name, str) for name in found.values())):
            raise Fault(f"{folder / INDEX} has no weight_map, which says where each weight is")
        shards = sorted(set(found.values()))
        missing = [name for name in shards if not (folder / name).is_file()]
        if missing:
            raise Fault(
                f"{folder / INDEX} names files of weights that are not there: {', '.join(missing[:3])}; fetch them "
                "too"
            )
        yield from (folder / name for name in shards)


def _require_content(path: Path) -> None:
    with given(str(path)), path.open("rb") as file:
        begin = file.read(200)
    if not begin and path.suffix in (".json", ".safetensors"):
        raise Fault(f"{path} is empty; fetch it again")
    if begin.startswith(b"version https://git-lfs"):
        raise Fault(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in the clone that it comes from"
        )
    if begin.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise Fault(f"{path} is a web page, not the file itself; fetch the file again")


def _json(path: Path) -> dict[str, Any]:
    """The contents of a JSON file, which must be an object."""
    with given(f"{path} is not readable JSON"):
        found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise Fault(f"{path} must hold a JSON object, got a {type(found).__name__}")
    return found


def _require_safetensors(path: Path, quantised: bool) -> None:
    from safetensors import safe_open

    with (
        given(f"{path} is damaged, truncated or not a safetensors file; fetch it again"),
        safe_open(path, "pt") as file,
    ):
        kinds = {name: str(file.get_slice(name).get_dtype()) for name in file.keys()}  # noqa: SIM118
    whole = [name for name, kind in kinds.items() if name.endswith("weight") and kind[0] in "IU"]
    if whole and not quantised:
        raise Fault(
            f"{path} holds whole numbers ({whole[0]} is {kinds[whole[0]]}), as quantised weights are, and config.json "
            "has no quantization_config that says how to read them"
        )
