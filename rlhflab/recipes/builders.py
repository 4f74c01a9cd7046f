"""Every algorithm's builder by name, imported when it is used; what the command line, sweeps and resuming call."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from rlhflab.data.rows import is_folder_of_data

WORLDS = ("micro", "reviews")
"""The worlds of language."""

BUILDERS = {
    "pretrain": ("rlhflab.recipes.build_supervised", "build_pretrain"),
    "sft": ("rlhflab.recipes.build_supervised", "build_sft"),
    "reward": ("rlhflab.recipes.build_reward", "build_reward"),
    "dpo": ("rlhflab.recipes.build", "build_dpo"),
    "reinforce": ("rlhflab.recipes.build_policy", "build_reinforce"),
    "trpo": ("rlhflab.recipes.build_policy", "build_trpo"),
    "ppo": ("rlhflab.recipes.build_policy", "build_ppo"),
}
CONTROL = {
    "reinforce": ("rlhflab.recipes.build_control", "build_control_reinforce"),
    "trpo": ("rlhflab.recipes.build_control", "build_control_trpo"),
    "ppo": ("rlhflab.recipes.build_control", "build_control_ppo"),
}
"""Those that also run where a world's name is none of language's: on gymnasium's environments."""

PARALLEL = ("reward", "dpo", "ppo")
"""Those that several processes can train together, in worlds of language; see `rlhflab.processes`."""


def is_text_source(world: str) -> bool:
    """Whether a world's name is that of real texts: a file or folder of data, or owner/name of a data set on the hub.

    gymnasium's names may have a slash too, and end with a version: "ALE/Pong-v5". What looks like a file is none.
    """
    if Path(world).is_file() or is_folder_of_data(world):
        return True
    named = re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?(@[\w.\[\]:%-]+)?", world) and not world.startswith(".")
    return bool(named) and re.search(r"(-v\d+|\.(jsonl?|csv|parquet|gz))$", world) is None


def builder(name: str, world: str | None = None) -> Callable[..., Any]:
    """Return the function that builds an algorithm from plain settings.

    Args:
        name: of the algorithm.
        world: where it is to run, by default a world of language; any other name that an algorithm of CONTROL gets
            is gymnasium's, unless it is that of real texts.

    Raises:
        ValueError: unknown name.
    """
    if name not in BUILDERS:
        raise ValueError(f"unknown algorithm {name!r}; known: {', '.join(BUILDERS)}")
    language = world is None or world in WORLDS or is_text_source(world)
    control = name in CONTROL and not language
    module, function = (CONTROL if control else BUILDERS)[name]
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found
