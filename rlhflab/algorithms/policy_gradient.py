"""What REINFORCE, TRPO and PPO share: the frame of an iteration. Each algorithm is its own `_update`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhflab.algorithms.frame import Frame, require_finite
from rlhflab.algorithms.optimiser import Optimiser, check_settings
from rlhflab.core.knobs import Knob, Knobs
from rlhflab.core.record import Record
from rlhflab.objectives.advantages import explained_variance, gae
from rlhflab.tasks.rollout import Collected, Rollout, Task

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


class PolicyGradient(Frame):
    """An iterator of records: each `next()` collects a rollout with the policy as it is and updates it once.

    Args:
        task: where the policy acts.
        config, knobs: see their classes.
        tokenizer: written beside the policy by `save_model`; None where nothing is to be written.
        notes: what is worth knowing of model and data, a line each by name, for the run and its reader.
    """

    _optimiser: Optimiser | None

    def __init__(
        self,
        task: Task,
        config: PolicyGradientConfig,
        knobs: Knobs,
        tokenizer: Any = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(config, knobs, task.backdrop, tokenizer, notes)
        self.task, self.policy = task, task.policy
        if task.kind != "language":
            self.name = f"{self.name}-{task.kind}"
            self.built_with = {"envs": None}

    def _advance(self, knobs: Mapping[str, float], factor: float) -> Record:
        collected = self.task.collect(knobs)
        require_finite(self.step, collected.scalars, knobs)
        update = self._update(collected, knobs, factor)
        scalars = {**collected.scalars, **update.scalars}
        require_finite(self.step, scalars, knobs)
        return Record(self.step, scalars, knobs, arrays=update.arrays)

    def _judged(self, record: Record) -> Record:
        return self._evaluated(record, lambda *_: self.task.judge(record.knobs), self.policy, 0.0)

    def release(self) -> None:
        """Let go what an update that failed has left, in the task too."""
        super().release()
        self.task.release()

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

    def position(self) -> dict[str, Any]:
        """The task's; algorithms add their own random states."""
        return {"task": self.task.position()}

    def _return_to(self, state: Mapping[str, Any]) -> None:
        self.task.return_to(state["task"])

    def _learnt(self) -> dict[str, Any]:
        """The task's weights, and the optimiser where there is one."""
        state: dict[str, Any] = {"task": self.task.learnt()}
        return state if self._optimiser is None else {**state, "optimiser": self._optimiser.state_dict()}

    def _relearn(self, state: Mapping[str, Any]) -> None:
        self.task.relearn(state["task"])
        if self._optimiser is not None:
            self._optimiser.load_state_dict(state["optimiser"])


def spread(values: Tensor, where: Tensor | None = None, most: int = 256) -> tuple[float, ...]:
    """At most `most` of the values, evenly chosen from their sorted order: enough for a histogram.

    With `where`, bool of the same shape, only those of the chosen values at which it is True.
    """
    ordered, index = values.detach().flatten().sort()
    if len(ordered) > most:
        chosen = torch.linspace(0, len(ordered) - 1, most, device=values.device).long()
        ordered, index = ordered[chosen], index[chosen]
    return tuple((ordered if where is None else ordered[where.flatten()[index]]).tolist())
