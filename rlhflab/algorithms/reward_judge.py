"""A reward model against the truth, over every answer of the micro world: what it ranks right, what it is good for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlhflab.algorithms.evaluators import frontier_backdrop
from rlhflab.algorithms.record import Backdrop
from rlhflab.models.reward import position_scores
from rlhflab.objectives.optimum import expected_reward, optimal_logps
from rlhflab.objectives.preference import preference_probability, rank_correlation
from rlhflab.worlds.micro import ReferencePoint

SHOWN = 300  # answers in the scatter plot
CALIBRATION_PAIRS = 4000
CALIBRATION_BINS = 10


def all_scores(reference: ReferencePoint, reward_model: Any) -> Tensor:
    """r_φ(x, y) of every answer, centred for every prompt on π_ref: [prompts, answers] float64, E_{π_ref}[r_φ] = 0."""
    raw = raw_scores(reference, reward_model)
    return raw - expected_reward(reference.logps, raw).unsqueeze(1)


def raw_scores(reference: ReferencePoint, reward_model: Any) -> Tensor:
    """r_φ(x, y) of every answer as the model gives it: [prompts, answers] float64; a few seconds on a CPU."""
    world, device = reference.world, reference.logps.device
    return world.tree.leaf_scores(
        lambda *row: position_scores(reward_model, *row), world.prompt_ids.to(device)
    )


class ExactRewardJudge:
    """Every `evaluate_every` updates: the policy that is optimal for r_φ judged by r*, rank correlation, calibration.

    What a perfect optimiser would make of r_φ is π*_φ ∝ π_ref·exp(r_φ/β): its true reward and its regret are what this
    reward model costs, whatever the algorithm.

    Args:
        reference: the micro world seen from π_ref.
        seed: of the pairs and answers that are looked at.
    """

    def __init__(self, reference: ReferencePoint, seed: int = 0) -> None:
        self.reference = reference
        self.backdrop: Backdrop | None = frontier_backdrop(reference)
        world, generator = reference.world, torch.Generator().manual_seed(seed)
        self._grammatical = world.is_grammatical.nonzero()[:, 0]
        prompts = torch.arange(SHOWN) % len(world.prompts)
        some = torch.randint(len(self._grammatical), (SHOWN,), generator=generator)
        likely = reference.sample(prompts, generator)
        self._shown = prompts, torch.where(torch.arange(SHOWN) % 2 == 0, self._grammatical[some], likely)
        self._prompts = torch.randint(len(world.prompts), (CALIBRATION_PAIRS,), generator=generator)
        self._first = reference.sample(self._prompts, generator)
        self._second = reference.sample(self._prompts, generator)

    def __call__(
        self, reward_model: Any, beta: float
    ) -> tuple[Mapping[str, float], Mapping[str, tuple[float, ...]]]:
        """Return the exact block (of π*_φ, with `rank_correlation`), and the columns of scatter and calibration."""
        reference = self.reference
        scores = all_scores(reference, reward_model)
        exact = reference.evaluate_logps(optimal_logps(reference.logps, scores, beta), beta)._asdict()
        scores, rewards = scores.cpu(), reference.world.rewards
        exact["rank_correlation"] = float(
            rank_correlation(scores[:, self._grammatical], rewards[:, self._grammatical]).mean()
        )
        predicted, true = self._calibration(scores, rewards)
        arrays = {
            "scatter/true": tuple(rewards[self._shown].tolist()),
            "scatter/model": tuple(scores[self._shown].tolist()),
            "calibration/predicted": predicted,
            "calibration/true": true,
        }
        return exact, arrays

    def _calibration(self, scores: Tensor, rewards: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Means of the predicted and of the true probability that the first answer wins, in bins of the predicted."""
        first, second = (self._prompts, self._first), (self._prompts, self._second)
        predicted = preference_probability(scores[first], scores[second])
        true = preference_probability(rewards[first], rewards[second])
        index = (predicted * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
        sizes = torch.bincount(index, minlength=CALIBRATION_BINS).double()
        means = [
            torch.zeros_like(sizes).index_add_(0, index, values)[sizes > 0] / sizes[sizes > 0]
            for values in (predicted, true)
        ]
        return tuple(means[0].tolist()), tuple(means[1].tolist())
