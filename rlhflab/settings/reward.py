"""Settings of reward modelling."""

from __future__ import annotations

from dataclasses import dataclass

from rlhflab.core.settings import knob, setting
from rlhflab.settings.common import (
    BATCH_SIZE,
    BETA,
    EVALUATE_EVERY,
    LABEL_NOISE,
    LEARNING_RATE,
    PAIRS,
    STEPS,
    WARMUP,
    Loop,
)


@dataclass(frozen=True, kw_only=True)
class RewardSettings(Loop):
    """Settings of a reward model's training; β is that of the evaluated policy, the optimal one for this model."""

    learning_rate: float = knob(1e-3, LEARNING_RATE)
    pairs: int = knob(2000, PAIRS)
    label_noise: float = knob(0.0, LABEL_NOISE)
    beta: float = knob(1.0, BETA)
    steps: int = setting(300, STEPS)
    batch_size: int = setting(64, BATCH_SIZE)
    warmup: int = setting(10, WARMUP)
    weight_decay: float = setting(0.0, "AdamW's weight decay", at_least=0)
    held_out: int = setting(512, "Rankings at the end of the pool that are held out", at_least=0)
    test_every: int = setting(10, "Updates between tests on the held-out rankings", at_least=1)
    evaluate_every: int = setting(100, EVALUATE_EVERY)
