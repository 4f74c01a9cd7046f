"""REINFORCE with a leave-one-out baseline: one step per rollout along the policy gradient.

    ∇J = E[ Σ_t A·∇log π_θ(a_t|s_t) ],    A_i = R_i − mean_{j≠i} R_j  over the other rollouts from the same start

R is the whole return, KL term included. For answers the baseline makes the noise vanish at the optimum, where
r − β·log(π*/π_ref) = β·log Z(x) for every answer. For control R is the return to go, Σ_{k≥t} γ^{k−t}·r_k: an action
gets no credit for earlier rewards.

Source: Williams (1992); the baseline is Kool et al. (2019); for RLHF Ahmadian et al. (2024), "Back to basics".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhflab.algorithms.optimiser import Optimiser
from rlhflab.algorithms.policy_gradient import (
    PolicyGradient,
    Update,
)
from rlhflab.objectives.advantages import discounted_returns, leave_one_out, leave_one_out_to_go
from rlhflab.objectives.policy_gradient import reinforce_loss
from rlhflab.settings.reinforce import ReinforceSettings, ReinforceUpdates
from rlhflab.tasks.rollout import Collected, Task


class Reinforce(PolicyGradient):
    """REINFORCE; iterate for one update at a time.

    Args:
        task: where the policy acts; rows of a rollout with equal `groups` are each other's baseline.
        config: the settings, for answers or for control.
        tokenizer, notes: see `PolicyGradient`.
    """

    name = "reinforce"
    config: ReinforceUpdates
    _optimiser: Optimiser

    def __init__(
        self,
        task: Task,
        config: ReinforceUpdates | None = None,
        tokenizer: Any = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(task, config or ReinforceSettings(), tokenizer, notes)
        self._optimiser = Optimiser(task.policy_parameters(), self.config.max_grad_norm, scaled=self.scaled)

    def _update(self, collected: Collected, knobs: Mapping[str, float], factor: float) -> Update:
        rollout = collected.rollout
        returns = discounted_returns(rollout.rewards, rollout.dones, self.gamma(knobs))
        if self.config.to_go:
            advantages = leave_one_out_to_go(returns, rollout.groups, rollout.mask)
        else:
            advantages = leave_one_out(returns[:, 0], rollout.groups).unsqueeze(1).expand_as(rollout.logps)
        logps = self.task.distribution(rollout).log_prob(rollout.actions)
        loss = reinforce_loss(logps, advantages, rollout.mask)
        learning_rate = knobs["learning_rate"] * factor
        grad_norm = self._optimiser.step(loss, learning_rate)
        return Update({
            "loss/policy_avg": float(loss.detach()),
            "advantages/std": float(advantages[rollout.mask].std()),
            "grad_norm": float(grad_norm),
            "learning_rate": learning_rate,
        })  # fmt: skip
