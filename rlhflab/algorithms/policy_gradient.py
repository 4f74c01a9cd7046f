"""The common part of REINFORCE, TRPO and PPO: the frame of an iteration. Each algorithm defines its own `_update`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhflab.algorithms.frame import Frame, require_finite
from rlhflab.algorithms.optimiser import Optimiser
from rlhflab.core.record import Record
from rlhflab.objectives.advantages import explained_variance, gae
from rlhflab.settings.common import PolicyGradientSettings
from rlhflab.tasks.rollout import Collected, Rollout, Task


class Update(NamedTuple):
    """What an update contributes to the record."""

    scalars: Mapping[str, float]
    arrays: Mapping[str, tuple[float, ...]] = {}


class Estimated(NamedTuple):
    """Advantages and returns of a rollout, [batch, time], and the fraction of the returns' variance that V explains."""

    advantages: Tensor
    returns: Tensor
    explained: float


class PolicyGradient(Frame):
    """An iterator of records: each `next()` collects a rollout with the policy as it is and updates it once.

    Args:
        task: where the policy acts.
        config: the settings.
        tokenizer: saved with the policy by `save_model`; None to save none.
        notes: on model and data, one line each, by name, for the run and its reader.
    """

    _optimiser: Optimiser | None

    def __init__(
        self,
        task: Task,
        config: PolicyGradientSettings,
        tokenizer: Any = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(config, task.backdrop, tokenizer, notes)
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
        """Release what a failed update has left, in the task too."""
        super().release()
        self.task.release()

    def gamma(self, knobs: Mapping[str, float]) -> float:
        """The discount in force: a knob in control, 1 for answers."""
        return knobs.get("gamma", 1.0)

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
        """Improve the policy with one rollout; `factor` in (0, 1] is the schedule's factor on the step size."""

    @property
    def scaled(self) -> bool:
        """Whether the loss is scaled; see `Optimiser`."""
        return getattr(self.policy, "dtype", None) == torch.float16

    def position(self) -> dict[str, Any]:
        """The task's position; algorithms add their own random states."""
        return {"task": self.task.position()}

    def _return_to(self, state: Mapping[str, Any]) -> None:
        self.task.return_to(state["task"])

    def _learnt(self) -> dict[str, Any]:
        """The task's weights, and the optimiser if there is one."""
        state: dict[str, Any] = {"task": self.task.learnt()}
        return state if self._optimiser is None else {**state, "optimiser": self._optimiser.state_dict()}

    def _relearn(self, state: Mapping[str, Any]) -> None:
        self.task.relearn(state["task"])
        if self._optimiser is not None:
            self._optimiser.load_state_dict(state["optimiser"])


def spread(values: Tensor, where: Tensor | None = None, most: int = 256) -> tuple[float, ...]:
    """At most `most` of the values, evenly spaced in sorted order: enough for a histogram.

    With `where`, bool of the same shape, only those of the chosen values at which it is True.
    """
    ordered, index = values.detach().flatten().sort()
    if len(ordered) > most:
        chosen = torch.linspace(0, len(ordered) - 1, most, device=values.device).long()
        ordered, index = ordered[chosen], index[chosen]
    return tuple((ordered if where is None else ordered[where.flatten()[index]]).tolist())
