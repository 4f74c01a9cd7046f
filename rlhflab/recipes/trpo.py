"""Trust-region policy optimisation, on answers and on control problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rlhflab.core.settings import knob, setting
from rlhflab.recipes.answers import Answers
from rlhflab.recipes.control import ENVS, HORIZON, Environment
from rlhflab.settings.common import EVALUATE_EVERY, GAMMA, STEPS
from rlhflab.settings.trpo import MAX_KL, TRPOControlSettings, TRPOSettings

if TYPE_CHECKING:
    from rlhflab.algorithms.trpo import TRPO as Training


@dataclass(frozen=True, kw_only=True)
class TRPO(TRPOSettings, Answers):
    """Optimise a reward with TRPO.

    With a real model, dtype auto means float32 where other algorithms use float16, which is too coarse for TRPO's
    products. Gradient checkpointing does not help, since the largest graph, the Fisher matrix's, keeps its activations.
    """

    algorithm: ClassVar[str] = "trpo"
    name: ClassVar[str] = "trpo"
    words: ClassVar[str] = (
        "Optimise a reward, or act in a control problem, with trust-region policy optimisation."
    )

    steps: int = setting(160, STEPS)
    evaluate_every: int = setting(10, EVALUATE_EVERY)

    def _build(self) -> Training:
        from rlhflab.algorithms.trpo import TRPO as Training
        from rlhflab.models.loading import above_float16

        dtype = above_float16(self.dtype, self.device) if self.real else None
        value = "shared" if self.real else "own"  # only one copy of a real model
        task, _, tokenizer, notes = self.task(value, self.batch_size, self.fisher_share, dtype)
        return (self.training or Training)(task, self, tokenizer, notes)


@dataclass(frozen=True, kw_only=True)
class TRPOControl(TRPOControlSettings, Environment):
    """Act in a control problem with TRPO."""

    algorithm: ClassVar[str] = "trpo"
    name: ClassVar[str] = "trpo-control"
    words: ClassVar[str] = TRPO.words

    max_kl: float = knob(0.01, MAX_KL, worlds={"Pendulum-v1": 0.02})
    gamma: float = knob(0.98, GAMMA, worlds={"Acrobot-v1": 0.99, "Pendulum-v1": 0.9})
    steps: int = setting(195, STEPS, worlds={"Acrobot-v1": 120, "Pendulum-v1": 100})
    envs: int = setting(4, ENVS, worlds={"Acrobot-v1": 8, "Pendulum-v1": 8})
    horizon: int = setting(128, HORIZON)

    def _build(self) -> Training:
        from rlhflab.algorithms.trpo import TRPO as Training

        return (self.training or Training)(self.task(self.horizon), self)
