"""DPO's loss against its identities, autograd and TRL."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhflab.objectives.dpo import dpo_loss, gradient_weights, implicit_rewards, indexed_dpo_loss

BETAS = st.floats(0.01, 20)


def random_logps(*names, size=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [-10 * torch.rand(size, generator=generator, dtype=torch.float64) for _ in names or range(4)]


@given(beta=BETAS, seed=st.integers(0, 1000))
def test_at_the_reference_the_loss_is_ln_2_and_all_weights_are_one_half(beta, seed):
    chosen, rejected = random_logps("chosen", "rejected", seed=seed)
    losses, chosen_rewards, rejected_rewards = dpo_loss(chosen, rejected, chosen, rejected, beta)
    torch.testing.assert_close(losses, torch.full_like(losses, math.log(2)))
    assert torch.equal(gradient_weights(chosen_rewards, rejected_rewards), torch.full_like(losses, 0.5))


@given(beta=BETAS, seed=st.integers(0, 1000))
def test_gradient_is_minus_beta_times_weight_times_difference_of_log_probability_gradients(beta, seed):
    # A categorical policy over 6 answers: ∇ log π(y) = onehot(y) − softmax(θ), known in closed form.
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True)
    ref = torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(0)
    chosen, rejected = torch.randint(6, (2, 9), generator=generator)
    logps = theta.log_softmax(0)
    losses, chosen_rewards, rejected_rewards = dpo_loss(
        logps[chosen], logps[rejected], ref[chosen], ref[rejected], beta
    )
    (gradient,) = torch.autograd.grad(losses.mean(), theta)

    grad_logps = torch.eye(6, dtype=torch.float64) - theta.detach().softmax(0)
    weights = torch.sigmoid(rejected_rewards - chosen_rewards)
    by_hand = -beta * (weights[:, None] * (grad_logps[chosen] - grad_logps[rejected])).mean(0)
    torch.testing.assert_close(gradient, by_hand)


def test_a_hand_computed_pair():
    losses, chosen, rejected = dpo_loss(*map(torch.tensor, ([-1.0], [-2.0], [-1.5], [-1.0])), beta=2.0)
    assert chosen.item() == pytest.approx(1.0)
    assert rejected.item() == pytest.approx(-2.0)
    assert losses.item() == pytest.approx(math.log(1 + math.exp(-3)))
    assert gradient_weights(chosen, rejected).item() == pytest.approx(1 / (1 + math.exp(3)))


@given(beta=BETAS)
def test_indexed_form_is_the_paired_form(beta):
    pi, ref = random_logps("pi", "ref", size=8)
    chosen, rejected = torch.tensor([0, 3, 3, 7]), torch.tensor([1, 2, 0, 6])
    losses, rewards = indexed_dpo_loss(pi, ref, chosen, rejected, beta)
    paired, chosen_rewards, _ = dpo_loss(pi[chosen], pi[rejected], ref[chosen], ref[rejected], beta)
    torch.testing.assert_close(losses, paired)
    torch.testing.assert_close(rewards[chosen], chosen_rewards)
    assert not rewards.requires_grad


def test_large_margins_stay_finite():
    losses, *_ = dpo_loss(*map(torch.tensor, ([-900.0], [0.0], [0.0], [-900.0])), beta=10.0)
    assert losses.item() == pytest.approx(18_000)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan, math.inf])
def test_bad_beta_is_refused(beta):
    with pytest.raises(ValueError, match="beta must be a finite number > 0"):
        implicit_rewards(torch.zeros(2), torch.zeros(2), beta)


def test_bad_shapes_and_indices_are_named():
    with pytest.raises(ValueError, match=r"policy_logps \(3,\), ref_logps \(2,\)"):
        implicit_rewards(torch.zeros(3), torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match=r"yl_idxs must lie in \[0, 2\), got 0…5"):
        indexed_dpo_loss(torch.zeros(2), torch.zeros(2), torch.tensor([0, 1]), torch.tensor([0, 5]), 1.0)
