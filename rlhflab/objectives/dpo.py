"""Direct preference optimisation: the reward is the policy's log-ratio to the reference, so no reward model is fitted.

Source: Rafailov et al. (2023), "Direct Preference Optimization", eqs. 5–7; section numbers below are the paper's.
Throughout, log π(y|x) is the sum over the answer's tokens (EOS included), never the mean.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rlhflab.objectives.checks import positive, same_shape


def implicit_rewards(policy_logps: Tensor, ref_logps: Tensor, beta: float) -> Tensor:
    """The reward for which the policy is already optimal, up to β·log Z(x): r̂ = β·(log π_θ − log π_ref).

    Args:
        policy_logps: [...], log π_θ(y|x), nats per answer.
        ref_logps: same shape, log π_ref(y|x).
        beta: KL strength > 0, usually 0.01–1.

    Returns:
        same shape; 0 where the policy equals the reference. Its mean over y ∼ π_ref is −β·KL(π_ref‖π_θ) ≤ 0.
    """
    same_shape(policy_logps=policy_logps, ref_logps=ref_logps)
    positive(beta=beta)
    return beta * (policy_logps - ref_logps)


def gradient_weights(chosen_rewards: Tensor, rejected_rewards: Tensor) -> Tensor:
    """How strongly each pair pulls: σ(r̂_l − r̂_w), high where the implicit rewards rank the pair wrongly.

    ∇L_DPO = −β·E[ weight · (∇log π_θ(y_w|x) − ∇log π_θ(y_l|x)) ]  (section 4, "What does the DPO update do?").

    Args:
        chosen_rewards: [batch], r̂(x, y_w), β included.
        rejected_rewards: [batch], r̂(x, y_l), β included.

    Returns:
        [batch], in (0, 1); ½ for every pair at π_θ = π_ref.

    >>> gradient_weights(torch.zeros(2), torch.zeros(2))
    tensor([0.5000, 0.5000])
    """
    same_shape(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards)
    return torch.sigmoid(rejected_rewards - chosen_rewards)


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """DPO loss of each pair: L = −log σ(r̂_w − r̂_l) with r̂ = β·log π_θ/π_ref (eq. 7).

    Args:
        policy_chosen_logps, policy_rejected_logps: [batch], log π_θ of y_w and y_l, nats per answer.
        ref_chosen_logps, ref_rejected_logps: [batch], the same under π_ref; no gradient is needed.
        beta: KL strength > 0, usually 0.01–1.

    Returns:
        losses: [batch], ≥ 0, ln 2 at π_θ = π_ref.
        chosen_rewards, rejected_rewards: [batch], detached implicit rewards, β included.
    """
    chosen = implicit_rewards(policy_chosen_logps, ref_chosen_logps, beta)
    rejected = implicit_rewards(policy_rejected_logps, ref_rejected_logps, beta)
    same_shape(chosen=chosen, rejected=rejected)
    return -F.logsigmoid(chosen - rejected), chosen.detach(), rejected.detach()


def indexed_dpo_loss(
    pi_logps: Tensor, ref_logps: Tensor, yw_idxs: Tensor, yl_idxs: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """DPO loss in the form of the paper's appendix B: one list of answers, pairs given by index.

    An answer may stand in several pairs, so its log-probability is computed once.

    Args:
        pi_logps: [answers], log π_θ(y|x).
        ref_logps: [answers], log π_ref(y|x).
        yw_idxs: [pairs], integer index of each pair's chosen answer.
        yl_idxs: [pairs], integer index of each pair's rejected answer.
        beta: KL strength > 0.

    Returns:
        losses: [pairs], ≥ 0.
        rewards: [answers], detached implicit rewards, β included.
    """
    same_shape(yw_idxs=yw_idxs, yl_idxs=yl_idxs)
    rewards = implicit_rewards(pi_logps, ref_logps, beta)
    for name, index in (("yw_idxs", yw_idxs), ("yl_idxs", yl_idxs)):
        if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < len(rewards)):
            raise ValueError(
                f"{name} must lie in [0, {len(rewards)}), got {int(index.min())}…{int(index.max())}"
            )
    return -F.logsigmoid(rewards[yw_idxs] - rewards[yl_idxs]), rewards.detach()
