"""The fingerprint of a run's data, to tell whether a file or a folder has changed."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any


def fingerprint(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Size and hash of the file, or of all files of the folder, that a run's data come from; None for other sources."""
    world = config.get("world")
    place = Path(world) if isinstance(world, str) and world not in ("micro", "reviews") else None
    if place is None or not place.exists():
        return None
    size, found = 0, blake2b(digest_size=16)
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if path.is_file():
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    size += len(block)
                    found.update(block)
    return {"bytes": size, "blake2b": found.hexdigest()}
