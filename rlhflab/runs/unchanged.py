"""Whether a run goes on with the settings and the data that it began with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhflab.boundary import Fault

if TYPE_CHECKING:
    from rlhflab.runs.store import Run

MAY_CHANGE = (
    "device", "steps", "evaluate_every", "progress", "evaluate", "skip_bad", "trust_remote_code",
    "gradient_checkpointing", "world", "model", "reward",
)  # fmt: skip
"""Settings that may be others when a run goes on: files may have moved, a reward may have been mended."""


def require_unchanged(run: Run) -> None:
    """Raise Fault, in one line, where settings or data are not those that the run's checkpoint was made with."""
    from rlhflab.runs.checkpoint import read_settings

    former = read_settings(run.checkpoint) if run.has_checkpoint else None
    if former is not None:
        for name in dict.fromkeys([*former, *run.config]):
            _require_same(run, name, former.get(name), run.config.get(name))
    before: dict[str, Any] = run.environment.get("data", {})
    now = fingerprint(run.config) if before else None
    if now is not None and now != before:
        sizes = " then, ".join(f"{data.get('bytes')} bytes" for data in (before, now))
        raise Fault(
            f"{run.config['world']} has changed since the run began ({sizes} now); put the former data back, or "
            "begin a new run"
        )


def _require_same(run: Run, name: str, old: Any, new: Any) -> None:
    kinds = {type(value) for value in (old, new) if value is not None}
    if json.dumps(old) != json.dumps(new) and (name not in MAY_CHANGE or len(kinds) > 1):
        raise Fault(
            f"{run.folder / 'config.json'} has changed since the checkpoint: {name} was {json.dumps(old):.80} and "
            f"is {json.dumps(new):.80}; put it back, or begin a new run"
        )


def fingerprint(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Size and hash of the file, or of all files of the folder, that a run's data come from; else None."""
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
