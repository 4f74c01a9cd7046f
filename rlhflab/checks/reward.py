"""The exercise of lab 05: write the Bradley–Terry loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from rlhflab.checks.common import differ, one_number_each, say

# By hand: the differences r_w − r_l are 3 and −1, so the losses are ln(1 + e⁻³) and ln(1 + e).
CASE = (torch.tensor([2.0, 0.5]), torch.tensor([-1.0, 1.5]))
EXPECTED = (math.log1p(math.exp(-3.0)), math.log1p(math.e))

MISTAKES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "the sign: −log σ(…) is wanted, not log σ(…)": lambda w, r: F.logsigmoid(w - r),
    "chosen and rejected changed places: the chosen score comes first": lambda w, r: -F.logsigmoid(r - w),
    "the logarithm is missing: −log σ(…), not −σ(…)": lambda w, r: -torch.sigmoid(w - r),
    "that is the probability of the choice; the loss is −log of it": lambda w, r: torch.sigmoid(w - r),
    "σ(r_l − r_w) is the pair's weight in the gradient; the loss is −log σ(r_w − r_l)": lambda w, r: (
        torch.sigmoid(r - w)
    ),
    "σ is missing: −log σ(r_w − r_l), not the bare difference": lambda w, r: r - w,
    "σ of the difference is wanted, not σ of each score": lambda w, r: F.logsigmoid(r) - F.logsigmoid(w),
    "the rejected score is missing: only differences count": lambda w, r: -F.logsigmoid(w),
    "log₂ gives bits; nats are wanted: the natural logarithm": lambda w, r: -F.logsigmoid(w - r) / math.log(2),
}  # fmt: skip


def check_bradley_terry_loss(function: Callable[..., Any]) -> bool:
    """Try a learner's Bradley–Terry loss, print what is found, and return whether it is right.

    Args:
        function: takes (chosen_scores, rejected_scores), [batch] each; returns one loss a pair, [batch].
    """
    return say(_verdict(function), "Right: on both pairs, ln 2 for a tie, and no overflow far from it.")


def _verdict(function: Callable[..., Any]) -> str:
    losses = one_number_each(function, CASE, 2, "pair")
    if isinstance(losses, str):
        return losses
    if not torch.allclose(losses, torch.tensor(EXPECTED), atol=1e-4):
        for words, wrong in MISTAKES.items():
            if torch.allclose(losses, wrong(*CASE), atol=1e-4):
                return words
        return differ(losses, EXPECTED, "the pairs in rlhflab.checks.reward.CASE")
    (far,) = function(torch.tensor([-200.0]), torch.tensor([0.0])).tolist()
    if not math.isclose(far, 200.0, rel_tol=1e-4):
        return f"it overflows: a difference of −200 costs 200 nats, not {far}; torch has logsigmoid"
    return ""
