"""Kullback–Leibler divergences, exact over a finite set or estimated from samples; the names say which.

Source of the estimators: Schulman (2020), "Approximating KL divergence".
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhflab.objectives.checks import same_shape


def kl_from_logps(p_logps: Tensor, q_logps: Tensor) -> Tensor:
    """KL(p‖q) = Σ_y p(y)·(log p(y) − log q(y)) over the last dimension.

    Args:
        p_logps: [..., answers], log p, normalised.
        q_logps: [..., answers], log q, normalised; finite wherever p > 0.

    Returns:
        [...], ≥ 0, nats.
    """
    same_shape(p_logps=p_logps, q_logps=q_logps)
    p = p_logps.exp()
    return torch.where(p > 0, p * (p_logps - q_logps), 0).sum(-1)


def categorical_kl(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(p‖q) of two categorical distributions given by logits [..., actions]; returns [...], nats, ≥ 0."""
    return kl_from_logps(p_logits.log_softmax(-1), q_logits.log_softmax(-1))


def kl_k1(p_logps: Tensor, q_logps: Tensor) -> Tensor:
    """k1 = log p − log q for samples of p: unbiased for KL(p‖q), high variance, may be negative. Shapes [...]."""
    same_shape(p_logps=p_logps, q_logps=q_logps)
    return p_logps - q_logps


def kl_k2(p_logps: Tensor, q_logps: Tensor) -> Tensor:
    """k2 = ½(log p − log q)² for samples of p: biased, low variance, ≥ 0. Shapes [...]."""
    return 0.5 * kl_k1(p_logps, q_logps).square()


def kl_k3(p_logps: Tensor, q_logps: Tensor) -> Tensor:
    """k3 = ρ − 1 − log ρ with ρ = q/p, for samples of p: unbiased, ≥ 0, low variance for close p and q. Shapes [...].

    Far apart it is too low: by half a nat or more at a KL of 5, as few samples have the large ρ that dominate its mean.
    """
    log_ratio = -kl_k1(p_logps, q_logps)
    return log_ratio.expm1() - log_ratio
