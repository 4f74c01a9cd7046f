"""The exercise of lab 07: write the DPO loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from rlhflab.checks.common import differ, one_number_each, say

# Two pairs and β = 2. By hand: r̂_w = 2·(−1 + 1.5) = 1 and r̂_l = 2·(−2 + 1) = −2, so the first loss is ln(1 + e⁻³).
# The second pair: r̂_w = 2·(−3 + 2) = −2 and r̂_l = 2·(−1 + 1.5) = 1, so its loss is ln(1 + e³).
CASE = tuple(torch.tensor(row) for row in ([-1.0, -3.0], [-2.0, -1.0], [-1.5, -2.0], [-1.0, -1.5]))
BETA = 2.0
EXPECTED = (math.log1p(math.exp(-3.0)), math.log1p(math.exp(3.0)))

MISTAKES = {
    "the sign: −log σ(…) is wanted, not log σ(…)": lambda m, r, b: torch.nn.functional.logsigmoid(b * m),
    "chosen and rejected changed places: the chosen implicit reward comes first": lambda m, r, b: (
        -torch.nn.functional.logsigmoid(-b * m)
    ),
    "β is missing: the implicit reward is β·(log π_θ − log π_ref)": lambda m, r, b: (
        -torch.nn.functional.logsigmoid(m)
    ),
    "the reference is missing: subtract log π_ref of each answer": lambda m, r, b: (
        -torch.nn.functional.logsigmoid(b * (m + r))
    ),
    "the logarithm is missing: −log σ(…), not −σ(…)": lambda m, r, b: -torch.sigmoid(b * m),
    "σ(−…) is the pair's weight in the gradient; the loss is −log σ(…)": lambda m, r, b: torch.sigmoid(
        -b * m
    ),
}


def check_dpo_loss(function: Callable[..., Any]) -> bool:
    """Try a learner's DPO loss, print what is found, and return whether it is right.

    Args:
        function: takes (policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta), log-probabilities of
            answers [batch] and a number; returns one loss a pair, [batch].
    """
    return say(_verdict(function), "Right: on both pairs, and at the reference it is ln 2.")


def _verdict(function: Callable[..., Any]) -> str:
    losses = one_number_each(function, (*CASE, BETA), 2, "pair")
    if isinstance(losses, str):
        return losses
    if torch.allclose(losses, torch.tensor(EXPECTED), atol=1e-4):
        return ""
    policy_chosen, policy_rejected, ref_chosen, ref_rejected = CASE
    ref = ref_chosen - ref_rejected
    margin = policy_chosen - policy_rejected - ref
    for words, wrong in MISTAKES.items():
        if torch.allclose(losses, wrong(margin, ref, BETA), atol=1e-4):
            return words
    return differ(losses, EXPECTED, "β = 2 and the pairs in rlhflab.checks.dpo.CASE")
