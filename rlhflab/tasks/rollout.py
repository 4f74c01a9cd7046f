"""What a policy did, and what policy-gradient algorithms ask of the task in which it did it.

One view serves language models and control problems: a row is an answer, or a stretch of an environment's time; a
column is a token, or a time step. So REINFORCE, TRPO and PPO are each written once.
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
    """Actions of one policy with what they earned; tensors are [batch, time] unless they say otherwise.

    Attributes:
        inputs: what the policy reads: an `AnswerBatch`, or observations [batch, time, …]; selected by rows.
        actions: token ids, or actions [batch, time, …].
        logps: log π_old(a_t|s_t), nats.
        rewards: r_t; for language models the KL term is in it.
        values: V(s_t) when it was sampled; 0 without a value function.
        dones: bool, True on the step that ends an episode.
        mask: bool, True on the steps that count. One that does not, in mid-row, stands between two episodes: it is
            done, and its reward is its own V(s), so that an episode cut by a time limit is worth what was to come.
        groups: [batch] integer; rows that began in the same state (the same prompt) share it.
        last_values: [batch] V of the state after the last step, where a row was cut in mid-episode, else 0.
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
    """What the policy and the value function say of a rollout now, with gradient.

    Attributes:
        distribution: π_θ(·|s_t), batch shape [batch, time].
        values: [batch, time], V(s_t).
    """

    distribution: Distribution
    values: Tensor


class Collected(NamedTuple):
    """A fresh rollout, and the means that the record shows of it."""

    rollout: Rollout
    scalars: Mapping[str, float]


class Task(Protocol):
    """Where a policy acts.

    Attributes:
        kind: "language" or "control".
        policy: π_θ.
        backdrop: the exact frontier where there is one, else None.
    """

    kind: str
    policy: Any
    backdrop: Backdrop | None

    def policy_parameters(self) -> list[nn.Parameter]:
        """The trainable parameters of π_θ alone."""
        ...

    def value_parameters(self) -> list[nn.Parameter]:
        """The trainable parameters of V that are not the policy's; empty where there is no value function."""
        ...

    def collect(self, knobs: Mapping[str, float]) -> Collected:
        """Sample a rollout with the policy as it is."""
        ...

    def distribution(self, rollout: Rollout, twice: bool = False) -> Distribution:
        """π_θ on the states of a rollout, with gradient; `twice` where it will be differentiated twice."""
        ...

    def outputs(self, rollout: Rollout) -> Outputs:
        """π_θ and V on the states of a rollout, with gradient."""
        ...

    def values(self, rollout: Rollout) -> Tensor:
        """V(s_t) alone, [batch, time], with gradient."""
        ...

    def release(self) -> None:
        """Let go what a pass that failed has left."""
        ...

    def judge(self, knobs: Mapping[str, float]) -> Evaluated:
        """Exact or estimated evaluation, and sample answers."""
        ...

    def position(self) -> dict[str, Any]:
        """What `collect` changes: random states, the place in the prompts, the environments."""
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
