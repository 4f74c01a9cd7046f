"""A reward model against the truth: how well it ranks, how well it is calibrated, and how good its optimum is.

A perfect optimiser of r_φ arrives at π*_φ ∝ π_ref·exp(r_φ/β): the regret of that policy is the cost of this reward
model, whatever the algorithm. In the micro world it is exact, over every answer; elsewhere it is an estimate.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhflab.core.record import Arrays, Backdrop, Evaluated
from rlhflab.data.sampled import SampledReference, draw_answers, joined
from rlhflab.evaluation.evaluators import estimated_backdrop, frontier_backdrop, trusted, with_errors
from rlhflab.models.logps import AnswerBatch
from rlhflab.models.reward import answer_scores, position_scores
from rlhflab.objectives.divergence import kl_from_logps
from rlhflab.objectives.importance import (
    average,
    effective_sample_size,
    optimum_estimate,
    regret_estimate,
    self_normalised_mean,
)
from rlhflab.objectives.optimum import expected_reward, optimal_logps
from rlhflab.objectives.preference import preference_probability, rank_correlation
from rlhflab.worlds.micro import ReferencePoint
from rlhflab.worlds.world import World

SHOWN = 300  # answers in the scatter plot
MODEL_ESS = (
    200  # a prompt's effective samples for E[r] under π*_φ with an error bar; its tail is heavier than Z's
)
CALIBRATION_PAIRS = 4000
CALIBRATION_BINS = 10


def raw_scores(reference: ReferencePoint, reward_model: Any) -> Tensor:
    """The model's r_φ(x, y) for every answer: [prompts, answers] float64; takes a few seconds on a CPU."""
    world, device = reference.world, reward_model.device
    return world.tree.leaf_scores(
        lambda *row: position_scores(reward_model, *row), world.prompt_ids.to(device)
    )


def all_scores(reference: ReferencePoint, reward_model: Any) -> Tensor:
    """`raw_scores` centred for every prompt on π_ref: E_{π_ref}[r_φ] = 0."""
    raw = raw_scores(reference, reward_model)
    return raw - expected_reward(reference.logps, raw).unsqueeze(1)


class Pursuit(NamedTuple):
    """The result of optimising a reward model perfectly; all [points], means over prompts, exact.

    Attributes:
        beta: KL strength of each point.
        kl: KL(π*_φ‖π_ref), nats per answer.
        reward: E[r*] under π*_φ.
        score: E[r_φ] under π*_φ, as promised by the reward model.
    """

    beta: Tensor
    kl: Tensor
    reward: Tensor
    score: Tensor


def pursue(reference: ReferencePoint, scores: Tensor, betas: Tensor) -> Pursuit:
    """π*_φ ∝ π_ref·exp(r_φ/β) for every β: does the true reward follow what r_φ promises (Gao et al., 2023)?

    Args:
        reference: the micro world seen from π_ref.
        scores: [prompts, answers], r_φ; `all_scores`.
        betas: [points], > 0.
    """
    found = []
    for beta in betas.tolist():
        logps = optimal_logps(reference.logps, scores, beta)
        rewards = (expected_reward(logps, table) for table in (reference.rewards, scores))
        found.append([float(row.mean()) for row in (kl_from_logps(logps, reference.logps), *rewards)])
    kl, reward, score = torch.tensor(found, dtype=torch.float64).T
    return Pursuit(betas, kl, reward, score)


def calibration(scores: Tensor, other_scores: Tensor, rewards: Tensor, other_rewards: Tensor) -> Arrays:
    """Predicted against true probability that one answer beats the other, in bins of the predicted one.

    Args:
        scores, other_scores: [pairs], r_φ of the two answers.
        rewards, other_rewards: [pairs], r* of the two.

    Returns:
        `calibration/predicted` and `calibration/true`: their means in every bin that is not empty.
    """
    predicted, true = (
        preference_probability(scores, other_scores),
        preference_probability(rewards, other_rewards),
    )
    index = (predicted * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    sizes = torch.bincount(index, minlength=CALIBRATION_BINS).double()
    names = ("calibration/predicted", "calibration/true")
    sums = [torch.zeros_like(sizes).index_add_(0, index, values.double()) for values in (predicted, true)]
    return {
        name: tuple((s[sizes > 0] / sizes[sizes > 0]).tolist()) for name, s in zip(names, sums, strict=True)
    }


class ExactRewardJudge:
    """The policy that is optimal for r_φ judged by r*, and ranks of all grammatical answers, in the micro world.

    Args:
        reference: the micro world seen from π_ref.
        seed: of the pairs and answers that are plotted.
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
        pairs = torch.randint(len(world.prompts), (CALIBRATION_PAIRS,), generator=generator)
        self._first, self._second = (
            (pairs, reference.sample(pairs, generator)), (pairs, reference.sample(pairs, generator))
        )  # fmt: skip

    def __call__(self, reward_model: Any, beta: float) -> Evaluated:
        """Return the exact block of π*_φ with `rank_correlation`, and the plots' columns."""
        reference = self.reference
        scores = all_scores(reference, reward_model)
        exact = reference.evaluate_logps(optimal_logps(reference.logps, scores, beta), beta)._asdict()
        rewards = reference.rewards
        ranks = rank_correlation(scores[:, self._grammatical], rewards[:, self._grammatical])
        exact["rank_correlation"] = float(ranks.mean())
        first, second = self._first, self._second
        arrays = {
            "scatter/true": tuple(rewards[self._shown].tolist()),
            "scatter/model": tuple(scores[self._shown].tolist()),
            **calibration(scores[first], scores[second], rewards[first], rewards[second]),
        }
        return Evaluated(exact=exact, arrays=arrays)


def model_standing(rewards: Tensor, scores: Tensor, beta: float) -> dict[str, float]:
    """Evaluate π*_φ from samples of π_ref by importance sampling.

    Always: `ref_reward`; `ess`, the smallest effective sample size of a prompt for π* or π*_φ; and `optimum_trusted`.
    If that is 1 there are also `reward` E_{π*_φ}[r] with its standard error `reward_se`, and `kl` KL(π*_φ‖π_ref) and
    `regret` without one, as heavy tails would make their error bars too short.

    Args:
        rewards, scores: [prompts, samples], r and r_φ of answers of π_ref.
        beta: KL strength > 0.
    """
    ess = torch.stack([effective_sample_size(table / beta) for table in (rewards, scores)])
    found = {
        "ref_reward": float(rewards.mean()),
        "ess": float(ess.min()),
        "optimum_trusted": float(trusted(ess, MODEL_ESS)),
    }
    if trusted(ess, MODEL_ESS):
        reward = average(self_normalised_mean(rewards, scores / beta))
        regret = average(regret_estimate(rewards, scores, beta))
        kl = average(optimum_estimate(scores, beta).kl)
        found |= with_errors({"reward": reward}) | {"kl": float(kl.value), "regret": float(regret.value)}
    return found


class SampledRewardJudge:
    """The same from answers of π_ref, drawn once: importance sampling weights them for π*_φ.

    Args:
        reference: the world seen from π_ref through samples.
        seed: of the answers.
        samples: answers per prompt, an even number.
    """

    def __init__(self, reference: SampledReference, seed: int = 0, samples: int = 400) -> None:
        self._world = world = reference.world
        prompts = torch.arange(len(world.prompts)).repeat_interleave(samples)
        drawn = draw_answers(world, reference.ref_policy, prompts, torch.Generator().manual_seed(seed))
        self._batch = joined(world, drawn)
        self._rewards = world.answer_rewards(*drawn).view(len(world.prompts), samples)
        self.backdrop: Backdrop | None = estimated_backdrop(self._rewards)

    def __call__(self, reward_model: Any, beta: float) -> Evaluated:
        """Return the estimates of π*_φ and the plots' columns.

        `estimated` is a `model_standing`, with `rank_correlation`.
        """
        rewards, shape = self._rewards, self._rewards.shape
        scores = batch_scores(reward_model, self._batch).double().view(shape)
        scores = scores - scores.mean(1, keepdim=True)
        estimated = model_standing(rewards, scores, beta)
        estimated["rank_correlation"] = float(rank_correlation(scores, rewards).mean())
        shown = torch.linspace(0, rewards.numel() - 1, min(SHOWN, rewards.numel())).long()
        half = shape[1] // 2
        arrays = {
            "scatter/true": tuple(rewards.flatten()[shown].tolist()),
            "scatter/model": tuple(scores.flatten()[shown].tolist()),
            **calibration(
                scores[:, :half].flatten(), scores[:, half:].flatten(),
                rewards[:, :half].flatten(), rewards[:, half:].flatten(),
            ),
        }  # fmt: skip
        return Evaluated(estimated=estimated, arrays=arrays)


@torch.no_grad()
def batch_scores(reward_model: Any, batch: AnswerBatch, chunk: int = 512) -> Tensor:
    """r_φ of many answers, `chunk` at a time; [batch] on the CPU."""
    rows = range(0, len(batch.input_ids), chunk)
    return torch.cat([answer_scores(reward_model, batch.rows(slice(at, at + chunk))).cpu() for at in rows])


def reference_offsets(
    world: World, ref_policy: Any, reward_model: Any, seed: int, samples: int = 512
) -> Tensor:
    """E_{y∼π_ref}[r_φ(x, y)] of every prompt, from `samples` answers each: [prompts] float32."""
    prompts = torch.arange(len(world.prompts)).repeat_interleave(samples)
    drawn = draw_answers(world, ref_policy, prompts, torch.Generator().manual_seed(seed))
    return batch_scores(reward_model, joined(world, drawn)).view(-1, samples).mean(1)
