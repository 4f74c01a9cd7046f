"""Surrogate and clip: bounds, gradients inside and outside the clip, closed-form gradients, RLHF's reward."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhflab.objectives.policy_gradient import (
    kl_shaped_rewards,
    last_step,
    ppo_clip_loss,
    reinforce_loss,
    surrogate_objective,
    value_loss,
)


def batch(seed=0, rows=5, time=4):
    generator = torch.Generator().manual_seed(seed)
    logps, old_logps, advantages = torch.randn(3, rows, time, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, time + 1, (rows, 1), generator=generator)
    return logps, old_logps, advantages, torch.arange(time) < lengths


@given(st.integers(0, 500), st.floats(0.01, 0.9))
def test_the_clipped_objective_is_a_lower_bound_of_the_surrogate(seed, clip_range):
    logps, old_logps, advantages, mask = batch(seed)
    loss, _ = ppo_clip_loss(logps, old_logps, advantages, mask, clip_range)
    assert -loss <= surrogate_objective(logps, old_logps, advantages, mask) + 1e-9


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [
        (1.3, 1.0, False),
        (1.3, -1.0, True),
        (0.7, -1.0, False),
        (0.7, 1.0, True),
        (1.1, 1.0, True),
        (1.1, -1.0, True),
    ],
)
def test_the_gradient_is_zero_outside_the_clip_on_the_favourable_side_only(ratio, advantage, moves):
    logps = torch.tensor([[ratio]]).log().requires_grad_()
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss, seen = ppo_clip_loss(logps, torch.zeros(1, 1), torch.tensor([[advantage]]), mask, 0.2)
    loss.backward()
    assert float(logps.grad) == pytest.approx(-ratio * advantage if moves else 0.0)
    assert bool(seen.clipped) is not moves


def test_at_the_old_policy_all_three_losses_have_the_policy_gradient():
    _, old_logps, advantages, mask = batch()
    gradients = []
    for loss in (
        lambda x: reinforce_loss(x, advantages, mask),
        lambda x: -surrogate_objective(x, old_logps, advantages, mask),
        lambda x: ppo_clip_loss(x, old_logps, advantages, mask, 0.2)[0],
    ):
        logps = old_logps.clone().requires_grad_()
        loss(logps).backward()
        gradients.append(logps.grad)
    assert torch.allclose(gradients[0], gradients[1]) and torch.allclose(gradients[0], gradients[2])
    assert (gradients[0][~mask] == 0).all() and (gradients[0][mask] != 0).all()


@given(st.integers(0, 1000))
def test_ratios_turn_the_old_policys_mean_into_the_new_ones(seed):
    """Over all actions, weighted with π_old: the mean of ρ is 1, that of ρ·A is E_π[A], that of k3 is KL(π_old‖π)."""
    generator = torch.Generator().manual_seed(seed)
    old, new = torch.randn(2, 5, generator=generator, dtype=torch.float64).log_softmax(-1)
    values = torch.randn(5, generator=generator, dtype=torch.float64)
    weights, one = old.exp(), torch.ones(1, 1, dtype=torch.bool)

    def mean(advantages):
        each = (
            surrogate_objective(*(x[i].view(1, 1) for x in (new, old, advantages)), one) for i in range(5)
        )
        return float(weights @ torch.stack(list(each)))

    assert mean(torch.ones(5, dtype=torch.float64)) == pytest.approx(1)
    assert mean(values) == pytest.approx(float(new.exp() @ values))
    kls = [
        ppo_clip_loss(*(x[i].view(1, 1) for x in (new, old, values)), one, 0.2)[1].kl_old_k3 for i in range(5)
    ]
    assert float(weights @ torch.stack(kls)) == pytest.approx(float(weights @ (old - new)))


def test_reinforce_on_a_two_armed_bandit_has_its_closed_form_gradient():
    """π(1) = σ(θ): ∇_θ E[r] = σ(θ)(1−σ(θ))(r₁ − r₀); rows weighted by their probability give the expectation."""
    theta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    rewards = torch.tensor([1.0, 3.0], dtype=torch.float64)
    logps = torch.stack([torch.nn.functional.logsigmoid(-theta), torch.nn.functional.logsigmoid(theta)])
    weights = logps.detach().exp()
    loss = sum(
        w * reinforce_loss(logp.view(1, 1), r.view(1, 1), torch.ones(1, 1, dtype=torch.bool))
        for w, logp, r in zip(weights, logps, rewards, strict=True)
    )
    loss.backward()
    p = float(torch.sigmoid(theta.detach()))
    assert float(theta.grad) == pytest.approx(-p * (1 - p) * 2.0)


def test_padding_changes_no_loss():
    logps, old_logps, advantages, mask = batch(1)
    wide = [torch.cat([x, torch.full((5, 3), 7.0, dtype=x.dtype)], 1) for x in (logps, old_logps, advantages)]
    wide_mask = torch.cat([mask, torch.zeros(5, 3, dtype=torch.bool)], 1)
    assert torch.equal(
        ppo_clip_loss(*wide, wide_mask, 0.2)[0], ppo_clip_loss(logps, old_logps, advantages, mask, 0.2)[0]
    )
    assert torch.allclose(
        reinforce_loss(wide[0], wide[2], wide_mask), reinforce_loss(logps, advantages, mask)
    )


def test_padding_is_neither_clipped_nor_a_divergence():
    mask, one = torch.tensor([[True, False]]), torch.ones(1, 2)
    _, seen = ppo_clip_loss(torch.tensor([[0.0, 3.0]]), torch.zeros(1, 2), one, mask, 0.2)
    assert seen.ratio.tolist() == [[1, 1]] and not seen.clipped.any() and seen.kl_old_k3 == 0


def test_the_k3_diagnostic_is_exact_kl_on_average():
    """All actions of a categorical, each as often as π_old takes it: the mean k3 is KL(π_old‖π_θ)."""
    counts = torch.tensor([5, 3, 2])
    old = (counts / 10).log().double().repeat_interleave(counts).view(1, -1)
    new = torch.tensor([0.3, 0.3, 0.4]).log().double().repeat_interleave(counts).view(1, -1)
    _, seen = ppo_clip_loss(new, old, torch.zeros_like(old), torch.ones_like(old, dtype=torch.bool), 0.2)
    exact = sum(p * torch.tensor(p / q).log() for p, q in ((0.5, 0.3), (0.3, 0.3), (0.2, 0.4)))
    assert float(seen.kl_old_k3) == pytest.approx(float(exact), abs=1e-6)


def test_shaped_rewards_sum_to_score_minus_beta_times_the_log_ratio():
    logps, ref_logps, _, mask = batch(2)
    scores = torch.arange(5.0, dtype=torch.float64)
    rewards = kl_shaped_rewards(scores, logps, ref_logps, mask, beta=0.5)
    log_ratio = ((logps - ref_logps) * mask).sum(1)
    assert torch.allclose(rewards.sum(1), scores - 0.5 * log_ratio)
    assert (rewards[~mask] == 0).all()
    only_kl = kl_shaped_rewards(scores * 0, logps, ref_logps, mask, beta=0.5)
    alone = kl_shaped_rewards(scores, logps, ref_logps, mask, beta=0.0)
    assert torch.equal(alone[last_step(mask)], scores) and (alone[~last_step(mask)] == 0).all()
    assert torch.allclose((rewards - only_kl)[last_step(mask)], scores)
    assert torch.allclose(only_kl, -0.5 * (logps - ref_logps) * mask)


def test_the_value_loss_and_its_clip_by_hand():
    values, returns = torch.tensor([[1.0, 0.0, 5.0]]), torch.tensor([[0.0, 2.0, 0.0]])
    mask = torch.tensor([[True, True, False]])
    assert value_loss(values, returns, mask) == pytest.approx(0.5 * (1 + 4) / 2)
    old = torch.tensor([[0.8, 0.5, 0.0]])  # V held at 1.0 and at 0.3: errors max(1, 1) and max(4, 1.7²)
    assert value_loss(values, returns, mask, old, 0.2) == pytest.approx(0.5 * (1 + 4) / 2)
    old = torch.tensor([[2.0, 0.5, 0.0]])  # V held at 1.8: its error 3.24 is the larger
    assert value_loss(values, returns, mask, old, 0.2) == pytest.approx(0.5 * (3.24 + 4) / 2)
    with pytest.raises(ValueError, match="old_values are needed"):
        value_loss(values, returns, mask, None, 0.2)


def test_wrong_shapes_are_named():
    logps, old_logps, advantages, mask = batch()
    with pytest.raises(ValueError, match=r"advantages \(5, 3\)"):
        ppo_clip_loss(logps, old_logps, advantages[:, 1:], mask, 0.2)
    with pytest.raises(ValueError, match=r"scores must be \[batch\] = \(5,\), got \(4,\)"):
        kl_shaped_rewards(torch.zeros(4), logps, old_logps, mask, 1.0)
