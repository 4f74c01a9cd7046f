"""Best-of-n: draw n answers of π_ref, keep the one with the best score. No training, and exact over enumerable answers.

Source: Stiennon et al. (2020); for its KL Beirami et al. (2024), "Theoretical guarantees on the best-of-n alignment
policy".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlhflab.objectives.checks import same_shape


def best_of_n_logps(ref_logps: Tensor, scores: Tensor, n: int) -> Tensor:
    """log π_n(y|x) of the best of n answers: π_n(score = s) = F(s)ⁿ − F(s⁻)ⁿ, split among ties in proportion to π_ref.

    F is the distribution function of the score under π_ref.

    Args:
        ref_logps: [prompts, answers], log π_ref(y|x), normalised.
        scores: [prompts, answers].
        n: draws, ≥ 1; 1 is π_ref itself.

    Returns:
        [prompts, answers], −inf where the probability underflows.
    """
    same_shape(ref_logps=ref_logps, scores=scores)
    if n < 1:
        raise ValueError(f"n must be ≥ 1, got {n}")
    ordered, order = scores.sort(-1)
    reached = ref_logps.exp().gather(-1, order).cumsum(-1)
    reached = reached / reached[..., -1:]
    first = torch.searchsorted(ordered, ordered, right=False)  # where an answer's ties begin
    last = torch.searchsorted(ordered, ordered, right=True) - 1
    below = torch.where(first > 0, reached.gather(-1, (first - 1).clamp(min=0)), 0.0)
    up_to = reached.gather(-1, last)
    growth = (up_to**n - below**n) / (up_to - below).clamp(min=torch.finfo(reached.dtype).tiny)
    return ref_logps + torch.empty_like(growth).scatter_(-1, order, growth).log()


def best_of_n_kl_bound(n: int) -> float:
    """log n − (n − 1)/n, nats: the KL to π_ref if no two answers have the same score, otherwise an upper bound."""
    return math.log(n) - (n - 1) / n
