"""Rejection sampling fine-tuning: the best of n as a training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from rlhflab.core.settings import knob, setting
from rlhflab.recipes.answers import Answers
from rlhflab.settings.common import EVALUATE_EVERY, LEARNING_RATE, REAL_RATE, STEPS
from rlhflab.settings.rejection import RejectionSettings

if TYPE_CHECKING:
    from rlhflab.algorithms.rejection import Rejection as Training


@dataclass(frozen=True, kw_only=True)
class Rejection(RejectionSettings, Answers):
    """Draw n answers per prompt, keep the best by the reward, fine-tune on them; repeat."""

    algorithm: ClassVar[str] = "rejection"
    words: ClassVar[str] = "Fine-tune on the best of n answers, round after round: rejection sampling, RAFT."

    learning_rate: float = knob(1e-3, LEARNING_RATE, real=None, words=f"0.001; {REAL_RATE}")
    steps: int = setting(300, STEPS)
    evaluate_every: int = setting(10, EVALUATE_EVERY)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.best_of:
            raise ValueError(
                f"batch_size must be a multiple of best_of = {self.best_of}, got {self.batch_size}"
            )

    def _build(self) -> Training:
        from rlhflab.algorithms.rejection import Rejection as Training

        task, usual_rate, tokenizer, notes = self.task(
            "none", self.batch_size // self.best_of, each=self.best_of
        )
        rate = usual_rate if self.learning_rate is None else self.learning_rate
        return (self.training or Training)(task, replace(self, learning_rate=rate), tokenizer, notes)
