"""Every algorithm's builder by name, imported when it is used; what the command line, sweeps and resuming call."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

BUILDERS = {
    "pretrain": ("rlhflab.algorithms.build_supervised", "build_pretrain"),
    "sft": ("rlhflab.algorithms.build_supervised", "build_sft"),
    "reward": ("rlhflab.algorithms.build_reward", "build_reward"),
    "dpo": ("rlhflab.algorithms.build", "build_dpo"),
    "reinforce": ("rlhflab.algorithms.build_policy", "build_reinforce"),
    "trpo": ("rlhflab.algorithms.build_policy", "build_trpo"),
    "ppo": ("rlhflab.algorithms.build_policy", "build_ppo"),
}


def builder(name: str) -> Callable[..., Any]:
    """Return the function that builds an algorithm from plain settings.

    Raises:
        ValueError: unknown name.
    """
    if name not in BUILDERS:
        raise ValueError(f"unknown algorithm {name!r}; known: {', '.join(BUILDERS)}")
    module, function = BUILDERS[name]
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found
