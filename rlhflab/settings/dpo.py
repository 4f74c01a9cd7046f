"""Settings of DPO."""

from __future__ import annotations

from dataclasses import dataclass

from rlhflab.core.settings import knob, setting
from rlhflab.settings.common import LEARNING_RATE, REAL_RATE, STEPS, WARMUP, KLStrength, Loop


@dataclass(frozen=True, kw_only=True)
class DPOSettings(KLStrength, Loop):
    """Settings of direct preference optimisation."""

    learning_rate: float = knob(1e-3, LEARNING_RATE, real=None, words=f"0.001; {REAL_RATE}")
    steps: int = setting(600, STEPS)
    warmup: int = setting(10, WARMUP)
