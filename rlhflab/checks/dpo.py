"""The exercise of lab 07: write the DPO loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhflab.checks.common import Case, Exercise, Function, Verdict, drawn


def cases() -> list[Case]:
    """Two pairs by hand, then random ones.

    By hand, with β = 2: r̂_w = 2·(−1 + 1.5) = 1 and r̂_l = 2·(−2 + 1) = −2, so the first loss is ln(1 + e⁻³). The second
    pair: r̂_w = 2·(−3 + 2) = −2 and r̂_l = 2·(−1 + 1.5) = 1, so its loss is ln(1 + e³).
    """
    hand = ([-1.0, -3.0], [-2.0, -1.0], [-1.5, -2.0], [-1.0, -1.5])
    random = Random(0)
    return [
        Case((*map(torch.tensor, hand), 2.0)),
        *(
            Case((*(-drawn(random, pairs, scale=3.0).abs() for _ in range(4)), beta))
            for pairs, beta in ((1, 0.5), (3, 0.1), (5, 0.8))
        ),
    ]


def _of_margin(loss: Callable[[Tensor, float], Tensor]) -> Function:
    """The loss as a function of the difference of log-ratios and β."""
    return lambda pw, pl, rw, rl, b: loss((pw - rw) - (pl - rl), b)


MISTAKES: dict[str, Function] = {
    "the sign: −log σ(…) is wanted, not log σ(…)": _of_margin(lambda m, b: logsigmoid(b * m)),
    "chosen and rejected changed places: the chosen implicit reward comes first": _of_margin(
        lambda m, b: -logsigmoid(-b * m)
    ),
    "β is missing: the implicit reward is β·(log π_θ − log π_ref)": _of_margin(lambda m, b: -logsigmoid(m)),
    "β stands outside: it belongs to the implicit rewards, within σ": _of_margin(lambda m, b: -b * logsigmoid(m)),
    "β divides: the implicit reward is β times the log-ratio": _of_margin(lambda m, b: -logsigmoid(m / b)),
    "β is a factor of both implicit rewards, the rejected one's too": lambda pw, pl, rw, rl, b: (
        -logsigmoid(b * (pw - rw) - (pl - rl))
    ),
    "the reference is missing: subtract log π_ref of each answer": lambda pw, pl, rw, rl, b: -logsigmoid(b * (pw - pl)),
    "the rejected answer's reference is missing": lambda pw, pl, rw, rl, b: -logsigmoid(b * (pw - rw - pl)),
    "the chosen answer's reference is missing": lambda pw, pl, rw, rl, b: -logsigmoid(b * (pw - pl + rl)),
    "the references changed places, or their signs: log π_ref of each answer is subtracted": lambda pw, pl, rw, rl, b: (
        -logsigmoid(b * (pw + rw - pl - rl))
    ),
    "the rejected answer is missing: a pair is a difference of two implicit rewards": lambda pw, pl, rw, rl, b: (
        -logsigmoid(b * (pw - rw))
    ),
    "these are log-probabilities already: subtract them, do not divide": lambda pw, pl, rw, rl, b: (
        -logsigmoid(b * (pw / rw - pl / rl))
    ),
    "exp is too much: the implicit reward is a difference of logarithms": lambda pw, pl, rw, rl, b: (
        -logsigmoid(b * ((pw - rw).exp() - (pl - rl).exp()))
    ),
    "the logarithm is missing: −log σ(…), not −σ(…)": _of_margin(lambda m, b: -torch.sigmoid(b * m)),
    "that is the probability of the choice; the loss is −log of it": _of_margin(lambda m, b: torch.sigmoid(b * m)),
    "σ(−…) is the pair's weight in the gradient; the loss is −log σ(…)": _of_margin(lambda m, b: torch.sigmoid(-b * m)),
    "σ is missing: −log σ(…), not the bare difference": _of_margin(lambda m, b: -b * m),
    "the softmax runs over the batch: each pair is compared within itself": _of_margin(
        lambda m, b: -torch.log_softmax(b * m, 0)
    ),
    "that is a hinge, max(0, 1 − …); the loss is −log σ(…)": _of_margin(lambda m, b: (1 - b * m).relu()),
    "that is IPO's loss; DPO's is −log σ(…)": _of_margin(lambda m, b: (m - 1 / (2 * b)) ** 2),
    "log₂ gives bits; nats are wanted: the natural logarithm": _of_margin(
        lambda m, b: -logsigmoid(b * m) / math.log(2)
    ),
}  # fmt: skip

EXERCISE = Exercise(
    ("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected", "beta"),
    cases,
    _of_margin(lambda m, b: -logsigmoid(b * m)),
    MISTAKES,
    "Right: the loss and its gradient, on all pairs, and at the reference it is ln 2.",
    each="pair",
    learns=("policy_chosen", "policy_rejected"),
)


def check_dpo_loss(function: Callable[..., Any]) -> Verdict:
    """Try a learner's DPO loss, print what is found, and return whether it is right.

    Args:
        function: takes (policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta), log-probabilities of
            answers [batch] and a number; returns one loss a pair, [batch].
    """
    return EXERCISE.check(function)
