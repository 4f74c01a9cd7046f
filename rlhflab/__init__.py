"""rlhflab: a laboratory for reinforcement learning from human feedback.

Importing the package is quick; the names below load what they need when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhflab import recipes
    from rlhflab.algorithms.dpo import DPO
    from rlhflab.algorithms.ppo import PPO
    from rlhflab.core.knobs import Knob, Knobs
    from rlhflab.core.recipe import Recipe
    from rlhflab.core.record import Record
    from rlhflab.core.settings import knob, setting
    from rlhflab.live.board import Board
    from rlhflab.runs.store import Run
    from rlhflab.worlds.micro import MicroWorld
    from rlhflab.worlds.own import OwnWorld
    from rlhflab.worlds.reviews import ReviewsWorld

__version__ = "0.1.0"
__all__ = [
    "recipes",
    "Board",
    "Run",
    "Record",
    "Recipe",
    "Knob",
    "Knobs",
    "knob",
    "setting",
    "DPO",
    "PPO",
    "MicroWorld",
    "OwnWorld",
    "ReviewsWorld",
]

_HOMES = {
    "Board": "rlhflab.live.board",
    "Run": "rlhflab.runs.store",
    "Record": "rlhflab.core.record",
    "Recipe": "rlhflab.core.recipe",
    "Knob": "rlhflab.core.knobs",
    "Knobs": "rlhflab.core.knobs",
    "knob": "rlhflab.core.settings",
    "setting": "rlhflab.core.settings",
    "DPO": "rlhflab.algorithms.dpo",
    "PPO": "rlhflab.algorithms.ppo",
    "MicroWorld": "rlhflab.worlds.micro",
    "OwnWorld": "rlhflab.worlds.own",
    "ReviewsWorld": "rlhflab.worlds.reviews",
}


def __getattr__(name: str) -> Any:
    if name == "recipes":
        return import_module("rlhflab.recipes")
    if name not in _HOMES:
        raise AttributeError(f"module 'rlhflab' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, "recipes"])
