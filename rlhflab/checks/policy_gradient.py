"""The exercise of lab 01: write REINFORCE's loss, −Σ_t log π(a_t|s_t)·G_t with returns to go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlhflab.checks.common import differ, one_number_each, say

# Two episodes of three steps, γ = ½. By hand, the returns to go are (2, 2, 4) and (−1, 0, 2).
LOGPS = torch.tensor([[-0.5, -1.0, -2.0], [-1.0, -3.0, -0.25]])
REWARDS = torch.tensor([[1.0, 0.0, 4.0], [-1.0, -1.0, 2.0]])
GAMMA = 0.5
EXPECTED = (1.0 + 2.0 + 8.0, -1.0 + 0.0 + 0.5)
SLOPES = torch.tensor([[-2.0, -2.0, -4.0], [1.0, 0.0, -2.0]])  # by log π: −G_t


def _to_go(rewards: Tensor, gamma: float) -> Tensor:
    steps = torch.arange(rewards.shape[1])
    return rewards @ (gamma ** (steps[:, None] - steps).clamp(min=0) * (steps[:, None] >= steps)).to(rewards)


def _from_start(rewards: Tensor, gamma: float) -> Tensor:
    return rewards * gamma ** torch.arange(rewards.shape[1])


Weights = Callable[[Tensor, float], Tensor]
WEIGHTS: dict[str, Weights] = {
    "every step has the whole return: what was earned before an action is no merit of it": lambda r, g: (
        _from_start(r, g).sum(1, keepdim=True).expand_as(r)
    ),
    "only the reward of the step itself: what comes later is owed to the action too": lambda r, g: r,
    "nothing is discounted: a reward k steps later counts γ^k": lambda r, g: _to_go(r, 1.0),
    "discounted from the start of the episode, γ^t·G_t: the exact gradient of a discounted J, but late steps "
    "hardly count; G_t itself discounts from the action on": lambda r, g: _to_go(_from_start(r, g), 1.0),
    "the sums run forwards: the return to go is of the rewards from t on": lambda r, g: _to_go(r.flip(1), g).flip(1),
    "the action's own reward is missing: G_t begins with r_t": lambda r, g: _to_go(r, g) - r,
    "the reward of the action itself is discounted: γ^0 = 1": lambda r, g: g * _to_go(r, g),
    "the weights add up to one: do not divide by their sum": lambda r, g: (
        _to_go(r, g) / _to_go(r, g).sum(1, keepdim=True)
    ),
}  # fmt: skip


def _loss(logps: Tensor, weights: Tensor) -> Tensor:
    return -(logps * weights).sum(1)


def check_reinforce_loss(function: Callable[..., Any]) -> bool:
    """Try a learner's REINFORCE loss, print what is found, and return whether it is right.

    Args:
        function: takes (logps, rewards, gamma): log π(a_t|s_t) and r_t, [episodes, time] each, and the discount;
            returns one loss an episode, [episodes].
    """
    return say(
        _verdict(function), "Right: the loss, and a gradient that weighs each ∇log π with its return to go."
    )


def _verdict(function: Callable[..., Any]) -> str:
    logps = LOGPS.clone().requires_grad_()
    losses = one_number_each(function, (logps, REWARDS.clone(), GAMMA), len(EXPECTED), "episode")
    if isinstance(losses, str):
        return losses
    right = _to_go(REWARDS, GAMMA)
    if torch.allclose(losses, torch.tensor(EXPECTED), atol=1e-4):
        return _verdict_on_gradient(losses, logps)
    slips = {
        "the minus is missing: the return is maximised, a loss is minimised": -_loss(LOGPS, right),
        "mean for sum: log p(τ) is the sum over the steps": _loss(LOGPS, right) / LOGPS.shape[1],
        "that is −Σ π·G: the gradient of log π is wanted, not of π": _loss(LOGPS.exp(), right),
        "the log-probabilities are missing": -right.sum(1),
        **{words: _loss(LOGPS, weights(REWARDS, GAMMA)) for words, weights in WEIGHTS.items()},
    }
    for words, wrong in slips.items():
        if torch.allclose(losses, wrong, atol=1e-4):
            return words
    return differ(losses, EXPECTED, "the episodes in rlhflab.checks.policy_gradient")


def _verdict_on_gradient(losses: Tensor, logps: Tensor) -> str:
    if not losses.requires_grad:
        return "the log-probabilities are detached: the values are right, but no gradient reaches the policy"
    (slopes,) = torch.autograd.grad(losses.sum(), logps)
    if torch.allclose(slopes, SLOPES, atol=1e-4):
        return ""
    found, wanted = ([[f"{x:.2f}" for x in row] for row in rows.tolist()] for rows in (slopes, SLOPES))
    return f"the values are right, the gradient is not: {found} instead of {wanted}"
