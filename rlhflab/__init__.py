"""rlhflab: a laboratory for reinforcement learning from human feedback.

Importing the package is quick; the names below load what they need when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhflab.algorithms.dpo import DPO, DPOConfig, DPOKnobs
    from rlhflab.algorithms.ppo import PPOKnobs
    from rlhflab.algorithms.reinforce import ReinforceKnobs
    from rlhflab.algorithms.reward_modelling import RewardKnobs
    from rlhflab.algorithms.trpo import TRPOKnobs
    from rlhflab.live.board import Board
    from rlhflab.recipes.build import build_dpo
    from rlhflab.recipes.build_control import (
        build_control_ppo,
        build_control_reinforce,
        build_control_trpo,
    )
    from rlhflab.recipes.build_policy import build_ppo, build_reinforce, build_trpo
    from rlhflab.recipes.build_race import build_race
    from rlhflab.recipes.build_reward import build_reward
    from rlhflab.recipes.build_supervised import build_pretrain, build_sft
    from rlhflab.recipes.control_knobs import PPOControlKnobs, ReinforceControlKnobs, TRPOControlKnobs
    from rlhflab.recipes.race import RaceKnobs
    from rlhflab.runs.store import Run
    from rlhflab.worlds.micro import MicroWorld
    from rlhflab.worlds.reviews import ReviewsWorld

__version__ = "0.1.0"
__all__ = [
    "MicroWorld",
    "ReviewsWorld",
    "build_pretrain",
    "build_sft",
    "build_reward",
    "build_dpo",
    "build_reinforce",
    "build_trpo",
    "build_ppo",
    "build_race",
    "build_control_reinforce",
    "build_control_trpo",
    "build_control_ppo",
    "RewardKnobs",
    "DPO",
    "DPOConfig",
    "DPOKnobs",
    "ReinforceKnobs",
    "TRPOKnobs",
    "PPOKnobs",
    "RaceKnobs",
    "ReinforceControlKnobs",
    "TRPOControlKnobs",
    "PPOControlKnobs",
    "Run",
    "Board",
]

_HOMES = {
    "MicroWorld": "rlhflab.worlds.micro",
    "ReviewsWorld": "rlhflab.worlds.reviews",
    "build_pretrain": "rlhflab.recipes.build_supervised",
    "build_sft": "rlhflab.recipes.build_supervised",
    "build_reward": "rlhflab.recipes.build_reward",
    "build_dpo": "rlhflab.recipes.build",
    "build_reinforce": "rlhflab.recipes.build_policy",
    "build_trpo": "rlhflab.recipes.build_policy",
    "build_ppo": "rlhflab.recipes.build_policy",
    "build_race": "rlhflab.recipes.build_race",
    "build_control_reinforce": "rlhflab.recipes.build_control",
    "build_control_trpo": "rlhflab.recipes.build_control",
    "build_control_ppo": "rlhflab.recipes.build_control",
    "RewardKnobs": "rlhflab.algorithms.reward_modelling",
    "DPO": "rlhflab.algorithms.dpo",
    "DPOConfig": "rlhflab.algorithms.dpo",
    "DPOKnobs": "rlhflab.algorithms.dpo",
    "ReinforceKnobs": "rlhflab.algorithms.reinforce",
    "TRPOKnobs": "rlhflab.algorithms.trpo",
    "PPOKnobs": "rlhflab.algorithms.ppo",
    "RaceKnobs": "rlhflab.recipes.race",
    "ReinforceControlKnobs": "rlhflab.recipes.control_knobs",
    "TRPOControlKnobs": "rlhflab.recipes.control_knobs",
    "PPOControlKnobs": "rlhflab.recipes.control_knobs",
    "Run": "rlhflab.runs.store",
    "Board": "rlhflab.live.board",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rlhflab' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
