"""Proximal policy optimisation, on answers and on control problems."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from rlhflab.core.settings import knob, setting
from rlhflab.recipes.answers import RISE, VALUE, Answers
from rlhflab.recipes.control import HORIZON, Environment
from rlhflab.settings.common import (
    EVALUATE_EVERY,
    GAE_LAMBDA,
    GAMMA,
    LEARNING_RATE,
    MINIBATCHES,
    REAL_RATE,
    STEPS,
    WARMUP,
    tenth,
)
from rlhflab.settings.ppo import EPOCHS_IN_CONTROL, PPOControlSettings, PPOSettings

if TYPE_CHECKING:
    from rlhflab.algorithms.ppo import PPO as Training

PENDULUM = "Pendulum-v1"


@dataclass(frozen=True, kw_only=True)
class PPO(PPOSettings, Answers):
    """Optimise a reward with PPO."""

    algorithm: ClassVar[str] = "ppo"
    name: ClassVar[str] = "ppo"
    words: ClassVar[str] = (
        "Optimise a reward, or act in a control problem, with proximal policy optimisation."
    )
    parallel: ClassVar[bool] = True

    learning_rate: float = knob(1e-3, LEARNING_RATE, real=None, words=f"0.001; {REAL_RATE}")
    value: str = setting("shared", VALUE)
    steps: int = setting(400, STEPS)
    warmup: int = setting(20, WARMUP, words=RISE)
    evaluate_every: int = setting(25, EVALUATE_EVERY)

    def usual(self, name: str) -> Any:
        """The default of a setting given the others."""
        return tenth(self.steps, 20) if name == "warmup" else super().usual(name)

    def _build(self) -> Training:
        import torch

        from rlhflab import processes
        from rlhflab.algorithms.ppo import PPO as Training

        parts = torch.arange(self.batch_size).chunk(self.minibatches)
        processes.require_rows(len(parts[-1]), "the last of a rollout's minibatches")
        task, usual_rate, tokenizer, notes = self.task(self.value, len(parts[0]))
        rate = usual_rate if self.learning_rate is None else self.learning_rate
        return (self.training or Training)(task, replace(self, learning_rate=rate), tokenizer, notes)


@dataclass(frozen=True, kw_only=True)
class PPOControl(PPOControlSettings, Environment):
    """Act in a control problem with PPO."""

    algorithm: ClassVar[str] = "ppo"
    name: ClassVar[str] = "ppo-control"
    words: ClassVar[str] = PPO.words

    learning_rate: float = knob(3e-3, LEARNING_RATE)
    gae_lambda: float = knob(0.9, GAE_LAMBDA, worlds={PENDULUM: 0.95})
    epochs: int = knob(20, EPOCHS_IN_CONTROL, worlds={PENDULUM: 10})
    gamma: float = knob(0.98, GAMMA, worlds={PENDULUM: 0.9})
    steps: int = setting(195, STEPS, worlds={PENDULUM: 50})
    horizon: int = setting(128, HORIZON, worlds={PENDULUM: 512})
    minibatches: int = setting(1, MINIBATCHES, worlds={PENDULUM: 4})

    def _build(self) -> Training:
        from rlhflab.algorithms.ppo import PPO as Training

        task = self.task(self.horizon)
        if self.minibatches > task.world.envs:
            raise ValueError(f"minibatches must be ≤ envs = {task.world.envs}, got {self.minibatches}")
        return (self.training or Training)(task, self)
