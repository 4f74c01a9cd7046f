"""Settings of REINFORCE."""

from __future__ import annotations

from dataclasses import dataclass

from rlhflab.core.settings import knob, setting
from rlhflab.settings.common import LEARNING_RATE, Discount, KLStrength, PolicyGradientSettings


@dataclass(frozen=True, kw_only=True)
class ReinforceUpdates(PolicyGradientSettings):
    """Settings of REINFORCE's updates, in any task."""

    learning_rate: float = knob(1e-3, LEARNING_RATE)
    to_go: bool = setting(False, "Weight an action by its return to go instead of the whole return")


@dataclass(frozen=True, kw_only=True)
class ReinforceSettings(KLStrength, ReinforceUpdates):
    """Settings of REINFORCE on answers."""


@dataclass(frozen=True, kw_only=True)
class ReinforceControlSettings(Discount, ReinforceUpdates):
    """Settings of REINFORCE on control problems."""

    to_go: bool = setting(True, "Weight an action by its return to go instead of the whole return")
