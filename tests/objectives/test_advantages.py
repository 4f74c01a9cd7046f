"""GAE's limits, baselines that stay unbiased, whitening."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhflab.objectives.advantages import (
    discounted_returns,
    explained_variance,
    gae,
    leave_one_out,
    td_errors,
    whiten,
)


def rollout(seed=0, batch=4, time=7):
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, batch, time, generator=generator, dtype=torch.float64)
    dones = torch.rand(batch, time, generator=generator) < 0.25
    last = torch.randn(batch, generator=generator, dtype=torch.float64)
    return rewards, values, dones, last


def test_by_hand():
    rewards, values = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 0.25, 1.0]])
    dones = torch.tensor([[False, False, True]])
    assert td_errors(rewards, values, dones, 0.5).tolist() == [[0.625, 2.25, 2.0]]
    # A_2 = 2, A_1 = 2.25 + 0.25·2, A_0 = 0.625 + 0.25·2.75
    assert gae(rewards, values, dones, 0.5, 0.5).tolist() == [[1.3125, 2.75, 2.0]]


@given(st.integers(0, 1000), st.floats(0, 1))
def test_lambda_0_is_the_td_error_and_lambda_1_is_return_minus_value(seed, gamma):
    rewards, values, dones, last = rollout(seed)
    errors = td_errors(rewards, values, dones, gamma, last)
    assert torch.allclose(gae(rewards, values, dones, gamma, 0.0, last), errors)
    returns = discounted_returns(rewards, dones, gamma, last)
    assert torch.allclose(gae(rewards, values, dones, gamma, 1.0, last), returns - values)


def test_nothing_flows_back_over_an_end():
    rewards, values, dones, last = rollout()
    dones[:, 3] = True
    first = gae(rewards, values, dones, 0.9, 0.9, last)[:, :4]
    rewards[:, 4:] += 100
    assert torch.equal(first, gae(rewards, values, dones, 0.9, 0.9, last)[:, :4])


def test_returns_are_sums_where_nothing_is_discounted():
    rewards = torch.arange(6.0).view(1, 6)
    dones = torch.tensor([[False, False, True, False, False, False]])
    returns = discounted_returns(rewards, dones, 1.0, torch.tensor([10.0]))
    assert returns.tolist() == [[3.0, 3.0, 2.0, 22.0, 19.0, 15.0]]


def test_leave_one_out_by_hand():
    returns, groups = torch.tensor([1.0, 2.0, 6.0, 5.0]), torch.tensor([7, 7, 7, 3])
    assert leave_one_out(returns, groups).tolist() == [1.0 - 4.0, 2.0 - 3.5, 6.0 - 1.5, 0.0]


def test_leave_one_out_keeps_the_gradient_of_a_bandit_unbiased():
    """Two arms, p = σ(θ): ∇E[r] = p(1−p)(r₁ − r₀); the estimator's mean over all outcomes of two draws is that."""
    p, r = 0.3, torch.tensor([1.0, 4.0], dtype=torch.float64)
    mean = 0.0
    for a in (0, 1):
        for b in (0, 1):
            probability = (p if a else 1 - p) * (p if b else 1 - p)
            advantages = leave_one_out(r[[a, b]], torch.zeros(2, dtype=torch.long))
            scores = torch.tensor([(1 - p) if arm else -p for arm in (a, b)], dtype=torch.float64)
            mean += probability * float((advantages * scores).mean())
    assert mean == pytest.approx(p * (1 - p) * 3.0)


def test_whitening_subtracts_the_mean_and_leaves_padding_alone():
    advantages = torch.tensor([[1.0, 2.0, 99.0], [3.0, 6.0, -99.0]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    white = whiten(advantages, mask)
    assert white[mask].mean().abs() < 1e-6 and white[mask].std(correction=0) == pytest.approx(1)
    assert (white[~mask] == 0).all()
    nearly_equal = 3.0 + 1e-7 * torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    assert whiten(nearly_equal, mask).abs().max() < 0.1


def test_explained_variance_of_perfect_constant_and_bad_values():
    returns = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(5, 5, dtype=torch.bool)
    assert explained_variance(returns + 3, returns, mask) == pytest.approx(1)
    assert explained_variance(torch.zeros(5, 5), returns, mask) == pytest.approx(0)
    assert explained_variance(-returns, returns, mask) == pytest.approx(-3)
    assert explained_variance(returns, torch.ones(5, 5), mask) == 0


def test_explained_variance_does_not_look_at_padding():
    returns, values = torch.tensor([[0.0, 2.0, 50.0]]), torch.tensor([[0.0, 1.0, -7.0]])
    mask = torch.tensor([[True, True, False]])
    assert (
        explained_variance(values, returns, mask).item() == 0.75
    )  # Var(0, 1) = 1/4 is left of Var(0, 2) = 1


def test_by_default_nothing_is_discounted_and_lambda_is_0_95():
    rewards, dones = torch.tensor([[1.0, 2.0]]), torch.tensor([[False, True]])
    values = torch.tensor([[0.5, 1.5]])
    assert td_errors(rewards, values, dones).tolist() == [[2.0, 0.5]]
    assert gae(rewards, values, dones)[0].tolist() == pytest.approx([2 + 0.95 * 0.5, 0.5])
    assert discounted_returns(rewards, dones).tolist() == [[3.0, 2.0]]


def test_bad_input_is_named():
    rewards, values, dones, _ = rollout()
    with pytest.raises(ValueError, match=r"gae_lambda must be in \[0, 1\], got 1.5"):
        gae(rewards, values, dones, 1.0, 1.5)
    with pytest.raises(ValueError, match=r"shapes must agree: rewards \(4, 7\), values \(4, 6\)"):
        td_errors(rewards, values[:, 1:], dones)


def coin_walks(length=4):
    """Every walk of ±1 steps from 0; a step earns the place that it leads to, and the last one ends the walk."""
    steps = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * length)
    places = torch.cat([torch.zeros(len(steps), 1, dtype=torch.float64), steps.cumsum(1)], 1)
    dones = torch.zeros(steps.shape, dtype=torch.bool)
    dones[:, -1] = True
    return steps, places[:, :-1], places[:, 1:], dones


@given(st.floats(0, 1), st.floats(0.1, 1))
def test_with_the_exact_value_gae_is_unbiased_at_every_lambda(gae_lambda, gamma):
    """The mean place does not move, so V(s) = s·(1 + γ + …) over what is left, and A(s, ±) = ±(1 + γ·(1 + γ + …))."""
    steps, here, rewards, dones = coin_walks()
    left = torch.tensor([sum(gamma**k for k in range(n)) for n in (4, 3, 2, 1)], dtype=torch.float64)
    exact = steps * left
    estimates = gae(rewards, here * left, dones, gamma, gae_lambda)
    # over the walks that share their first t + 1 steps: all that is averaged is what comes later
    for t in range(4):
        later = estimates[:, t].view(2 ** (t + 1), -1)
        assert torch.allclose(later.mean(1), exact[:, t].view_as(later)[:, 0])


@given(st.integers(0, 1000))
def test_with_any_value_lambda_1_has_no_bias_in_the_policy_gradient(seed):
    steps, here, rewards, dones = coin_walks()
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randn(9, generator=generator, dtype=torch.float64)[
        (here + 4).long()
    ]  # any function of the place
    slopes = {
        gae_lambda: (gae(rewards, wrong, dones, 1.0, gae_lambda) * steps).mean(0) for gae_lambda in (0.0, 1.0)
    }
    exact = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    assert torch.allclose(slopes[1.0], exact) and not torch.allclose(slopes[0.0], exact, atol=1e-3)


@pytest.mark.parametrize("bad", [-0.5, 1.01, float("nan")])
def test_shares_outside_0_to_1_are_refused(bad):
    one, end = torch.ones(1, 2), torch.tensor([[False, True]])
    for name in ("gamma", "gae_lambda"):
        with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\], got {bad}"):
            gae(one, one, end, **{name: bad})
