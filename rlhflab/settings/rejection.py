"""Settings of rejection sampling fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from rlhflab.core.settings import Setting, knob, setting
from rlhflab.settings.common import LEARNING_RATE, KLStrength, PolicyGradientSettings

BEST_OF = Setting(help="Answers drawn per prompt, of which the best is kept", at_least=2)
DRAWS = Setting(help="Batches of answers drawn per round", at_least=1)
UPDATES = Setting(help="Updates per round, on the answers that were kept", at_least=1)


@dataclass(frozen=True, kw_only=True)
class RejectionSettings(KLStrength, PolicyGradientSettings):
    """Settings of rejection sampling fine-tuning; β is used only by the evaluations."""

    learning_rate: float = knob(1e-3, LEARNING_RATE)
    best_of: int = setting(4, BEST_OF)
    draws: int = setting(4, DRAWS)
    updates: int = setting(10, UPDATES)
