"""PPO: several epochs of minibatches on one rollout, each action's ratio held near 1 by a clip.

    L = −E[min(ratio·A, clip(ratio, 1−ε, 1+ε)·A)] + c_V·½E[(V − return)²] − c_H·E[H(π_θ)]

Source: Schulman et al. (2017), "Proximal policy optimization algorithms"; for language models Ziegler et al. (2019) and
Huang et al. (2024), "The N+ implementation details of RLHF with PPO". Returns are taken before whitening, and whitening
subtracts the mean. The value loss is not clipped unless asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlhflab import processes
from rlhflab.algorithms.optimiser import Optimiser
from rlhflab.algorithms.policy_gradient import (
    PolicyGradient,
    Update,
    spread,
)
from rlhflab.objectives.advantages import whiten
from rlhflab.objectives.policy_gradient import masked_mean, ppo_clip_loss, value_loss
from rlhflab.settings.ppo import PPOSettings, PPOUpdates
from rlhflab.tasks.rollout import Collected, Task


class PPO(PolicyGradient):
    """Proximal policy optimisation; iterate for one rollout and its epochs at a time.

    Args:
        task: where the policy acts; it needs a value function.
        config: the settings, for answers or for control.
        tokenizer, notes: see `PolicyGradient`.
    """

    name = "ppo"
    config: PPOUpdates
    _optimiser: Optimiser

    def __init__(
        self,
        task: Task,
        config: PPOUpdates | None = None,
        tokenizer: Any = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(task, config or PPOSettings(), tokenizer, notes)
        parameters = [*task.policy_parameters(), *task.value_parameters()]
        self._optimiser = Optimiser(
            parameters,
            self.config.max_grad_norm,
            eps=self.config.adam_eps,
            scaled=self.scaled,
        )
        self._order = torch.Generator().manual_seed(self.config.seed)

    def _update(self, collected: Collected, knobs: Mapping[str, float], factor: float) -> Update:
        config, learning_rate, rollout = self.config, knobs["learning_rate"] * factor, collected.rollout
        advantages, returns, explained = self.advantages(rollout, knobs)
        if config.whiten_advantages:
            advantages = whiten(advantages, rollout.mask)
        parts: list[Tensor] = []
        norms: list[Tensor] = []
        for _epoch in range(int(knobs["epochs"])):
            order = torch.randperm(len(rollout), generator=self._order).to(advantages.device)
            for whole in order.chunk(config.minibatches):
                rows = whole[processes.share(len(whole))]
                part = rollout.rows(rows)
                share = part.mask.sum() / rollout.mask[whole].sum()  # this process's, by tokens
                distribution, values = self.task.outputs(part)
                logps = distribution.log_prob(part.actions)
                policy_loss, seen = ppo_clip_loss(
                    logps, part.logps, advantages[rows], part.mask, knobs["clip_range"]
                )
                v_loss = value_loss(values, returns[rows], part.mask, part.values, config.value_clip)
                loss = policy_loss + config.value_coef * v_loss
                if config.entropy_coef:
                    loss = loss - config.entropy_coef * masked_mean(distribution.entropy(), part.mask)
                grad_norm = self._optimiser.step(loss, learning_rate, share)
                clipped = masked_mean(seen.clipped.float(), part.mask)
                found = torch.stack([policy_loss.detach(), v_loss.detach(), clipped, seen.kl_old_k3])
                parts.append(found * share)
                norms.append(grad_norm.detach())
            if config.target_kl is not None and float(processes.total(parts[-1][3])) > config.target_kl:
                break
        means = processes.total(torch.stack(parts))
        ratio, beyond = (
            processes.whole(table, len(whole))[rollout.mask[whole]] for table in (seen.ratio, seen.clipped)
        )
        if config.kl_target is not None:
            error = collected.scalars["objective/kl"] / config.kl_target - 1
            turn = max(-0.2, min(0.2, error)) * len(rollout) / config.kl_horizon
            self.knobs.beta = knobs["beta"] * (1 + turn)
        names = ("loss/policy_avg", "loss/value_avg", "policy/clipfrac_avg", "policy/kl_old_k3", "grad_norm")
        scalars = {
            **dict(zip(names, [*means.mean(0).tolist(), float(torch.stack(norms).mean())], strict=True)),
            "policy/kl_old_k3_last": float(means[-1][3]),
            "policy/updates": float(len(parts)),
            "val/explained_variance": explained,
            "learning_rate": learning_rate,
        }
        return Update(scalars, {"ratio": spread(ratio), "ratio_clipped": spread(ratio, beyond)})

    def position(self) -> dict[str, Any]:
        """The task's position, and the order of minibatches."""
        return {**super().position(), "order": self._order.get_state()}

    def _return_to(self, state: Mapping[str, Any]) -> None:
        super()._return_to(state)
        self._order.set_state(state["order"])
