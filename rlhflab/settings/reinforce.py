"""What REINFORCE reads."""

from __future__ import annotations

from dataclasses import dataclass

from rlhflab.core.settings import knob, setting
from rlhflab.settings.common import LEARNING_RATE, Discount, KLStrength, PolicyGradientSettings


@dataclass(frozen=True, kw_only=True)
class ReinforceUpdates(PolicyGradientSettings):
    """Settings of REINFORCE's updates, in any task."""

    learning_rate: float = knob(1e-3, LEARNING_RATE)
    to_go: bool = setting(False, "Judge an action by the return from it on, not by the whole one")


@dataclass(frozen=True, kw_only=True)
class ReinforceSettings(KLStrength, ReinforceUpdates):
    """Settings of REINFORCE on answers."""


@dataclass(frozen=True, kw_only=True)
class ReinforceControlSettings(Discount, ReinforceUpdates):
    """Settings of REINFORCE on control problems."""

    to_go: bool = setting(True, "Judge an action by the return from it on, not by the whole one")
