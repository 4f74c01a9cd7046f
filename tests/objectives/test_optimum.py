"""The closed-form optimum against its identities, a numerical optimiser and brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from rlhflab.objectives.divergence import kl_from_logps
from rlhflab.objectives.optimum import (
    evaluate,
    expected_reward,
    frontier,
    frontier_reward,
    log_partition,
    optimal_logps,
    optimum_moments,
    reward_levels,
    soft_value,
)


def problem(seed=0, prompts=3, answers=50, levels=None):
    generator = torch.Generator().manual_seed(seed)
    ref = (2 * torch.randn(prompts, answers, generator=generator, dtype=torch.float64)).log_softmax(-1)
    rewards = torch.randn(prompts, answers, generator=generator, dtype=torch.float64)
    return ref, (rewards * levels).round() / levels if levels else rewards


@given(beta=st.floats(0.05, 50), seed=st.integers(0, 99))
@settings(max_examples=50)
def test_reward_is_beta_log_ratio_plus_beta_log_z(beta, seed):
    ref, rewards = problem(seed)
    best = optimal_logps(ref, rewards, beta)
    torch.testing.assert_close(best.exp().sum(-1), torch.ones(3, dtype=torch.float64))
    log_z = log_partition(ref, rewards, beta)
    torch.testing.assert_close(beta * (best - ref) + beta * log_z[:, None], rewards)


@given(beta=st.floats(0.05, 50), seed=st.integers(0, 99))
@settings(max_examples=50)
def test_regret_is_beta_times_kl_to_the_optimum_and_efficiency_never_exceeds_one(beta, seed):
    ref, rewards = problem(seed)
    policy = problem(seed + 1000)[0]
    found = evaluate(policy, ref, rewards, beta)
    to_optimum = kl_from_logps(policy, optimal_logps(ref, rewards, beta)).mean().item()
    assert found.regret == pytest.approx(beta * to_optimum, rel=1e-9)
    assert found.objective <= found.optimum
    assert found.efficiency <= 1 + 1e-9
    assert found.frontier_reward >= found.reward - 1e-9


@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0, 4.0])
def test_optimal_policies_have_efficiency_one_and_no_regret(beta):
    ref, rewards = problem()
    found = evaluate(optimal_logps(ref, rewards, beta), ref, rewards, beta)
    assert found.efficiency == pytest.approx(1.0, abs=1e-9)
    assert found.regret == pytest.approx(0.0, abs=1e-12)


def test_a_numerical_optimiser_finds_the_same_optimum():
    ref, rewards = (x[0].numpy() for x in problem(answers=6))
    beta = 0.7

    def minus_objective(theta):
        logps = theta - np.logaddexp.reduce(theta)
        return -(np.exp(logps) * (rewards - beta * (logps - ref))).sum()

    peer = minimize(minus_objective, np.zeros(6), method="BFGS", options={"gtol": 1e-10})
    ours = log_partition(torch.tensor(ref), torch.tensor(rewards), beta).item() * beta
    assert -peer.fun == pytest.approx(ours, abs=1e-9)


def test_frontier_points_lie_on_the_frontier_and_a_finer_search_finds_nothing_above():
    ref, rewards = problem()
    betas = torch.logspace(-1, 1, 9, dtype=torch.float64)
    curve = frontier(ref, rewards, betas)
    for kl, reward in zip(curve.kl.tolist(), curve.reward.tolist(), strict=True):
        assert frontier_reward(ref, rewards, kl) == pytest.approx(reward, abs=1e-9)
    assert (curve.kl.diff() < 0).all() and (curve.reward.diff() < 0).all()
    torch.testing.assert_close(curve.objective, curve.reward - curve.beta * curve.kl)
    # At KL = k the frontier is the lower envelope of the dual lines β ↦ J*(β) + βk.
    dense = [optimum_moments(ref, rewards, b) for b in np.geomspace(1e-3, 1e3, 4001)]
    for k in (0.05, 0.5, 1.5):
        envelope = min(j + b * k for b, (_, _, j) in zip(np.geomspace(1e-3, 1e3, 4001), dense, strict=True))
        assert frontier_reward(ref, rewards, k) == pytest.approx(envelope, abs=1e-5)


def test_frontier_ends_at_the_reference_and_at_the_best_answers():
    ref, rewards = problem()
    assert frontier_reward(ref, rewards, 0.0) == pytest.approx(
        expected_reward(ref, rewards).mean().item(), abs=1e-6
    )
    assert frontier_reward(ref, rewards, 100.0) == pytest.approx(rewards.amax(-1).mean().item(), abs=1e-6)
    with pytest.raises(ValueError, match="kl must be a number ≥ 0, got nan"):
        frontier_reward(ref, rewards, math.nan)


def test_reward_levels_change_no_moment():
    ref, rewards = problem(levels=2)
    level_logps, levels = reward_levels(ref, rewards)
    assert levels.shape[1] < 20
    for beta in (0.2, 1.0, 5.0):
        assert optimum_moments(level_logps, levels, beta) == pytest.approx(
            optimum_moments(ref, rewards, beta)
        )


def test_implicit_rewards_fall_on_average_under_the_reference():
    ref, _ = problem()
    policy = problem(5)[0]
    beta = 0.3
    mean_implicit = (ref.exp() * beta * (policy - ref)).sum(-1)
    torch.testing.assert_close(mean_implicit, -beta * kl_from_logps(ref, policy))


def test_soft_value_is_a_soft_maximum():
    ref = torch.full((4,), 0.25, dtype=torch.float64).log()
    q = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    assert soft_value(ref, q, 1e-3).item() == pytest.approx(3.0, abs=2e-3)
    assert soft_value(ref, q, 1e6).item() == pytest.approx(1.5, abs=1e-5)
