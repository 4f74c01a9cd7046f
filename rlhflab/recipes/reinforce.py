"""REINFORCE, on answers and on control problems."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from rlhflab.core.settings import knob, setting
from rlhflab.recipes.answers import RISE, Answers
from rlhflab.recipes.control import ENVS, Environment
from rlhflab.settings.common import EVALUATE_EVERY, GAMMA, LEARNING_RATE, REAL_RATE, STEPS, WARMUP, tenth
from rlhflab.settings.reinforce import ReinforceControlSettings, ReinforceSettings

if TYPE_CHECKING:
    from rlhflab.algorithms.reinforce import Reinforce as Training

EACH = 4
"""Answers of a real model per prompt: an answer's baseline is the mean of the other three."""


@dataclass(frozen=True, kw_only=True)
class Reinforce(ReinforceSettings, Answers):
    """Optimise a reward with REINFORCE and a leave-one-out baseline; a real model draws four answers per prompt."""

    algorithm: ClassVar[str] = "reinforce"
    name: ClassVar[str] = "reinforce"
    words: ClassVar[str] = "Optimise a reward, or act in a control problem, with REINFORCE."

    learning_rate: float = knob(3e-3, LEARNING_RATE, real=None, words=f"0.003; {REAL_RATE}")
    steps: int = setting(800, STEPS)
    warmup: int = setting(20, WARMUP, words=RISE)
    evaluate_every: int = setting(25, EVALUATE_EVERY)

    def usual(self, name: str) -> Any:
        """The default of a setting given the others."""
        return tenth(self.steps, 20) if name == "warmup" else super().usual(name)

    def _build(self) -> Training:
        from rlhflab.algorithms.reinforce import Reinforce as Training

        task, usual_rate, tokenizer, notes = self.task("none", self.batch_size, each=EACH if self.real else 1)
        rate = usual_rate if self.learning_rate is None else self.learning_rate
        return (self.training or Training)(task, replace(self, learning_rate=rate), tokenizer, notes)


@dataclass(frozen=True, kw_only=True)
class ReinforceControl(ReinforceControlSettings, Environment):
    """Act in a control problem with REINFORCE: whole episodes, returns to go, a leave-one-out baseline."""

    algorithm: ClassVar[str] = "reinforce"
    name: ClassVar[str] = "reinforce-control"
    words: ClassVar[str] = Reinforce.words

    learning_rate: float = knob(1e-2, LEARNING_RATE)
    gamma: float = knob(0.99, GAMMA)
    steps: int = setting(60, STEPS)
    envs: int = setting(16, ENVS)

    def _build(self) -> Training:
        from rlhflab.algorithms.reinforce import Reinforce as Training

        return (self.training or Training)(self.task(value=False), self)
