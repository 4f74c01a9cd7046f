"""Estimates from samples, each with its standard error: means, importance sampling, log Z(x), best-of-n.

Where answers cannot be enumerated, expectations under a policy p are means over samples of another one, q, weighted by
w = p/q. All weights are given by their logarithms, samples lie in the last dimension. Source: Owen (2013), "Monte Carlo
theory, methods and examples", chapter 9 (importance sampling) and section 9.3 (effective sample size). A standard error
is the spread of the samples' influences on the estimate, over √samples (the infinitesimal jackknife).

Their reliability was measured: `make calibration`, tests/calibration.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rlhflab.objectives.checks import positive, same_shape


class Estimate(NamedTuple):
    """An estimate and its standard error, both [...] in the unit of the estimated quantity; `se` ≥ 0.

    Attributes:
        value: the estimate.
        se: estimated standard deviation of `value`; NaN from a single sample.
    """

    value: Tensor
    se: Tensor


class PartitionEstimate(NamedTuple):
    """An estimate of log Z(x).

    Attributes:
        log_z: [...], nats.
        se: [...], its standard error, nats.
        ess: [...], effective sample size in [1, samples]: if it is small, the other two numbers mean little.
    """

    log_z: Tensor
    se: Tensor
    ess: Tensor


class OptimumEstimate(NamedTuple):
    """Estimates for π* from samples of π_ref; all [...].

    Attributes:
        reward: E_{π*}[r].
        kl: KL(π*‖π_ref), nats per answer; it has the heaviest tail, so its error bar is the first to be too short.
        objective: J* = reward − β·kl.
        ess: effective sample size in [1, samples]: if it is small, the others mean little.
    """

    reward: Estimate
    kl: Estimate
    objective: Estimate
    ess: Tensor


class GaussianWeights(NamedTuple):
    """Exact properties of the weights w = p/q of two Gaussians, for a ∼ q = N(m, s²) and p = N(μ, σ²).

    Attributes:
        second_moment: E_q[w²] ≥ 1; infinite where σ² ≥ 2·s². n samples are equivalent to about n / E_q[w²] of p.
        value_std: standard deviation of w·a, the estimate of μ from one sample; infinite where E_q[w²] is.
        normalised_std: the same for Σw·a / Σw, to first order in 1/n: √E_q[w²·(a − μ)²].
    """

    second_moment: float
    value_std: float
    normalised_std: float


def gaussian_weights(mean: float, std: float, target_mean: float, target_std: float) -> GaussianWeights:
    """Closed form of the weights' spread between two Gaussians; p²/q is a Gaussian times E_q[w²] = exp D₂(p‖q):

        E_q[w²] = s²/(σ·√(2s² − σ²)) · exp((μ − m)²/(2s² − σ²))

    Args:
        mean, std: m and s > 0 of q, the sampling distribution.
        target_mean, target_std: μ and σ > 0 of p, the target of the expectation.

    Source: Gil et al. (2013), "Rényi divergence measures for commonly used univariate continuous distributions".

    >>> gaussian_weights(0.0, 1.0, 0.0, 1.0)
    GaussianWeights(second_moment=1.0, value_std=1.0, normalised_std=1.0)
    >>> gaussian_weights(0.0, 1.0, 0.0, 1.5).second_moment
    inf
    """
    positive(std=std, target_std=target_std)
    room = 2 * std**2 - target_std**2
    if room <= 0:
        return GaussianWeights(math.inf, math.inf, math.inf)
    exponent = (target_mean - mean) ** 2 / room
    second = std**2 / (target_std * math.sqrt(room)) * (math.exp(exponent) if exponent < 700 else math.inf)
    centre = (2 * target_mean * std**2 - mean * target_std**2) / room  # of p²/q
    variance = (target_std * std) ** 2 / room
    value = second * (centre**2 + variance) - target_mean**2
    normalised = second * ((centre - target_mean) ** 2 + variance)
    return GaussianWeights(second, math.sqrt(max(value, 0.0)), math.sqrt(normalised))


def importance_weights(log_ratios: Tensor) -> Tensor:
    """Self-normalised weights w̃_i = w_i / Σ_j w_j with w = exp(log p − log q).

    Args:
        log_ratios: [..., samples], log p(y) − log q(y) for y ∼ q, up to a constant.

    Returns:
        [..., samples], ≥ 0, summing to 1.
    """
    return log_ratios.softmax(-1)


def effective_sample_size(log_ratios: Tensor) -> Tensor:
    """(Σ w)² / Σ w²: the number of unweighted samples that the weighted ones are equivalent to.

    Args:
        log_ratios: [..., samples], log-weights up to a constant.

    Returns:
        [...], from 1 (one weight has it all) to the number of samples (all weights equal).

    >>> effective_sample_size(torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, -99.0, -99.0, -99.0]]))
    tensor([4., 1.])
    """
    return 1 / importance_weights(log_ratios).square().sum(-1)


def mean_estimate(values: Tensor) -> Estimate:
    """Mean of independent samples, standard error s/√n with s² = Σ(v − v̄)²/(n − 1).

    Args:
        values: [..., samples].
    """
    return Estimate(values.mean(-1), values.std(-1) / math.sqrt(values.shape[-1]))


def average(estimate: Estimate) -> Estimate:
    """Mean over the last dimension of independent estimates, such as one per prompt: se = √Σ se² / groups."""
    return Estimate(estimate.value.mean(-1), estimate.se.square().sum(-1).sqrt() / estimate.se.shape[-1])


def self_normalised_mean(values: Tensor, log_ratios: Tensor) -> Estimate:
    """E_p[f] from samples of q: μ̂ = Σ w̃_i·f_i, with standard error √Σ w̃_i²·(f_i − μ̂)².

    Biased by O(1/samples); the constant of the weights cancels, so p need not be normalised (π* without its Z).

    Args:
        values: [..., samples], f(y) for y ∼ q.
        log_ratios: [..., samples], log p(y) − log q(y), up to a constant.
    """
    same_shape(values=values, log_ratios=log_ratios)
    weights = importance_weights(log_ratios)
    mean = (weights * values).sum(-1)
    deviations = weights * (values - mean.unsqueeze(-1))
    return Estimate(mean, deviations.square().sum(-1).sqrt())


def log_mean_weight(log_weights: Tensor) -> PartitionEstimate:
    """log E_q[w] ≈ log mean_i w_i for samples of q: log Z(x) where w = π_ref·exp(r/β)/q.

    The mean is unbiased; its logarithm is too low by about se²/2, and by more if the largest weights are rarer than one
    in `samples`: so `log_z` − 2·se is a lower bound on log Z even if `ess` is too small to trust the estimate.
    Standard error by the delta method: that of the mean over the mean, which is √((n/ESS − 1)/(n − 1)).

    Args:
        log_weights: [..., samples], log w(y) for y ∼ q, at least two; the constant counts.
    """
    samples = log_weights.shape[-1]
    if samples < 2:
        raise ValueError(f"a standard error needs at least 2 samples, got {samples}")
    ess = effective_sample_size(log_weights)
    se = ((samples / ess - 1).clamp(min=0) / (samples - 1)).sqrt()
    return PartitionEstimate(log_weights.logsumexp(-1) - math.log(samples), se, ess)


def log_partition_estimate(rewards: Tensor, beta: float) -> PartitionEstimate:
    """log Z(x) = log E_{y∼π_ref}[exp(r(x,y)/β)] from samples y_i ∼ π_ref(·|x); see `log_mean_weight`.

    Args:
        rewards: [..., samples], r(x, y) of samples of π_ref, at least two.
        beta: KL strength > 0; if it is small, the few best samples have all the weight, which ESS shows.

    Returns:
        all [...]; β·log Z is the estimate of J*, β·se its standard error.
    """
    positive(beta=beta)
    return log_mean_weight(rewards / beta)


def optimum_estimate(rewards: Tensor, beta: float) -> OptimumEstimate:
    """π* ∝ π_ref·exp(r/β) from samples of π_ref: E_{π*}[r], KL(π*‖π_ref) = E_{π*}[r]/β − log Z, and J* = β·log Z.

    Standard errors by the delta method; with w_i = exp(r_i/β)/Z the samples' influences are

        w_i·(r_i − E_{π*}[r])   of the reward,        w_i − 1   of log Z.

    Args:
        rewards: [..., samples], r(x, y) of samples of π_ref, at least two.
        beta: KL strength > 0; see `log_partition_estimate`.
    """
    partition = log_partition_estimate(rewards, beta)
    samples = rewards.shape[-1]
    weights = samples * importance_weights(rewards / beta)
    reward = (weights * rewards).mean(-1)
    of_reward = weights * (rewards - reward.unsqueeze(-1))
    of_kl = of_reward / beta - (weights - 1)
    reward_se, kl_se = (influences.std(-1) / math.sqrt(samples) for influences in (of_reward, of_kl))
    kl = reward / beta - partition.log_z
    objective = Estimate(beta * partition.log_z, beta * partition.se)
    return OptimumEstimate(Estimate(reward, reward_se), Estimate(kl, kl_se), objective, partition.ess)


def regret_estimate(rewards: Tensor, scores: Tensor, beta: float) -> Estimate:
    """J(π*) − J(π*_φ) ≥ 0, the cost of being optimal for the scores r_φ instead of the rewards r.

    All three parts, β·log Z and E[r] and KL of π*_φ ∝ π_ref·exp(r_φ/β), come from the same samples of π_ref; so do
    their errors, which partly cancel. For r_φ = r + constant the regret is 0, and so is its standard error. If r_φ is
    nearly r, the remaining regret lies in the few best answers: the error bar is then too short.

    Args:
        rewards, scores: [..., samples], r and r_φ of samples of π_ref, at least two.
        beta: KL strength > 0.
    """
    same_shape(rewards=rewards, scores=scores)
    best, misled = optimum_estimate(rewards, beta), optimum_estimate(scores, beta)
    samples = rewards.shape[-1]
    best_weights, weights = (samples * importance_weights(table / beta) for table in (rewards, scores))
    reward = (weights * rewards).mean(-1)
    promised = scores - misled.reward.value.unsqueeze(-1)
    influences = beta * (best_weights - weights) + weights * (promised - (rewards - reward.unsqueeze(-1)))
    value = best.objective.value - (reward - beta * misled.kl.value)
    return Estimate(value, influences.std(-1) / math.sqrt(samples))


def best_of_n_estimate(rewards: Tensor, scores: Tensor, n: int) -> Estimate:
    """E[r] of the answer with the best score among n of π_ref, from more than n samples of π_ref.

    It is the mean over all n-tuples of the samples, drawn with replacement. A sample's influence is n times the reward
    of the tuples that contain it: its own reward if it is the best of the n, else that of the best of the others.

    Args:
        rewards, scores: [..., samples], r and the score of samples of π_ref; equal scores count in their order.
        n: draws, ≥ 1.
    """
    same_shape(rewards=rewards, scores=scores)
    if n < 1:
        raise ValueError(f"n must be ≥ 1, got {n}")
    samples = rewards.shape[-1]
    ordered = rewards.gather(-1, scores.argsort(-1))
    up_to = torch.arange(1, samples + 1, dtype=rewards.dtype, device=rewards.device) / samples
    below = up_to - 1 / samples
    value = ((up_to**n - below**n) * ordered).sum(-1)
    others = (up_to ** (n - 1) - below ** (n - 1)) * ordered  # 0 if there are no others
    better = others.flip(-1).cumsum(-1).flip(-1) - others
    held = up_to ** (n - 1) * ordered + better
    return Estimate(value, n * held.std(-1) / math.sqrt(samples))
