"""A few real records of every algorithm, exactly judged in micro and from samples in reviews; made once a process."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rlhflab.core.record import Backdrop, Record
from rlhflab.recipes import CONTROL, LANGUAGE, Race

_FEW = {"steps": 3, "evaluate_every": 2, "seed": 0}
_TINY = {**_FEW, "progress": False}
_PAIRS = {**_TINY, "pairs": 32, "batch_size": 8}
_DRAWN = {**_TINY, "batch_size": 18}
SETTINGS: dict[str, dict[str, Any]] = {
    "dpo": _PAIRS,
    "reward": _PAIRS,
    "rejection": {**_DRAWN, "best_of": 2, "draws": 2, "updates": 2},
    "reinforce": _DRAWN,
    "trpo": _DRAWN,
    "ppo": _DRAWN,
    "sft": {**_TINY, "texts": 64, "batch_size": 8},
    "pretrain": {**_FEW, "texts": 64, "batch_size": 8},
    "reinforce-control": {**_FEW, "envs": 2, "world": "CartPole-v1"},
    "trpo-control": {**_FEW, "envs": 2, "world": "CartPole-v1"},
    "ppo-control": {**_FEW, "envs": 2, "world": "CartPole-v1"},
    "race": {
        "laps": 2, "pairs": 32, "reward_updates": 2, "seed": 0,
        "updates": {"dpo": 2, "preferred": 2, "ppo": 2, "ppo_learned": 2, "trpo": 2, "reinforce": 2},
    },
}  # fmt: skip
"""Name of an algorithm → the settings of a run of a few small updates."""


@functools.cache
def real_run(name: str, world: str = "micro", beta: float = 1.0) -> tuple[Sequence[Record], Backdrop | None]:
    """The records and the backdrop of a small run; `world` and `beta` count where the algorithm is one of language."""
    given = {} if name.endswith("-control") else {"world": world, "beta": beta}
    found = next(recipe for recipe in (*LANGUAGE.values(), *CONTROL.values(), Race) if recipe.name == name)
    algorithm: Any = found(**given, **SETTINGS[name]).build()
    return tuple(algorithm), algorithm.backdrop


def long_run(name: str, steps: int = 400) -> list[Record]:
    """The records of `real_run` in micro again and again, to so many steps."""
    records = real_run({"supervised": "sft"}.get(name, name))[0]
    return [replace(records[step % len(records)], step=step + 1) for step in range(steps)]


def names_in(records: Sequence[Record]) -> set[str]:
    """All series and arrays that the records hold, as a history names them."""
    return {
        name
        for record in records
        for prefix, part in (
            ("", record.scalars), ("exact/", record.exact or {}), ("estimated/", record.estimated or {}),
            ("", record.arrays),
        )
        for name in (f"{prefix}{key}" for key in part)
    }  # fmt: skip
