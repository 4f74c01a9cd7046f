"""The standings in a race: exact over all answers, or from samples, with errors, if there are too many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from rlhflab.core.record import Backdrop, judgement
from rlhflab.data.sampled import SampledReference, joined
from rlhflab.evaluation.evaluators import EstimatingEvaluator, frontier_backdrop, optimum_of
from rlhflab.evaluation.reward_judge import all_scores, batch_scores
from rlhflab.objectives.best_of_n import best_of_n_kl_bound, best_of_n_logps
from rlhflab.objectives.importance import Estimate, average, best_of_n_estimate
from rlhflab.worlds.micro import ReferencePoint

Standing = Mapping[str, float]
"""`kl`, `reward`, `objective` J, `regret`, `optimum` J*, `ref_reward`; exact ones have `efficiency`, estimates NAME_se.

An unreliable estimate of J* is NaN, and so is the regret; a policy then has `regret_at_least`.
"""


class RaceJudge(Protocol):
    """Judges contestants at any β."""

    backdrop: Backdrop | None

    def policy(self, policy: Any, beta: float) -> Standing:
        """Where a policy stands."""
        ...

    def best_of_n(self, reward_model: Any, draws: Sequence[int], beta: float) -> list[Standing]:
        """Where best-of-n stands with this reward model, for each n."""
        ...


class ExactRaceJudge:
    """Over all answers of the micro world.

    Args:
        reference: the micro world seen from π_ref.
    """

    def __init__(self, reference: ReferencePoint) -> None:
        self._reference = reference
        self.backdrop: Backdrop | None = frontier_backdrop(reference)

    def policy(self, policy: Any, beta: float) -> Standing:
        """Where a policy stands."""
        return self._reference.evaluate(policy, beta)._asdict()

    def best_of_n(self, reward_model: Any, draws: Sequence[int], beta: float) -> list[Standing]:
        """Where best-of-n stands with this reward model, for each n."""
        scores, logps = all_scores(self._reference, reward_model), self._reference.logps
        tables = (best_of_n_logps(logps, scores, n) for n in draws)
        return [self._reference.evaluate_logps(table, beta)._asdict() for table in tables]


class EstimatingRaceJudge:
    """From answers of π_ref, drawn once, and answers of each policy; regrets are NaN if J* is not reliable.

    Args:
        reference: the world seen from π_ref through samples.
        seed: of the samples.
        ref_samples: answers of π_ref per prompt that best-of-n chooses from.
    """

    def __init__(self, reference: SampledReference, seed: int, ref_samples: int = 250) -> None:
        self._evaluate = EstimatingEvaluator(reference, seed)
        self.backdrop = self._evaluate.backdrop
        prompts = len(reference.world.prompts)
        rows = torch.arange(len(self._evaluate.ref_drawn.prompts)).view(prompts, -1)[:, :ref_samples]
        self._batch = joined(reference.world, self._evaluate.ref_drawn.rows(rows.flatten()))
        self._rewards = self._evaluate.ref_rewards[:, :ref_samples]

    def policy(self, policy: Any, beta: float) -> Standing:
        """Where a policy stands."""
        found = judgement(None, self._evaluate(policy, beta).estimated)
        names = ("kl", "reward", "objective", "regret", "optimum")
        standing = {name + end: found.get(name + end, math.nan) for name in names for end in ("", "_se")}
        at_least = found.get("regret_at_least", math.nan)
        return {**standing, "regret_at_least": at_least, "ref_reward": found["ref_reward"]}

    def best_of_n(self, reward_model: Any, draws: Sequence[int], beta: float) -> list[Standing]:
        """Where best-of-n stands with this reward model, for each n; its KL is log n − (n−1)/n: scores never tie."""
        scores = batch_scores(reward_model, self._batch).double().view_as(self._rewards)
        return [self._chosen(scores, n, beta) for n in draws]

    def _chosen(self, scores: Tensor, n: int, beta: float) -> Standing:
        found, kl = average(best_of_n_estimate(self._rewards, scores, n)), best_of_n_kl_bound(n)
        reward, error = float(found.value), float(found.se)
        optimum = optimum_of(self._evaluate.ref_rewards, beta) or Estimate(*torch.full((2,), math.nan))
        best, best_error = float(optimum.value), float(optimum.se)
        objective = reward - beta * kl
        return {
            "kl": kl, "kl_se": 0.0, "reward": reward, "reward_se": error, "optimum": best, "optimum_se": best_error,
            "objective": objective, "objective_se": error, "regret": best - objective,
            "regret_se": math.hypot(error, best_error), "regret_at_least": math.nan,
            "ref_reward": float(self._evaluate.ref_rewards.mean()),
        }  # fmt: skip
