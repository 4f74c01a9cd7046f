"""Evaluators called every few updates: exact in the micro world, elsewhere estimates from samples or sample answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlhflab.core.record import Backdrop, Evaluated, Sample
from rlhflab.data.sampled import Drawn, SampledReference, answer_texts, draw_answers, joined
from rlhflab.models.logps import AnswerBatch, Compared, compare_policies, frozen_sequence_logps
from rlhflab.models.sampling import left_padded, sample_answers
from rlhflab.objectives.importance import (
    Estimate,
    average,
    log_mean_weight,
    log_partition_estimate,
    mean_estimate,
    optimum_estimate,
)
from rlhflab.worlds.micro import ReferencePoint

BACKDROP_BETAS = torch.logspace(-1.7, 2, 75)  # 0.02 to 100
TRUSTED_ESS = 150
"""Smallest effective sample size of a prompt for J* with an error bar; measured in tests/calibration.py."""


def frontier_backdrop(reference: ReferencePoint) -> Backdrop:
    """The exact frontier in the form used by boards and runs."""
    curve = reference.frontier(BACKDROP_BETAS)
    return Backdrop(
        beta=tuple(curve.beta.tolist()),
        kl=tuple(curve.kl.tolist()),
        reward=tuple(curve.reward.tolist()),
        objective=tuple(curve.objective.tolist()),
        ref_reward=reference.evaluate_logps(reference.logps, 1.0).ref_reward,
    )


def estimated_backdrop(ref_rewards: Tensor) -> Backdrop | None:
    """The frontier from answers of π_ref, with the standard error of its height, as far as it is reliable.

    The height at a given KL is min_β (J* + β·KL), so its error is that of J* at the minimising β.

    Args:
        ref_rewards: [prompts, samples], r of samples of π_ref.

    Returns:
        None if no β has TRUSTED_ESS effective samples for every prompt.
    """
    columns: dict[str, list[float]] = {
        name: [] for name in ("beta", "kl", "reward", "objective", "reward_se")
    }
    for beta in BACKDROP_BETAS.tolist():
        found = optimum_estimate(ref_rewards, beta)
        if not trusted(found.ess):
            continue
        kl, reward, objective = map(average, (found.kl, found.reward, found.objective))
        row = (beta, kl.value, reward.value, objective.value, objective.se)
        for column, value in zip(columns.values(), row, strict=True):
            column.append(float(value))
    if not columns["beta"]:
        return None
    curves = {name: tuple(column) for name, column in columns.items()}
    return Backdrop(**curves, ref_reward=float(ref_rewards.mean()))


def trusted(ess: Tensor, least: float = TRUSTED_ESS) -> bool:
    """Whether every prompt, not only the average one, has at least `least` effective samples."""
    return float(ess.min()) >= least


def with_errors(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    """NAME and NAME_se of every estimate."""
    values = {name: float(estimate.value) for name, estimate in estimates.items()}
    return values | {f"{name}_se": float(estimate.se) for name, estimate in estimates.items()}


class ExactEvaluator:
    """Exact reward, KL, regret and efficiency in the micro world, and one sample answer per prompt.

    Samples before and after use the same random number, so a sample changes only if the policy does.

    Args:
        reference: the world seen from π_ref.
        seed: of the samples.
    """

    def __init__(self, reference: ReferencePoint, seed: int) -> None:
        self.reference = reference
        self.backdrop: Backdrop | None = frontier_backdrop(reference)
        prompts = len(reference.world.prompts)
        generator = torch.Generator().manual_seed(seed)
        self._heights = torch.rand(prompts, dtype=torch.float64, generator=generator)
        self._before = reference.invert(reference.logps, self._heights)

    def __call__(self, policy: Any, beta: float) -> Evaluated:
        """Return the exact block, with π's probability of the clean language as `grammatical`, and the samples."""
        world = self.reference.world
        logps = world.logps(policy)
        after = self.reference.invert(logps, self._heights)
        answers, rewards = world.answers, world.rewards
        drawn = zip(world.prompts, self._before.tolist(), after.tolist(), strict=True)
        samples = tuple(
            Sample(prompt, answers[b], answers[a], float(rewards[row, b]), float(rewards[row, a]))
            for row, (prompt, b, a) in enumerate(drawn)
        )
        exact = self.reference.evaluate_logps(logps, beta)._asdict() | self._language(logps)
        return Evaluated(exact, samples=samples)

    def _language(self, logps: Tensor) -> dict[str, float]:
        return {"grammatical": float(logps[:, self.reference.world.is_grammatical].exp().sum(1).mean())}


class LanguageEvaluator(ExactEvaluator):
    """The same, and how close the policy is to the language that its texts are drawn from.

        H(p, π) = −Σ_y p(y)·log π(y|x) = H(p) + KL(p‖π) ≥ H(p)

    Both are divided by the mean number of tokens: the quantity that the training loss estimates, and its lower bound.

    Args:
        reference: the world seen from the model before training.
        seed: of the samples.
        p_noise: fraction in [0, 1] of the texts that have an error.
    """

    def __init__(self, reference: ReferencePoint, seed: int, p_noise: float) -> None:
        super().__init__(reference, seed)
        world = reference.world
        language = world.language(p_noise)
        self._weights = language / (language * world.tree.lengths).sum()  # per token
        entropy = float(-torch.xlogy(language, language).sum() / (language * world.tree.lengths).sum())
        self._floor = {
            "entropy": entropy,
            "least_perplexity": math.exp(entropy),
            "grammatical_texts": float(language[world.is_grammatical].sum()),
        }

    def _language(self, logps: Tensor) -> dict[str, float]:
        """Nats per token: `cross_entropy` and its lower bound `entropy`; their exponentials; clean mass of π and p."""
        cross_entropy = float(-(self._weights * logps).sum(1).mean())
        perplexity = {"cross_entropy": cross_entropy, "perplexity": math.exp(cross_entropy)}
        return super()._language(logps) | perplexity | self._floor


def optimum_of(ref_rewards: Tensor, beta: float) -> Estimate | None:
    """J* = β·E_x[log Z(x)] from rewards of π_ref's answers [prompts, samples]; None if it is not reliable."""
    found = log_partition_estimate(ref_rewards, beta)
    log_z = average(Estimate(found.log_z, found.se))
    return Estimate(beta * log_z.value, beta * log_z.se) if trusted(found.ess) else None


def standing(rewards: Tensor, compared: Compared, ref_rewards: Tensor, beta: float) -> dict[str, float]:
    """Evaluate a policy π from samples.

    The result has, as means over prompts and with standard errors NAME_se, `reward` E_π[r], `ref_reward` E_{π_ref}[r],
    `kl_rb` KL(π‖π_ref) in nats per answer and `objective` J = reward − β·KL. kl_rb is k1 with every token's log-ratio
    replaced by its mean, the KL of the two distributions of that token: the Rao–Blackwell estimate of Amini et al.
    (2025), "Better estimation of the KL divergence between language models". The error of J is the sum of those of
    reward and KL: near π* the two would cancel, except for rare bad answers that a few hundred samples may miss.

    If `optimum_trusted` is 1 there are also `log_z`, `optimum` J* = β·log Z and `regret` J* − J, with their errors.
    If it is 0 there are lower bounds instead, `optimum_at_least` and `regret_at_least` ≥ 0: estimates minus two
    standard errors, which heavy tails can only make too low. (J* is taken from π_ref's answers or from π's, since Z is
    also E_π[π_ref·exp(r/β)/π], whichever is larger.)

    Without standard error there is `ess`, the smallest effective sample size of a prompt's Z.

    Args:
        rewards: [prompts, samples], r of answers of π.
        compared: the same answers under π and π_ref, [prompts, samples] each.
        ref_rewards: [prompts, samples], r of answers of π_ref.
        beta: KL strength > 0.
    """
    reward, kl = (average(mean_estimate(table)) for table in (rewards, compared.kl))
    objective = Estimate(reward.value - beta * kl.value, reward.se + beta * kl.se)
    ref_reward = average(mean_estimate(ref_rewards))
    estimates = {"reward": reward, "ref_reward": ref_reward, "kl_rb": kl, "objective": objective}
    partition, optimum = log_partition_estimate(ref_rewards, beta), optimum_of(ref_rewards, beta)
    bounds = {}
    if optimum is not None:
        regret = Estimate(optimum.value - objective.value, torch.hypot(optimum.se, objective.se))
        log_z = Estimate(optimum.value / beta, optimum.se / beta)
        estimates |= {"log_z": log_z, "optimum": optimum, "regret": regret}
    else:
        by_policy = log_mean_weight(rewards / beta + compared.ref_logps - compared.logps)
        found = (average(Estimate(log_z, se)) for log_z, se, _ in (partition, by_policy))
        optimum_at_least = beta * max(float(log_z.value - 2 * log_z.se) for log_z in found)
        regret_at_least = optimum_at_least - float(objective.value + 2 * objective.se)
        bounds = {"optimum_at_least": optimum_at_least, "regret_at_least": max(0.0, regret_at_least)}
    known = {"ess": float(partition.ess.min()), "optimum_trusted": float(optimum is not None)}
    return with_errors(estimates) | bounds | known


class EstimatingEvaluator:
    """Reward, KL and distance from the optimum estimated from samples, for a world that cannot be enumerated.

    Every call draws with the same random numbers, so that the same policy gets the same estimates, and the difference
    of two policies is less noisy than with independent draws.

    Args:
        reference: the world seen from π_ref.
        seed: of all samples.
        samples: answers of the policy per evaluation, rounded up to the same number for each prompt, at least two.
        ref_samples: answers of π_ref per prompt, drawn once, for log Z and the reference's reward: `ref_drawn` with
            `ref_rewards` [prompts, ref_samples].
    """

    def __init__(
        self, reference: SampledReference, seed: int, samples: int = 512, ref_samples: int = 1000
    ) -> None:
        world, ref_policy = reference.world, reference.ref_policy
        self._world, self._ref_policy, self._seed = world, ref_policy, seed
        prompts = torch.arange(len(world.prompts))
        self._prompts = prompts.repeat_interleave(max(2, math.ceil(samples / len(prompts))))
        self._before = self._draw(ref_policy)
        many = prompts.repeat_interleave(ref_samples)
        self.ref_drawn = draw_answers(world, ref_policy, many, torch.Generator().manual_seed(seed + 1))
        self.ref_rewards = world.answer_rewards(*self.ref_drawn).view(len(prompts), -1)
        self.backdrop: Backdrop | None = estimated_backdrop(self.ref_rewards)

    def _draw(self, policy: Any) -> Drawn:
        generator = torch.Generator().manual_seed(self._seed)
        return draw_answers(self._world, policy, self._prompts, generator)

    def __call__(self, policy: Any, beta: float) -> Evaluated:
        """Return the estimates and one sample answer per prompt.

        `estimated` is a `standing`, with `length` in tokens and `grammatical`, the fraction of grammatical answers.
        """
        world, prompts = self._world, len(self.ref_rewards)
        drawn = self._draw(policy)
        rewards = world.answer_rewards(*drawn).view(prompts, -1)
        compared = compare_policies(policy, self._ref_policy, joined(world, drawn))
        tables = Compared(*(table.view(prompts, -1) for table in compared))
        estimated = {
            **standing(rewards, tables, self.ref_rewards, beta),
            "length": float(drawn.mask.sum(1).double().mean()),
            "grammatical": float(world.grammatical(drawn.tokens, drawn.mask).double().mean()),
        }
        return Evaluated(estimated=estimated | self._language(policy), samples=self._samples(drawn))

    def _language(self, policy: Any) -> dict[str, float]:
        return {}

    def _samples(self, drawn: Drawn) -> tuple[Sample, ...]:
        """The first answer to each prompt, before training and now."""
        world = self._world
        first = torch.arange(0, len(self._prompts), len(self._prompts) // len(world.prompts))
        before, after = self._before.rows(first), drawn.rows(first)
        columns = (
            world.prompts,
            *(answer_texts(world, answers) for answers in (before, after)),
            *(world.answer_rewards(*answers).tolist() for answers in (before, after)),
        )
        return tuple(Sample(*row) for row in zip(*columns, strict=True))


class HeldOutEvaluator(EstimatingEvaluator):
    """The same, and the loss on held-out texts: an estimate of the cross-entropy with their language.

    Args:
        reference: the world seen from the model before training.
        seed: of all samples.
        texts: held-out texts, at least two.
    """

    def __init__(self, reference: SampledReference, seed: int, texts: AnswerBatch) -> None:
        super().__init__(reference, seed, ref_samples=200)
        self._texts = texts

    def _language(self, policy: Any) -> dict[str, float]:
        """Nats per token: `cross_entropy` with its standard error; `perplexity`."""
        losses = -frozen_sequence_logps(policy, self._texts).double()
        found = per_token(losses, self._texts.mask.sum(1).double())
        cross_entropy = with_errors({"cross_entropy": found})
        return cross_entropy | {"perplexity": math.exp(float(found.value))}


def per_token(losses: Tensor, tokens: Tensor) -> Estimate:
    """Mean loss per token over texts, a ratio of means, from [texts] sums of losses and [texts] numbers of tokens."""
    mean = losses.sum() / tokens.sum()
    return Estimate(mean, mean_estimate((losses - mean * tokens) / tokens.mean()).se)


class SampleEvaluator:
    """Sample answers of any model to a few prompts; no exact values.

    Args:
        ref_policy: π_ref, for the answers before training.
        prompts: texts.
        encode_prompt, decode: text → token ids and back.
        stop_ids: token ids that end an answer.
        max_tokens: longest answer.
        seed: of the samples.
    """

    backdrop: Backdrop | None = None

    def __init__(
        self,
        ref_policy: Any,
        prompts: Sequence[str],
        encode_prompt: Callable[[str], list[int]],
        decode: Callable[[list[int]], str],
        stop_ids: Sequence[int],
        max_tokens: int,
        seed: int,
    ) -> None:
        self._prompts, self._decode, self._stop_ids = prompts, decode, stop_ids
        self._ids, self._mask = left_padded([encode_prompt(prompt) for prompt in prompts])
        self._max_tokens, self._seed = max_tokens, seed
        self._before = self._sample(ref_policy)

    def _sample(self, model: Any) -> list[str]:
        generator = torch.Generator().manual_seed(self._seed)
        drawn = sample_answers(
            model, self._ids, self._max_tokens, self._stop_ids, 0, generator, prompt_mask=self._mask
        )
        return [self._decode(ids[kept].tolist()) for ids, kept in zip(drawn.answers, drawn.mask, strict=True)]

    def __call__(self, policy: Any, beta: float) -> Evaluated:
        """Return the samples."""
        rows = zip(self._prompts, self._before, self._sample(policy), strict=True)
        return Evaluated(samples=tuple(Sample(prompt, before, after) for prompt, before, after in rows))
