"""Rollouts, and the interface between policy-gradient algorithms and the task in which a policy acts.

The same view serves language models and control problems: a row is an answer, or a stretch of an environment's time; a
column is a token, or a time step. So REINFORCE, TRPO and PPO are each written only once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from rlhflab.core.record import Backdrop, Evaluated


@dataclass(frozen=True)
class Rollout:
    """Actions of one policy and their rewards; tensors are [batch, time] unless stated otherwise.

    Attributes:
        inputs: of the policy: an `AnswerBatch`, or observations [batch, time, …]; selected by rows.
        actions: token ids, or actions [batch, time, …].
        logps: log π_old(a_t|s_t), nats.
        rewards: r_t; for language models including the KL term.
        values: V(s_t) when it was sampled; 0 without a value function.
        dones: bool, True on the step that ends an episode.
        mask: bool, True on the steps that count. A step in mid-row that does not count lies between two episodes: it is
            done, and its reward is its own V(s), so that an episode cut by a time limit gets its remaining value.
        groups: [batch] integer, equal for rows that began in the same state (the same prompt).
        last_values: [batch] V of the state after the last step if a row was cut in mid-episode, else 0.
    """

    inputs: Any
    actions: Tensor
    logps: Tensor
    rewards: Tensor
    values: Tensor
    dones: Tensor
    mask: Tensor
    groups: Tensor
    last_values: Tensor

    def __len__(self) -> int:
        return len(self.actions)

    def rows(self, index: Tensor | slice) -> Rollout:
        """Select rows."""
        inputs = self.inputs.rows(index) if hasattr(self.inputs, "rows") else self.inputs[index]
        rest = {name: getattr(self, name)[index] for name in self.__dataclass_fields__ if name != "inputs"}
        return Rollout(inputs, **rest)

    def to(self, device: torch.device | str) -> Rollout:
        """Move everything."""
        return Rollout(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


class Outputs(NamedTuple):
    """The current policy and value function on a rollout, with gradient.

    Attributes:
        distribution: π_θ(·|s_t), batch shape [batch, time].
        values: [batch, time], V(s_t).
    """

    distribution: Distribution
    values: Tensor


class Collected(NamedTuple):
    """A fresh rollout, and its means for the record."""

    rollout: Rollout
    scalars: Mapping[str, float]


class Task(Protocol):
    """Where a policy acts.

    Attributes:
        kind: "language" or "control".
        policy: π_θ.
        backdrop: the exact frontier if there is one, else None.
    """

    kind: str
    policy: Any
    backdrop: Backdrop | None

    def policy_parameters(self) -> list[nn.Parameter]:
        """The trainable parameters of π_θ, without those of V."""
        ...

    def value_parameters(self) -> list[nn.Parameter]:
        """The trainable parameters of V that are not the policy's; empty without a value function."""
        ...

    def collect(self, knobs: Mapping[str, float]) -> Collected:
        """Sample a rollout with the current policy."""
        ...

    def distribution(self, rollout: Rollout, twice: bool = False) -> Distribution:
        """π_θ on the states of a rollout, with gradient; `twice` if it will be differentiated twice."""
        ...

    def outputs(self, rollout: Rollout) -> Outputs:
        """π_θ and V on the states of a rollout, with gradient."""
        ...

    def values(self, rollout: Rollout) -> Tensor:
        """V(s_t), [batch, time], with gradient."""
        ...

    def release(self) -> None:
        """Release what a failed pass has left."""
        ...

    def judge(self, knobs: Mapping[str, float]) -> Evaluated:
        """Exact or estimated evaluation, and sample answers."""
        ...

    def position(self) -> dict[str, Any]:
        """What `collect` changes: random states, the position in the prompts, the environments."""
        ...

    def return_to(self, position: Mapping[str, Any]) -> None:
        """Inverse of `position`."""
        ...

    def learnt(self) -> dict[str, Any]:
        """The weights."""
        ...

    def relearn(self, state: Mapping[str, Any]) -> None:
        """Inverse of `learnt`."""
        ...
