"""Losses of policy-gradient methods: REINFORCE, the importance-weighted surrogate, PPO's clip, the value loss.

Shapes are [batch, time]; `mask` is True on the steps that count, and every mean is over those steps. `logps` are log
π(a_t|s_t) of the actions taken. Source: Williams (1992); Schulman et al. (2015), TRPO; Schulman et al. (2017), PPO.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlhflab.objectives.checks import not_negative, positive, same_shape


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the steps that count; [batch, time] twice in, scalar out. Values outside may be anything finite."""
    return (values * mask).sum() / mask.sum()


def kl_shaped_rewards(scores: Tensor, logps: Tensor, ref_logps: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Per-token reward of RLHF: −β·(log π_θ − log π_ref) on every token, and the score on the last one.

    Their sum over an answer is r(x, y) − β·log[π_θ(y|x)/π_ref(y|x)], whose mean under π_θ is J(π_θ).

    Args:
        scores: [batch], r(x, y), one per answer.
        logps: [batch, time], log π_θ of the policy that sampled.
        ref_logps: [batch, time], log π_ref of the same tokens.
        mask: [batch, time] bool, the answer's tokens: at least one per row, without gaps.
        beta: KL strength ≥ 0; with 0 only the scores remain.

    Returns:
        [batch, time], 0 outside the mask.
    """
    same_shape(logps=logps, ref_logps=ref_logps, mask=mask)
    not_negative(beta=beta)
    if scores.shape != logps.shape[:1]:
        raise ValueError(f"scores must be [batch] = ({len(logps)},), got {tuple(scores.shape)}")
    return torch.where(mask, -beta * (logps - ref_logps), 0.0) + last_step(mask) * scores.unsqueeze(1)


def last_step(mask: Tensor) -> Tensor:
    """True on the last step that counts of each row; [batch, time] bool in and out."""
    following = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    return mask & ~following


def reinforce_loss(logps: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """−mean_t A_t·log π_θ(a_t|s_t), whose gradient is minus the policy gradient at the policy that sampled.

    Args:
        logps: [batch, time], with gradient.
        advantages: [batch, time], without.
        mask: [batch, time] bool.

    Returns:
        scalar; minimised. Only its gradient has a meaning, not its value.
    """
    same_shape(logps=logps, advantages=advantages, mask=mask)
    return -masked_mean(logps * advantages, mask)


def surrogate_objective(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """L_CPI = mean_t ratio_t·A_t with ratio = π_θ/π_old (TRPO eq. 14, PPO eq. 6); scalar, maximised; shapes as above.

    Its gradient at π_θ = π_old is the policy gradient.
    """
    same_shape(logps=logps, old_logps=old_logps, advantages=advantages, mask=mask)
    return masked_mean((logps - old_logps).exp() * advantages, mask)


class ClipDiagnostics(NamedTuple):
    """The effect of a PPO update on the policy, detached.

    Attributes:
        ratio: [batch, time], π_θ/π_old of the actions taken; 1 outside the mask.
        clipped: [batch, time] bool, True where the clip cuts off the gradient.
        kl_old_k3: scalar, mean k3 estimate of KL(π_old‖π_θ) per step, nats, ≥ 0.
    """

    ratio: Tensor
    clipped: Tensor
    kl_old_k3: Tensor


def ppo_clip_loss(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, clip_range: float
) -> tuple[Tensor, ClipDiagnostics]:
    """−L_CLIP = −mean_t min(ratio_t·A_t, clip(ratio_t, 1−ε, 1+ε)·A_t)  (PPO eq. 7).

    A step whose ratio has left the clip range on the side its advantage favours has no gradient.

    Args:
        logps: [batch, time], with gradient.
        old_logps, advantages: [batch, time], without.
        mask: [batch, time] bool.
        clip_range: ε > 0, usually 0.1–0.3.

    Returns:
        loss: scalar, minimised; −loss ≤ L_CPI.
        diagnostics: see `ClipDiagnostics`.
    """
    same_shape(logps=logps, old_logps=old_logps, advantages=advantages, mask=mask)
    positive(clip_range=clip_range)
    log_ratio = (logps - old_logps).masked_fill(~mask, 0.0)
    ratio = log_ratio.exp()
    plain = ratio * advantages
    held = ratio.clamp(1 - clip_range, 1 + clip_range) * advantages
    loss = -masked_mean(torch.minimum(plain, held), mask)
    with torch.no_grad():
        kl = masked_mean(ratio - 1 - log_ratio, mask)  # k3: samples of π_old, r = π_θ/π_old
        return loss, ClipDiagnostics(ratio.detach(), (held < plain) & mask, kl)


def value_loss(
    values: Tensor,
    returns: Tensor,
    mask: Tensor,
    old_values: Tensor | None = None,
    clip_range: float | None = None,
) -> Tensor:
    """½·mean_t (V(s_t) − return_t)²; with `clip_range` the larger of it and the same for V clipped near its old value.

    The clip is that of PPO's first implementation (baselines, 2017), not of the paper.

    Args:
        values: [batch, time], with gradient.
        returns: [batch, time], without.
        mask: [batch, time] bool.
        old_values: [batch, time], V when the rollout was sampled; needed with `clip_range`.
        clip_range: largest change of V that lowers the loss, in the reward's unit.

    Returns:
        scalar ≥ 0.
    """
    same_shape(values=values, returns=returns, mask=mask)
    errors = (values - returns).square()
    if clip_range is not None:
        if old_values is None:
            raise ValueError("old_values are needed if clip_range is given")
        positive(clip_range=clip_range)
        held = old_values + (values - old_values).clamp(-clip_range, clip_range)
        errors = torch.maximum(errors, (held - returns).square())
    return 0.5 * masked_mean(errors, mask)
