"""TRPO: the step with the largest gain within KL radius δ of the old policy, then a line search.

    max_θ E[ratio·A]   subject to   E[KL(π_old‖π_θ)] ≤ δ

Source: Schulman et al. (2015), "Trust region policy optimization". The value function is fitted by AdamW after the
step, as in Spinning Up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from rlhflab.algorithms.optimiser import Optimiser
from rlhflab.algorithms.policy_gradient import PolicyGradient, Update
from rlhflab.objectives.advantages import whiten
from rlhflab.objectives.policy_gradient import masked_mean, surrogate_objective, value_loss
from rlhflab.objectives.trust_region import (
    FisherVectorProduct,
    GradientPreconditioner,
    Solution,
    Trial,
    backtrack,
    conjugate_gradient,
    flatten,
    step_scale,
)
from rlhflab.settings.trpo import TRPOSettings, TRPOUpdates
from rlhflab.tasks.rollout import Collected, Rollout, Task


class Proposal(NamedTuple):
    """A full step, and functions to try a fraction ("share") of it.

    Attributes:
        gradient: [parameters], of the surrogate at π_old.
        solution: conjugate gradient's, of H·x = gradient.
        step: [parameters], x scaled to the border of the quadratic trust region.
        attempt: share → (surrogate gain, mean KL(π_old‖π_θ)) of π_θ = π_old + share·step; it leaves π_θ there.
        withdraw: put π_θ back to π_old.
    """

    gradient: Tensor
    solution: Solution
    step: Tensor
    attempt: Callable[[float], tuple[float, float]]
    withdraw: Callable[[], None]


class TRPO(PolicyGradient):
    """Trust-region policy optimisation; iterate for one rollout and one step at a time.

    Args:
        task: where the policy acts; its value function must have no parameter in common with the policy, or be absent.
        config: the settings, for answers or for control.
        tokenizer, notes: see `PolicyGradient`.
    """

    name = "trpo"
    config: TRPOUpdates

    def __init__(
        self,
        task: Task,
        config: TRPOUpdates | None = None,
        tokenizer: Any = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(task, config or TRPOSettings(), tokenizer, notes)
        if self.scaled:
            raise ValueError(
                "float16 is too coarse for TRPO's products with the Fisher matrix: give --dtype float32 or bfloat16"
            )
        values = task.value_parameters()
        self._optimiser = Optimiser(values, self.config.max_grad_norm) if values else None
        self._order = torch.Generator().manual_seed(self.config.seed)
        self._preconditioner = GradientPreconditioner() if self.config.preconditioned else None
        self._steps_taken = 0  # of the policy

    def _update(self, collected: Collected, knobs: Mapping[str, float], factor: float) -> Update:
        rollout = collected.rollout
        advantages, returns, explained = self.advantages(rollout, knobs)
        scalars, arrays = self._policy_step(
            rollout, whiten(advantages, rollout.mask), knobs["max_kl"] * factor**2
        )
        scalars["loss/value_avg"] = self._fit_values(rollout, returns)
        scalars["val/explained_variance"] = explained
        return Update(scalars, arrays)

    def _policy_step(
        self, rollout: Rollout, advantages: Tensor, max_kl: float
    ) -> tuple[dict[str, float], dict[str, tuple[float, ...]]]:
        config = self.config
        proposal = self.propose(rollout, advantages, max_kl)
        self._steps_taken += 1
        try:
            if config.line_search:
                trials = backtrack(proposal.attempt, max_kl, config.line_search_tries)
            else:
                trials = (Trial(1.0, *proposal.attempt(1.0), accepted=True),)
        except BaseException:  # such as out of memory: a step that was only tried must not stay
            proposal.withdraw()
            self._steps_taken -= 1
            raise
        taken = trials[-1]
        if not taken.accepted:
            proposal.withdraw()
        share = taken.share if taken.accepted else 0.0
        residuals = proposal.solution.residuals
        scalars = {
            "trpo/gain": taken.gain if taken.accepted else 0.0,
            "trpo/predicted_gain": share * float(proposal.gradient @ proposal.step),
            "trpo/kl_old": taken.kl if taken.accepted else 0.0,
            "trpo/predicted_kl_old": share**2 * max_kl,
            "trpo/max_kl": max_kl,
            "trpo/share": share,
            "trpo/cg_residual": residuals[-1],
            "grad_norm": float(proposal.gradient.norm()),
        }
        arrays = {
            "cg_residuals": residuals,
            "line_search/share": tuple(trial.share for trial in trials),
            "line_search/gain": tuple(trial.gain for trial in trials),
            "line_search/kl": tuple(trial.kl for trial in trials),
        }
        return scalars, arrays

    def propose(
        self, rollout: Rollout, advantages: Tensor, max_kl: float, cg_iterations: int | None = None
    ) -> Proposal:
        """The full step on a rollout, before any line search; π_θ stays where it is.

        Args:
            rollout: of π_θ as it is now.
            advantages: [batch, time], usually whitened.
            max_kl: δ > 0, nats per token or time step.
            cg_iterations: by default the configuration's; any other number leaves the preconditioner unchanged.
        """
        config, parameters = self.config, self.task.policy_parameters()
        old, surrogate = self._surrogate(rollout, advantages)
        gradient = flatten(torch.autograd.grad(surrogate, parameters))
        before = float(surrogate.detach())

        product = self._fisher(rollout.rows(slice(0, max(1, round(config.fisher_share * len(rollout))))))
        guess = self._preconditioner if cg_iterations is None else copy(self._preconditioner)
        diagonal = None if guess is None else guess(gradient)
        solution = conjugate_gradient(
            product, gradient, cg_iterations or config.cg_iterations, preconditioner=diagonal
        )
        step = step_scale(solution.x, product(solution.x), max_kl) * solution.x
        start = flatten([p.detach() for p in parameters])

        @torch.no_grad()
        def attempt(share: float) -> tuple[float, float]:
            put(parameters, start + share * step)
            new, gained = self._surrogate(rollout, advantages)
            return float(gained) - before, float(masked_mean(kl_divergence(old, new), rollout.mask))

        return Proposal(gradient, solution, step, attempt, lambda: put(parameters, start))

    def _writes(self) -> int:
        return super()._writes() + self._steps_taken

    def _surrogate(self, rollout: Rollout, advantages: Tensor) -> tuple[Distribution, Tensor]:
        distribution = self.task.distribution(rollout)
        logps = distribution.log_prob(rollout.actions)
        return distribution, surrogate_objective(logps, rollout.logps, advantages, rollout.mask)

    def _fisher(self, rollout: Rollout) -> FisherVectorProduct:
        with torch.no_grad():
            old = self.task.distribution(rollout)
        kl = masked_mean(kl_divergence(old, self.task.distribution(rollout, twice=True)), rollout.mask)
        return FisherVectorProduct(kl, self.task.policy_parameters(), self.config.damping)

    def _fit_values(self, rollout: Rollout, returns: Tensor) -> float:
        """Regress V on the returns; return the mean loss, 0 without a value function."""
        if self._optimiser is None:
            return 0.0
        losses = []
        for _epoch in range(self.config.value_epochs):
            order = torch.randperm(len(rollout), generator=self._order).to(returns.device)
            for rows in order.chunk(self.config.minibatches):
                part = rollout.rows(rows)
                loss = value_loss(self.task.values(part), returns[rows], part.mask)
                self._optimiser.step(loss, self.config.value_learning_rate)
                losses.append(loss.detach())
        return float(torch.stack(losses).mean()) if losses else 0.0

    def position(self) -> dict[str, Any]:
        """The task's position, the order of the value function's minibatches, the preconditioner."""
        state = {**super().position(), "order": self._order.get_state()}
        if self._preconditioner is not None:
            state["squares"] = self._preconditioner.squares
        return state

    def _return_to(self, state: Mapping[str, Any]) -> None:
        super()._return_to(state)
        self._order.set_state(state["order"])
        if self._preconditioner is not None:
            squares = state.get("squares")  # absent in older runs
            device = self.task.policy_parameters()[0].device
            self._preconditioner.squares = None if squares is None else squares.to(device)


@torch.no_grad()
def put(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    """Copy one flat vector into the parameters, in order."""
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))
