"""The exercise of lab 06: write PPO's clipped loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlhflab.checks.common import one_number_each, say

# Five tokens with their ratios π_θ/π_old, and ε = 0.2. By hand, −min(ratio·A, clipped ratio·A) is
# −min(3, 2.4), −min(−3, −2.4), −min(1, 1.6), −min(−1, −1.6), −min(1.1, 1.1).
RATIOS = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
OLD_LOGPS = torch.tensor([-2.0, -1.0, -1.5, -3.0, -2.0])
ADVANTAGES = torch.tensor([2.0, -2.0, 2.0, -2.0, 1.0])
CLIP_RANGE = 0.2
EXPECTED = torch.tensor([-2.4, 3.0, -1.0, 1.6, -1.1])
SLOPES = torch.tensor([0.0, 3.0, -1.0, 0.0, -1.1])  # by log π_θ: 0 where the clip holds, else −ratio·A


def _clip(x: Tensor, low: float = 1 - CLIP_RANGE, high: float = 1 + CLIP_RANGE) -> Tensor:
    return x.clamp(low, high)


MISTAKES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "the minus is missing: the objective is maximised, a loss is minimised": lambda r, a: torch.minimum(
        r * a, _clip(r) * a
    ),
    "max for min: the minimum of the two is what removes the reason to go on": lambda r, a: (
        -torch.maximum(r * a, _clip(r) * a)
    ),
    "the sign of the advantages: −min(ratio·A, …), and A > 0 is good": lambda r, a: torch.maximum(
        r * a, _clip(r) * a
    ),
    "the clip is on the log-ratio: take exp first, then clip to 1 ± ε": lambda r, a: (
        -torch.minimum(r * a, _clip(r.log()) * a)
    ),
    "the clip is to ± ε: it is to 1 − ε … 1 + ε": lambda r, a: (
        -torch.minimum(r * a, _clip(r, -CLIP_RANGE, CLIP_RANGE) * a)
    ),
    "the ratio is upside down: π_θ/π_old = exp(logps − old_logps)": lambda r, a: (
        -torch.minimum(a / r, _clip(1 / r) * a)
    ),
    "exp is missing: the ratio is exp(logps − old_logps)": lambda r, a: (
        -torch.minimum(r.log() * a, _clip(r.log()) * a)
    ),
    "the clip is missing: this is the plain surrogate −ratio·A": lambda r, a: -r * a,
    "the minimum is missing: a ratio on the bad side must keep its gradient": lambda r, a: -_clip(r) * a,
    "the clip is on ratio·A: clip the ratio, then multiply by A": lambda r, a: (
        -torch.minimum(r * a, _clip(r * a))
    ),
}


def check_clip_loss(function: Callable[..., Any]) -> bool:
    """Try a learner's clipped loss, print what is found, and return whether it is right.

    Args:
        function: takes (logps, old_logps, advantages, clip_range), the log-probabilities of tokens under π_θ and π_old
            [tokens], their advantages [tokens] and a number; returns one loss a token, [tokens].
    """
    return say(_verdict(function), "Right: the loss and its gradient, on both sides of the clip.")


def _verdict(function: Callable[..., Any]) -> str:
    logps = (OLD_LOGPS + RATIOS.log()).requires_grad_()
    args = (logps, OLD_LOGPS.clone(), ADVANTAGES.clone(), CLIP_RANGE)
    losses = one_number_each(function, args, len(EXPECTED), "token")
    if isinstance(losses, str):
        return losses
    if torch.allclose(losses, EXPECTED, atol=1e-4):
        return _verdict_on_gradient(losses, logps)
    for words, wrong in MISTAKES.items():
        if torch.allclose(losses, wrong(RATIOS, ADVANTAGES), atol=1e-4):
            return words
    found, wanted = ([f"{x:.2f}" for x in row.tolist()] for row in (losses, EXPECTED))
    return f"for ε = 0.2 and the tokens in rlhflab.checks.ppo it gives {found}; by hand it is {wanted}"


def _verdict_on_gradient(losses: Tensor, logps: Tensor) -> str:
    if not losses.requires_grad:
        return "the ratio is detached: the values are right, but no gradient reaches the policy"
    (slopes,) = torch.autograd.grad(losses.sum(), logps)
    if torch.allclose(slopes, SLOPES, atol=1e-4):
        return ""
    found, wanted = ([f"{x:.2f}" for x in row.tolist()] for row in (slopes, SLOPES))
    return f"the values are right, the gradient is not: {found} instead of {wanted}; is something detached?"
