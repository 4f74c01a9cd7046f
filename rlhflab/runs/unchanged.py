"""Whether a run is continued with the settings and the data that it began with."""

from __future__ import annotations

import json
from typing import Any

from rlhflab.boundary import Fault
from rlhflab.runs.checkpoint import read_settings
from rlhflab.runs.fingerprint import fingerprint
from rlhflab.runs.store import Run

MAY_CHANGE = (
    "device", "steps", "evaluate_every", "progress", "evaluate", "skip_bad", "trust_remote_code",
    "gradient_checkpointing", "world", "model", "reward",
)  # fmt: skip
"""Settings that may change when a run is continued: files may have moved, a reward may have been fixed."""


def require_unchanged(run: Run) -> None:
    """Raise Fault, in one line, if settings or data are not those that the run's checkpoint was made with."""
    former = read_settings(run.checkpoint) if run.has_checkpoint else None
    if former is not None:
        for name in dict.fromkeys([*former, *run.config]):
            _require_same(run, name, former.get(name), run.config.get(name))
    before: dict[str, Any] = run.environment.get("data", {})
    now = fingerprint(run.config) if before else None
    if now is not None and now != before:
        sizes = " then, ".join(f"{data.get('bytes')} bytes" for data in (before, now))
        raise Fault(
            f"{run.config['world']} has changed since the run began ({sizes} now); restore the original data, or "
            "start a new run"
        )


def _require_same(run: Run, name: str, old: Any, new: Any) -> None:
    kinds = {type(value) for value in (old, new) if value is not None}
    if json.dumps(old) != json.dumps(new) and (name not in MAY_CHANGE or len(kinds) > 1):
        raise Fault(
            f"{run.folder / 'config.json'} has changed since the checkpoint: {name} was {json.dumps(old):.80} and "
            f"is {json.dumps(new):.80}; restore it, or start a new run"
        )
