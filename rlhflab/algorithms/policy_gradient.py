"""What REINFORCE, TRPO and PPO share: the frame of an iteration. Each algorithm is its own `_update`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhflab.algorithms.evaluators import Evaluated
from rlhflab.algorithms.knobs import Knob, Knobs
from rlhflab.algorithms.optimiser import check_settings, schedule_factor
from rlhflab.algorithms.record import Backdrop, Record
from rlhflab.algorithms.rollout import Collected, Rollout, Task
from rlhflab.algorithms.supervised import finite_or_nan, require_finite
from rlhflab.models.loading import save_model
from rlhflab.objectives.advantages import explained_variance, gae

BETA = Knob(
    default=1.0, low=0.05, high=10.0, label="β",
    help="Price of leaving the reference: small β trusts the reward, large β the reference.",
)  # fmt: skip
LEARNING_RATE = Knob(
    default=1e-3, low=1e-5, high=1e-2, label="learning rate", help="Step size of AdamW at its peak."
)
GAE_LAMBDA = Knob(
    default=0.95, low=0.0, high=1.0, at_least=0.0, at_most=1.0, log=False, label="GAE λ",
    help="0 trusts the value function, 1 the rewards that came: bias against variance.",
)  # fmt: skip


@dataclass(frozen=True)
class PolicyGradientConfig:
    """Settings that every policy-gradient run has and that cannot change while it runs.

    Attributes:
        steps: iterations (collect a rollout, update), ≥ 1.
        schedule: "constant", "linear" or "cosine" decay of the step size.
        warmup: iterations over which the step size rises.
        max_grad_norm: gradients are clipped to this norm.
        gamma: discount in [0, 1] where it is no knob; 1 for answers.
        evaluate_every: iterations between exact evaluations and samples; the last one always has them.
        seed: order of minibatches.
    """

    steps: int = 300
    schedule: str = "linear"
    warmup: int = 0
    max_grad_norm: float = 1.0
    gamma: float = 1.0
    evaluate_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self, steps=1, warmup=0, evaluate_every=1)
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be > 0, got {self.max_grad_norm}")
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma must be in [0, 1], got {self.gamma}")


class Update(NamedTuple):
    """What an update leaves for the record."""

    scalars: Mapping[str, float]
    arrays: Mapping[str, tuple[float, ...]] = {}


class Estimated(NamedTuple):
    """What a rollout says of its actions, [batch, time], and the share of the returns' variance that V explains."""

    advantages: Tensor
    returns: Tensor
    explained: float


class PolicyGradient(ABC):
    """An iterator of records: each `next()` collects a rollout with the policy as it is and updates it once.

    Args:
        task: where the policy acts.
        config, knobs: see their classes.
        tokenizer: written beside the policy by `save_model`; None where nothing is to be written.
        notes: what is worth knowing of model and data, a line each by name, for the run and its reader.
    """

    name: str
    engine = "lab"

    def __init__(
        self,
        task: Task,
        config: PolicyGradientConfig,
        knobs: Knobs,
        tokenizer: Any = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        self.tokenizer, self.notes = tokenizer, dict(notes or {})
        self.task, self.policy = task, task.policy
        if task.kind != "language":
            self.name = f"{self.name}-{task.kind}"
        self.config, self.knobs = config, knobs
        self.backdrop: Backdrop | None = task.backdrop
        self.steps, self.step = config.steps, 0

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        """Collect, update, record; raises TrainingDiverged where a number is no longer one."""
        if self.step >= self.steps:
            raise StopIteration
        self.step += 1
        knobs = self.knobs.snapshot()
        factor = schedule_factor(self.config.schedule, self.step, self.steps, self.config.warmup)
        collected = self.task.collect(knobs)
        require_finite(self.step, collected.scalars, knobs)
        update = self._update(collected, knobs, factor)
        scalars = {**collected.scalars, **update.scalars}
        require_finite(self.step, scalars, knobs)
        found = Evaluated()
        if self.step % self.config.evaluate_every == 0 or self.step in (1, self.steps):
            require_finite(self.step, {"a weight": finite_or_nan(self.policy.parameters())}, knobs)
            found = self.task.judge(knobs)
        return Record(
            self.step, scalars, knobs, samples=found.samples, exact=found.exact, estimated=found.estimated,
            arrays=update.arrays,
        )  # fmt: skip

    def gamma(self, knobs: Mapping[str, float]) -> float:
        """The discount in force: a knob where the algorithm has it as one, else the configuration's."""
        return knobs.get("gamma", self.config.gamma)

    def advantages(self, rollout: Rollout, knobs: Mapping[str, float]) -> Estimated:
        """GAE, the returns that V is fitted to (taken before any whitening), and how much of them V explains."""
        advantages = gae(
            rollout.rewards, rollout.values, rollout.dones, self.gamma(knobs), knobs["gae_lambda"],
            rollout.last_values,
        )  # fmt: skip
        returns = advantages + rollout.values
        return Estimated(
            advantages, returns, float(explained_variance(rollout.values, returns, rollout.mask))
        )

    @abstractmethod
    def _update(self, collected: Collected, knobs: Mapping[str, float], factor: float) -> Update:
        """Improve the policy with one rollout; `factor` in (0, 1] is the schedule's on the step size."""

    @property
    def scaled(self) -> bool:
        """Whether a loss is to be scaled; see `Optimiser`."""
        return getattr(self.policy, "dtype", None) == torch.float16

    def save_model(self, folder: Any) -> None:
        """Write the policy, or its adapters, so that `--model FOLDER` can read it."""
        if self.tokenizer is not None:
            save_model(self.policy, self.tokenizer, folder)

    def state_dict(self) -> dict[str, Any]:
        """Task (weights, random states), knobs and step; algorithms add what they keep."""
        return {"step": self.step, "knobs": self.knobs.snapshot(), "task": self.task.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state` was taken."""
        self.task.load_state_dict(state["task"])
        for name, value in state["knobs"].items():
            setattr(self.knobs, name, value)
        self.step = int(state["step"])


def spread(values: Tensor, where: Tensor | None = None, most: int = 256) -> tuple[float, ...]:
    """At most `most` of the values, evenly chosen from their sorted order: enough for a histogram.

    With `where`, bool of the same shape, only those of the chosen values at which it is True.
    """
    ordered, index = values.detach().flatten().sort()
    if len(ordered) > most:
        chosen = torch.linspace(0, len(ordered) - 1, most, device=values.device).long()
        ordered, index = ordered[chosen], index[chosen]
    return tuple((ordered if where is None else ordered[where.flatten()[index]]).tolist())
