"""The exercise of lab 06: write PPO's clipped loss."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor

from rlhflab.checks.common import Case, Exercise, Function, Verdict, drawn


def cases() -> list[Case]:
    """Five tokens by hand, then random ones.

    By hand, with the ratios 1.5, 1.5, 0.5, 0.5, 1.1 and ε = 0.2, −min(ratio·A, clipped ratio·A) is −min(3, 2.4),
    −min(−3, −2.4), −min(1, 1.6), −min(−1, −1.6), −min(1.1, 1.1). By log π_θ its slope is 0 where the clip holds, else
    −ratio·A: 0, 3, −1, 0, −1.1.
    """
    old_logps = torch.tensor([-2.0, -1.0, -1.5, -3.0, -2.0])
    logps = old_logps + torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1]).log()
    random = Random(0)
    found = [Case((logps, old_logps, torch.tensor([2.0, -2.0, 2.0, -2.0, 1.0]), 0.2))]
    for tokens, clip_range in ((1, 0.3), (4, 0.1), (8, 0.4)):
        old_logps = -1 - drawn(random, tokens).abs()
        logps = old_logps + drawn(random, tokens, scale=0.5)
        found.append(Case((logps, old_logps, drawn(random, tokens, scale=2.0), clip_range)))
    return found


def _of_ratio(loss: Callable[[Tensor, Tensor, float], Tensor]) -> Function:
    """The loss as a function of the ratio, the advantages and ε."""
    return lambda logps, old_logps, advantages, e: loss((logps - old_logps).exp(), advantages, e)


def _clip(ratio: Tensor, e: float) -> Tensor:
    return ratio.clamp(1 - e, 1 + e)


def _smaller(ratio: Tensor, clipped: Tensor, advantages: Tensor) -> Tensor:
    """−min(ratio·A, clipped·A), PPO's loss where the ratio is right and clipped to 1 − ε … 1 + ε."""
    return -torch.minimum(ratio * advantages, clipped * advantages)


MISTAKES: dict[str, Function] = {
    "the minus is missing: the objective is maximised, a loss is minimised": _of_ratio(
        lambda r, a, e: -_smaller(r, _clip(r, e), a)
    ),
    "max for min: it is the minimum of the two that removes the incentive to go further": _of_ratio(
        lambda r, a, e: -torch.maximum(r * a, _clip(r, e) * a)
    ),
    "the sign of the advantages: −min(ratio·A, …), and A > 0 is good": _of_ratio(
        lambda r, a, e: _smaller(r, _clip(r, e), -a)
    ),
    "the clip is on the log-ratio: take exp first, then clip to 1 ± ε": _of_ratio(
        lambda r, a, e: _smaller(r, _clip(r.log(), e), a)
    ),
    "the clip is on the log-ratio, to ± ε: take exp first, then clip to 1 ± ε": _of_ratio(
        lambda r, a, e: _smaller(r, r.log().clamp(-e, e).exp(), a)
    ),
    "the clip is to ± ε: it is to 1 − ε … 1 + ε": _of_ratio(lambda r, a, e: _smaller(r, r.clamp(-e, e), a)),
    "the clip has no lower end: it is to 1 − ε … 1 + ε": _of_ratio(lambda r, a, e: _smaller(r, r.clamp(max=1 + e), a)),
    "the clip has no upper end: it is to 1 − ε … 1 + ε": _of_ratio(lambda r, a, e: _smaller(r, r.clamp(min=1 - e), a)),
    "the clip is to 1 ± 0.2 whatever clip_range is": _of_ratio(lambda r, a, e: _smaller(r, _clip(r, 0.2), a)),
    "the ratio is upside down: π_θ/π_old = exp(logps − old_logps)": _of_ratio(
        lambda r, a, e: _smaller(1 / r, _clip(1 / r, e), a)
    ),
    "exp is missing: the ratio is exp(logps − old_logps)": _of_ratio(
        lambda r, a, e: _smaller(r.log(), _clip(r.log(), e), a)
    ),
    "the ratio is of log-probabilities: it is exp(logps − old_logps)": lambda logps, old_logps, a, e: (
        _smaller(logps / old_logps, _clip(logps / old_logps, e), a)
    ),
    "the clip is missing: this is the plain surrogate −ratio·A": _of_ratio(lambda r, a, e: -r * a),
    "the minimum is missing: a ratio on the bad side must keep its gradient": _of_ratio(
        lambda r, a, e: -_clip(r, e) * a
    ),
    "the clip is on ratio·A: clip the ratio, then multiply by A": _of_ratio(
        lambda r, a, e: -torch.minimum(r * a, _clip(r * a, e))
    ),
    "the minimum is over ratios: multiply by A first, as A < 0 reverses the order": _of_ratio(
        lambda r, a, e: -torch.minimum(r, _clip(r, e)) * a
    ),
    "the advantages are normalised: that is done before, over the whole batch": _of_ratio(
        lambda r, a, e: _smaller(r, _clip(r, e), (a - a.mean()) / (a.std(correction=min(1, len(a) - 1)) + 1e-8))
    ),
}  # fmt: skip

EXERCISE = Exercise(
    ("logps", "old_logps", "advantages", "clip_range"),
    cases,
    _of_ratio(lambda r, a, e: _smaller(r, _clip(r, e), a)),
    MISTAKES,
    "Right: the loss and its gradient, on both sides of the clip.",
    each="token",
    learns=("logps",),
)


def check_clip_loss(function: Callable[..., Any]) -> Verdict:
    """Try a learner's clipped loss, print what is found, and return whether it is right.

    Args:
        function: takes (logps, old_logps, advantages, clip_range), the log-probabilities of tokens under π_θ and π_old
            [tokens], their advantages [tokens] and a number; returns one loss a token, [tokens].
    """
    return EXERCISE.check(function)
