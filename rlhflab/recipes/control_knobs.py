"""What may be turned while REINFORCE, PPO and TRPO run on control problems: no β there, but a discount γ."""

from __future__ import annotations

from dataclasses import replace

from rlhflab.algorithms.ppo import PPOKnobs
from rlhflab.algorithms.reinforce import ReinforceKnobs
from rlhflab.algorithms.trpo import TRPOKnobs
from rlhflab.core.knobs import Knob, Knobs

GAMMA = Knob(
    default=0.99, low=0.5, high=1.0, at_least=0.0, at_most=1.0, log=False, label="γ",
    help="What a reward one step later is worth: how far the policy looks ahead.",
)  # fmt: skip


def _for_control(knobs: type[Knobs]) -> dict[str, Knob]:
    return {name: knob for name, knob in knobs.specs.items() if name != "beta"} | {"gamma": GAMMA}


class ReinforceControlKnobs(Knobs):
    """REINFORCE's."""

    algorithm = "reinforce-control"
    specs = _for_control(ReinforceKnobs)


class PPOControlKnobs(Knobs):
    """PPO's."""

    algorithm = "ppo-control"
    specs = _for_control(PPOKnobs) | {"epochs": replace(PPOKnobs.specs["epochs"], high=40)}


class TRPOControlKnobs(Knobs):
    """TRPO's."""

    algorithm = "trpo-control"
    specs = _for_control(TRPOKnobs)
