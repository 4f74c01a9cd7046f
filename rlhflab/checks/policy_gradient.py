"""The exercise of lab 01: write REINFORCE's loss, −Σ_t log π(a_t|s_t)·G_t with returns to go."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor

from rlhflab.checks.common import Case, Exercise, Function, Verdict, drawn


def cases() -> list[Case]:
    """Two episodes of three steps by hand, then random ones.

    By hand, with γ = ½, the returns to go are (2, 2, 4) and (−1, 0, 2), so the losses are 1 + 2 + 8 and −1 + 0 + 0.5.
    """
    logps = torch.tensor([[-0.5, -1.0, -2.0], [-1.0, -3.0, -0.25]])
    rewards = torch.tensor([[1.0, 0.0, 4.0], [-1.0, -1.0, 2.0]])
    random = Random(0)
    return [
        Case((logps, rewards, 0.5)),
        *(
            Case((-drawn(random, *shape).abs(), drawn(random, *shape, scale=2.0), gamma))
            for shape, gamma in (((1, 2), 0.9), ((3, 4), 0.8), ((4, 1), 0.5))
        ),
    ]


def _to_go(rewards: Tensor, gamma: float) -> Tensor:
    steps = torch.arange(rewards.shape[1])
    return rewards @ (gamma ** (steps[:, None] - steps).clamp(min=0) * (steps[:, None] >= steps)).to(rewards)


def _from_start(rewards: Tensor, gamma: float) -> Tensor:
    return rewards * gamma ** torch.arange(rewards.shape[1])


def _weighed(weights: Callable[[Tensor, float], Tensor]) -> Function:
    return lambda logps, rewards, gamma: -(logps * weights(rewards, gamma)).sum(1)


_right = _weighed(_to_go)

MISTAKES: dict[str, Function] = {
    "the minus is missing: the return is maximised, a loss is minimised": lambda p, r, g: -_right(p, r, g),
    "mean for sum: log p(τ) is the sum over the steps": lambda p, r, g: _right(p, r, g) / r.shape[1],
    "divided by the number of episodes: keep one loss an episode, the mean comes later": lambda p, r, g: (
        _right(p, r, g) / len(r)
    ),
    "that is −Σ π·G: the gradient of log π is wanted, not of π": lambda p, r, g: _right(p.exp(), r, g),
    "the log-probabilities are logarithms already": lambda p, r, g: _right(p.abs().log(), r, g),
    "the log-probabilities are missing": lambda p, r, g: -_to_go(r, g).sum(1),
    "every step has the whole return: an action gets no credit for rewards before it": _weighed(
        lambda r, g: _from_start(r, g).sum(1, keepdim=True).expand_as(r)
    ),
    "only the reward of the step itself: later rewards are due to the action too": _weighed(lambda r, g: r),
    "nothing is discounted: a reward k steps later counts γ^k": _weighed(lambda r, g: _to_go(r, 1.0)),
    "discounted from the start of the episode, γ^t·G_t: the exact gradient of a discounted J, but late steps "
    "hardly count; G_t itself discounts from the action on": _weighed(lambda r, g: _to_go(_from_start(r, g), 1.0)),
    "the sums run forwards: the return to go is of the rewards from t on": _weighed(
        lambda r, g: _to_go(r.flip(1), g).flip(1)
    ),
    "the action's own reward is missing: G_t begins with r_t": _weighed(lambda r, g: _to_go(r, g) - r),
    "the reward of the action itself is discounted: γ^0 = 1": _weighed(lambda r, g: g * _to_go(r, g)),
    "the weights add up to one: do not divide by their sum": _weighed(
        lambda r, g: _to_go(r, g) / _to_go(r, g).sum(1, keepdim=True)
    ),
    "the episode's mean is taken off G: weigh with G_t itself": _weighed(
        lambda r, g: _to_go(r, g) - _to_go(r, g).mean(1, keepdim=True)
    ),
    "a baseline is taken off, the mean over the episodes: good in practice, here weigh with G_t itself": _weighed(
        lambda r, g: _to_go(r, g) - _to_go(r, g).mean(0)
    ),
    "a baseline is taken off, the mean over all: good in practice, here weigh with G_t itself": _weighed(
        lambda r, g: _to_go(r, g) - _to_go(r, g).mean()
    ),
}  # fmt: skip

EXERCISE = Exercise(
    ("logps", "rewards", "gamma"),
    cases,
    _right,
    MISTAKES,
    "Right: the loss, and a gradient that weighs each ∇log π with its return to go.",
    each="episode",
    learns=("logps",),
)


def check_reinforce_loss(function: Callable[..., Any]) -> Verdict:
    """Try a learner's REINFORCE loss, print what is found, and return whether it is right.

    Args:
        function: takes (logps, rewards, gamma): log π(a_t|s_t) and r_t, [episodes, time] each, and the discount;
            returns one loss an episode, [episodes].
    """
    return EXERCISE.check(function)
