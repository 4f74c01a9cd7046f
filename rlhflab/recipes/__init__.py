"""Recipes: a whole training as one frozen object, whose settings are each said once.

    recipes.DPO(beta=0.3, pairs=2000).build()       an iterator of records
    Board(recipes.PPO(reward="model"))              a live board with its sliders
    recipes.from_config(run.config).build()         the training of a kept run

Importing them is quick: torch is loaded when one is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhflab.core.recipe import Recipe
from rlhflab.recipes.dpo import DPO
from rlhflab.recipes.ppo import PPO, PPOControl
from rlhflab.recipes.race import Race
from rlhflab.recipes.recipe import WORLDS, BuiltIn, is_text_source
from rlhflab.recipes.reinforce import Reinforce, ReinforceControl
from rlhflab.recipes.rejection import Rejection
from rlhflab.recipes.reward import Reward
from rlhflab.recipes.supervised import SFT, Pretrain
from rlhflab.recipes.trpo import TRPO, TRPOControl

__all__ = [
    "DPO",
    "PPO",
    "SFT",
    "TRPO",
    "PPOControl",
    "Pretrain",
    "Race",
    "Recipe",
    "Reinforce",
    "ReinforceControl",
    "Rejection",
    "Reward",
    "TRPOControl",
    "from_config",
    "recipe_class",
]

LANGUAGE: Mapping[str, type[BuiltIn]] = {
    each.algorithm: each for each in (Pretrain, SFT, Reward, DPO, Rejection, Reinforce, TRPO, PPO)
}
"""The algorithms of the command line, by name."""

CONTROL: Mapping[str, type[BuiltIn]] = {
    each.algorithm: each for each in (ReinforceControl, TRPOControl, PPOControl)
}
"""Those that also run where a world's name is none of language's: on gymnasium's environments."""


def recipe_class(algorithm: str, world: Any = None) -> type[BuiltIn]:
    """Return the recipe of an algorithm in a world.

    Args:
        algorithm: its name, "dpo" for instance.
        world: by default one of language; any other name that an algorithm of CONTROL gets is gymnasium's, unless it is
            that of real texts.

    Raises:
        ValueError: unknown name.
    """
    if algorithm not in LANGUAGE:
        raise ValueError(f"unknown algorithm {algorithm!r}; known: {', '.join(LANGUAGE)}")
    named = isinstance(world, str) and (world in WORLDS or is_text_source(world))
    language = world is None or named or hasattr(world, "answer_rewards")
    return CONTROL[algorithm] if algorithm in CONTROL and not language else LANGUAGE[algorithm]


def from_config(config: Mapping[str, Any]) -> BuiltIn:
    """Return the recipe that a run's config.json holds: the algorithm's name as `algorithm`, and its settings.

    Raises:
        ValueError: unknown algorithm or setting, or a value that is not allowed, in one line.
    """
    settings = dict(config)
    algorithm = settings.pop("algorithm")
    found = recipe_class(algorithm, settings.get("world"))
    require_known(found, settings)
    return found(**settings)


def require_known(found: type[Recipe], names: Any) -> None:
    """Raise ValueError where a name is not one of a recipe's settings."""
    declared = found.declared()
    for name in names:
        if name not in declared:
            raise ValueError(f"{name} is not a setting of {found.name}; known: {', '.join(declared)}")
