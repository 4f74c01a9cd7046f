"""Settings of maximum likelihood: pre-training, supervised and preferred fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from rlhflab.core.settings import Setting, knob, setting
from rlhflab.settings.common import BATCH_SIZE, LEARNING_RATE, SCHEDULE, STEPS, WARMUP, Loop

BETA_OF_EVALUATION = Setting(help="KL strength β of the evaluations; training does not use it", above=0)


@dataclass(frozen=True, kw_only=True)
class SupervisedSettings(Loop):
    """Settings of a maximum-likelihood training."""

    learning_rate: float = knob(3e-3, LEARNING_RATE)
    steps: int = setting(300, STEPS)
    batch_size: int = setting(128, BATCH_SIZE)
    schedule: str = setting("cosine", SCHEDULE)
    warmup: int = setting(20, WARMUP)
    beta: float = setting(1.0, BETA_OF_EVALUATION)
    weight_decay: float = setting(0.01, "AdamW's weight decay", at_least=0)
