"""Recipes: a whole training as one frozen object whose settings are each declared once.

    recipes.DPO(beta=0.3, pairs=2000).build()       an iterator of records
    Board(recipes.PPO(reward="model"))              a live board with its sliders
    recipes.from_config(run.config).build()         the training of a saved run

Importing them is fast: torch is loaded only when one is built.
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
"""The algorithms that also run on gymnasium's environments, whose names are not those of language worlds."""


def recipe_class(algorithm: str, world: Any = None) -> type[BuiltIn]:
    """Return the recipe of an algorithm in a world.

    Args:
        algorithm: its name, "dpo" for instance.
        world: by default a language world. For an algorithm of CONTROL any other name is taken as gymnasium's, unless
            it names real texts.

    Raises:
        ValueError: unknown name.
    """
    if algorithm not in LANGUAGE:
        raise ValueError(f"unknown algorithm {algorithm!r}; known: {', '.join(LANGUAGE)}")
    named = isinstance(world, str) and (world in WORLDS or is_text_source(world))
    language = world is None or named or hasattr(world, "answer_rewards")
    return CONTROL[algorithm] if algorithm in CONTROL and not language else LANGUAGE[algorithm]


def from_config(config: Mapping[str, Any]) -> BuiltIn:
    """Return the recipe described by a run's config.json: the algorithm's name as `algorithm`, and its settings.

    Raises:
        ValueError: unknown algorithm or setting, or a value that is not allowed, in one line.
    """
    settings = dict(config)
    algorithm = settings.pop("algorithm")
    found = recipe_class(algorithm, settings.get("world"))
    require_known(found, settings)
    return found(**settings)


def require_known(found: type[Recipe], names: Any) -> None:
    """Raise ValueError if a name is not one of a recipe's settings."""
    declared = found.declared()
    for name in names:
        if name not in declared:
            raise ValueError(f"{name} is not a setting of {found.name}; known: {', '.join(declared)}")
