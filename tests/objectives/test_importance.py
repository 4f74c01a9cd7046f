"""Estimates against closed forms and the micro world's exact Z; error bars against autograd and repetitions."""

import itertools
import math

import pytest
import torch

from rlhflab.objectives.best_of_n import best_of_n_logps
from rlhflab.objectives.importance import (
    Estimate,
    average,
    best_of_n_estimate,
    effective_sample_size,
    gaussian_weights,
    importance_weights,
    log_partition_estimate,
    mean_estimate,
    optimum_estimate,
    regret_estimate,
    self_normalised_mean,
)
from rlhflab.objectives.optimum import log_partition, optimal_logps

REPETITIONS = 400


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def calibrated(estimates, truth, bias=0.0):
    """The truth lies within 4 standard errors (5 of 400 may not), and their mean is within 25 % of the true spread.

    The mean over the repetitions is off by at most `bias` mean standard errors, beyond 4 of its own.
    """
    value, se = estimates
    assert ((value - truth).abs() > 4 * se).float().mean() <= 5 / REPETITIONS
    assert se.mean().item() == pytest.approx(value.std().item(), rel=0.25)
    off = bias * se.mean().item() + 4 * value.std().item() / REPETITIONS**0.5
    assert value.mean().item() == pytest.approx(float(truth), abs=off)


def test_weights_and_effective_sample_size_by_hand():
    log_ratios = (
        torch.tensor([1.0, 3.0], dtype=torch.float64).log() + 500
    )  # the constant must neither matter nor overflow
    assert importance_weights(log_ratios).tolist() == pytest.approx([0.25, 0.75])
    assert effective_sample_size(log_ratios).item() == pytest.approx(16 / 10)
    assert effective_sample_size(torch.zeros(2, 7)).tolist() == pytest.approx([7, 7])


def test_equal_weights_are_a_plain_mean():
    values = torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]])
    plain = mean_estimate(values)
    assert plain.value.tolist() == [3, 4] and plain.se.tolist() == pytest.approx([(14 / 2 / 3) ** 0.5, 0])
    weighted = self_normalised_mean(values, torch.full((2, 3), -7.0))
    assert weighted.value.tolist() == pytest.approx([3, 4])
    assert weighted.se.tolist() == pytest.approx([(14 / 9) ** 0.5, 0], abs=1e-6)


def test_average_of_groups():
    value, se = average(Estimate(torch.tensor([1.0, 3.0]), torch.tensor([0.3, 0.4])))
    assert value.item() == 2 and se.item() == pytest.approx(0.25)


def test_one_large_weight_is_an_effective_sample_of_one():
    found = log_partition_estimate(torch.tensor([0.0, 0.0, 0.0, 90.0]), 0.1)
    assert found.log_z.item() == pytest.approx(900 - math.log(4)) and found.ess.item() == pytest.approx(1)
    assert found.se.item() == pytest.approx(1)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_log_partition_of_normal_rewards(beta):
    """r ∼ N(0, 1) under π_ref: log Z = 1/(2β²)."""
    found = log_partition_estimate(normal(REPETITIONS, 2000), beta)
    calibrated((found.log_z, found.se), 0.5 / beta**2)
    # E[w²]/E[w]² = exp(1/β²)
    assert found.ess.mean().item() == pytest.approx(2000 * math.exp(-1 / beta**2), rel=0.05)


def test_self_normalised_mean_of_a_tilted_normal():
    """Samples of N(0, 1), weights exp(y/2): the target is N(½, 1)."""
    y = normal(REPETITIONS, 1000, seed=1)
    calibrated(self_normalised_mean(y, y / 2 + 100), 0.5)


def influence_se(estimate, samples):
    """std of the influences n·∂θ/∂p_i at p = 1/n over √n, by autograd: what a delta-method error has to be."""
    p = torch.full((samples,), 1 / samples, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(estimate(p), p)
    return float(gradient.std() / samples**0.5)


def test_every_standard_error_is_the_spread_of_its_estimates_influences():
    """No term is forgotten: each error against the derivative of the whole estimate by the samples' weights."""
    rewards, beta = normal(50, seed=8), 0.7
    scores = 0.6 * rewards + 0.5 * normal(50, seed=9)

    def mean(values, p):
        return (p / p.sum() * values).sum()

    def parts(table, p):
        log_z = mean((table / beta).exp(), p).log()
        return log_z, p / p.sum() * (table / beta).exp() / log_z.exp()

    def regret(p):
        best, (led, weights) = parts(rewards, p)[0], parts(scores, p)
        return beta * (best - led) - (weights * (rewards - scores)).sum()

    log_z, optimum = log_partition_estimate(rewards, beta), optimum_estimate(rewards, beta)
    wanted = [
        (log_z.se, lambda p: parts(rewards, p)[0]),
        (optimum.objective.se, lambda p: beta * parts(rewards, p)[0]),
        (optimum.reward.se, lambda p: (parts(rewards, p)[1] * rewards).sum()),
        (optimum.kl.se, lambda p: (parts(rewards, p)[1] * rewards).sum() / beta - parts(rewards, p)[0]),
        (regret_estimate(rewards, scores, beta).se, regret),
        (mean_estimate(rewards).se, lambda p: mean(rewards, p)),
    ]
    for se, estimate in wanted:
        assert float(se) == pytest.approx(influence_se(estimate, 50), rel=1e-6)
    weighted = self_normalised_mean(rewards, scores / beta).se * (50 / 49) ** 0.5
    led = influence_se(lambda p: (parts(scores, p)[1] * rewards).sum(), 50)
    assert float(weighted) == pytest.approx(led, rel=1e-6)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_best_of_n_over_all_tuples_and_the_influence_of_a_sample(n):
    rewards, scores = normal(6, seed=10), normal(6, seed=11)

    def best(p):
        total = torch.zeros((), dtype=torch.float64)
        for rows in itertools.product(range(6), repeat=n):
            total = total + rewards[max(rows, key=lambda row: scores[row])] * p[list(rows)].prod()
        return total / p.sum() ** n

    found = best_of_n_estimate(rewards, scores, n)
    assert float(found.value) == pytest.approx(float(best(torch.full((6,), 1 / 6, dtype=torch.float64))))
    assert float(found.se) == pytest.approx(influence_se(best, 6))
    table = best_of_n_logps(torch.full((1, 6), -math.log(6), dtype=torch.float64), scores[None], n).exp()
    assert float(found.value) == pytest.approx(float((table * rewards).sum()))


def draw(logps, samples, seed):
    """[REPETITIONS, samples] positions of answers drawn from one prompt's distribution."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(REPETITIONS, samples, generator=generator, dtype=torch.float64)
    return torch.searchsorted(logps.exp().cumsum(0), uniform).clamp_(max=len(logps) - 1)


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_against_the_micro_worlds_exact_partition(world, reference, beta):
    exact = log_partition(reference.logps[4], reference.rewards[4], beta)
    found = log_partition_estimate(reference.rewards[4][draw(reference.logps[4], 500, 3)], beta)
    calibrated((found.log_z, found.se), exact)


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_the_optimum_from_samples_against_the_micro_worlds_exact_one(reference, beta):
    """Reward, KL and J* of π*; and J* − J of the policy that is optimal for a wrong reward."""
    logps, rewards = reference.logps[4], reference.rewards[4]
    best = optimal_logps(logps[None], rewards[None], beta)[0]
    reward, kl = (best.exp() * rewards).sum(), (best.exp() * (best - logps)).sum()
    at = draw(logps, 1000, 6)
    found = optimum_estimate(rewards[at], beta)
    for estimate, exact in zip(found, (reward, kl, reward - beta * kl), strict=False):
        calibrated(estimate, exact, bias=0.5)  # of order 1/samples

    scores = 0.5 * rewards + 0.7 * torch.randn(len(rewards), generator=torch.Generator().manual_seed(0))
    led = optimal_logps(logps[None], scores[None], beta)[0]
    objective = (led.exp() * (rewards - beta * (led - logps))).sum()
    found = regret_estimate(rewards[at], scores[at], beta)
    calibrated(found, reward - beta * kl - objective, bias=0.5)
    same = regret_estimate(rewards[at], rewards[at] + 5, beta)
    assert same.value.abs().max() < 1e-9 and same.se.max() < 1e-9


def test_a_small_beta_is_betrayed_by_its_effective_sample_size(world, reference):
    found = log_partition_estimate(reference.rewards[4][draw(reference.logps[4], 500, 3)], 0.1)
    assert found.ess.median() < 20 and found.ess.max() < 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_partition_estimate(torch.zeros(3), 0.0), "beta must be a finite number > 0, got 0.0"),
        (lambda: log_partition_estimate(torch.zeros(3, 1), 1.0), "needs at least 2 samples, got 1"),
        (lambda: best_of_n_estimate(torch.zeros(3), torch.zeros(3), 0), "n must be ≥ 1, got 0"),
        (lambda: self_normalised_mean(torch.zeros(3), torch.zeros(2)), r"values \(3,\), log_ratios \(2,\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("mean", "std", "target_mean", "target_std"), [(0.7, 1.1, -0.4, 0.8), (-0.5, 1.0, 1.0, 1.2)]
)
def test_gaussian_weights_are_those_of_quadrature(mean, std, target_mean, target_std):
    a = torch.linspace(-30, 30, 600_001, dtype=torch.float64)
    q, p = (torch.distributions.Normal(*each) for each in ((mean, std), (target_mean, target_std)))
    squares = (2 * p.log_prob(a) - q.log_prob(a)).exp()  # q·w²
    second, first_moment, spread = (
        float(torch.trapezoid(squares * f, a)) for f in (torch.ones_like(a), a**2, (a - target_mean) ** 2)
    )
    found = gaussian_weights(mean, std, target_mean, target_std)
    assert found == pytest.approx((second, (first_moment - target_mean**2) ** 0.5, spread**0.5), rel=1e-6)


def test_estimates_of_one_row_are_those_of_the_row_in_a_table():
    rewards, scores = normal(2, 3, 50, seed=7), normal(2, 3, 50, seed=8)
    whole = regret_estimate(rewards, scores, 0.7)
    one = regret_estimate(rewards[1, 2], scores[1, 2], 0.7)
    assert [float(x) for x in one] == pytest.approx([float(x[1, 2]) for x in whole])
    whole, one = optimum_estimate(rewards, 0.7), optimum_estimate(rewards[1, 2], 0.7)
    for name in ("reward", "kl", "objective"):
        pairs = zip(getattr(one, name), getattr(whole, name), strict=True)
        assert all(float(a) == pytest.approx(float(b[1, 2])) for a, b in pairs)
