"""The exact optimum of KL-regularised reward maximisation, max_π E_π[r] − β·KL(π‖π_ref), over enumerable answers.

    π*(y|x) = π_ref(y|x)·exp(r(x,y)/β) / Z(x),    Z(x) = Σ_y π_ref(y|x)·exp(r(x,y)/β),    J* = β·log Z(x).

Shapes: `ref_logps`, `rewards`, `logps` are [..., answers]; the last dimension enumerates every answer once. Use
float64: differences of 1e-9 matter. Source: Rafailov et al. (2023), eq. 4 and appendix A.1; Peters & Schaal
(2007); the token-level form is that of soft Q-learning (Haarnoja et al., 2017; Rafailov et al., 2024, "From r to Q*").
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rlhflab.objectives.checks import positive, same_shape
from rlhflab.objectives.divergence import kl_from_logps


def log_partition(ref_logps: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """log Z(x) = log Σ_y π_ref(y|x)·exp(r(x,y)/β).

    Args:
        ref_logps: [..., answers], log π_ref(y|x), normalised over the last dimension.
        rewards: [..., answers], r(x, y).
        beta: KL strength > 0.

    Returns:
        [...], nats. β·log Z(x) is J*, the best attainable objective at x.
    """
    same_shape(ref_logps=ref_logps, rewards=rewards)
    positive(beta=beta)
    return (ref_logps + rewards / beta).logsumexp(-1)


def optimal_logps(ref_logps: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """log π*(y|x) = log π_ref(y|x) + r(x,y)/β − log Z(x); shapes as in `log_partition`; returns [..., answers]."""
    log_z = log_partition(ref_logps, rewards, beta)
    return ref_logps + rewards / beta - log_z.unsqueeze(-1)


def expected_reward(logps: Tensor, rewards: Tensor) -> Tensor:
    """E_{y∼π}[r(x, y)] = Σ_y π(y|x)·r(x, y); [..., answers] twice in, [...] out."""
    same_shape(logps=logps, rewards=rewards)
    return (logps.exp() * rewards).sum(-1)


class Evaluation(NamedTuple):
    """Exact evaluation of a policy; all values are means over prompts.

    Attributes:
        reward, ref_reward: E_π[r] and E_{π_ref}[r].
        kl: KL(π‖π_ref), nats per answer.
        objective: J(π) = reward − β·kl.
        optimum: J* = β·E_x log Z(x), the largest possible `objective`.
        regret: J* − J(π) = β·KL(π‖π*) ≥ 0.
        frontier_reward: the largest reward any policy can have at this `kl`.
        efficiency: (reward − ref_reward) / (frontier_reward − ref_reward) ≤ 1; 0 for π_ref itself.
    """

    reward: float
    ref_reward: float
    kl: float
    objective: float
    optimum: float
    regret: float
    frontier_reward: float
    efficiency: float


class Frontier(NamedTuple):
    """The reward–KL frontier as points of optimal policies; all [points], means over prompts, β ascending.

    Attributes:
        beta: KL strength of each point.
        kl: KL(π*‖π_ref), nats; decreases in β.
        reward: E_{π*}[r]; decreases in β.
        objective: J* = reward − β·kl.
    """

    beta: Tensor
    kl: Tensor
    reward: Tensor
    objective: Tensor


def optimum_moments(ref_logps: Tensor, rewards: Tensor, beta: float) -> tuple[float, float, float]:
    """Return (E_{π*}[r], KL(π*‖π_ref), J*), means over prompts; J* = reward − β·kl = β·mean log Z.

    Args:
        ref_logps, rewards: [prompts, answers].
        beta: KL strength > 0.
    """
    log_z = log_partition(ref_logps, rewards, beta)
    logps = ref_logps + rewards / beta - log_z.unsqueeze(-1)
    reward = float((logps.exp() * rewards).sum(-1).mean())
    objective = beta * float(log_z.mean())
    return reward, (reward - objective) / beta, objective


def frontier(ref_logps: Tensor, rewards: Tensor, betas: Tensor) -> Frontier:
    """Trace the reward–KL frontier: the optimal policies of all `betas` ([points], ascending, > 0)."""
    points = torch.tensor(
        [optimum_moments(ref_logps, rewards, float(beta)) for beta in betas], dtype=torch.float64
    )
    return Frontier(betas.double().cpu(), points[:, 1], points[:, 0], points[:, 2])


def frontier_reward(ref_logps: Tensor, rewards: Tensor, kl: float) -> float:
    """Largest E_π[r] of any policy with mean KL(π‖π_ref) = `kl`: the reward of the π* whose KL that is.

    Lagrange duality: R(kl) = min_β (β·E_x log Z_β(x) + β·kl), found by bisection on KL(π*_β‖π_ref), which decreases in
    β. Every β gives an upper bound (weak duality), so rounding can only raise the result.

    Args:
        ref_logps, rewards: [prompts, answers]; `reward_levels` shortens them without changing the result.
        kl: nats per answer, ≥ 0, mean over prompts.

    Returns:
        the frontier's reward at that KL, at most the mean of the highest rewards.
    """
    if not kl >= 0:
        raise ValueError(f"kl must be a number ≥ 0, got {kl!r}")
    low, high = math.log(1e-4), math.log(1e7)
    objective, beta = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        beta = math.exp(middle)
        _, kl_at, objective = optimum_moments(ref_logps, rewards, beta)
        low, high = (middle, high) if kl_at > kl else (low, middle)
    return min(objective + beta * kl, float(rewards.amax(-1).mean()))


def reward_levels(ref_logps: Tensor, rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Merge answers of equal reward: Z, E_{π*}[r] and KL(π*‖π_ref) depend only on π_ref's mass per reward level.

    Args:
        ref_logps: [prompts, answers], log π_ref(y|x).
        rewards: [prompts, answers].

    Returns:
        level_logps: [prompts, levels], log of π_ref's mass on each level; −inf where a prompt has no such answer.
        levels: [prompts, levels], the distinct rewards of all prompts, ascending, the same row for every prompt.
    """
    same_shape(ref_logps=ref_logps, rewards=rewards)
    levels, index = rewards.unique(return_inverse=True)
    masses = torch.zeros(rewards.shape[0], len(levels), dtype=ref_logps.dtype, device=ref_logps.device)
    masses.scatter_add_(1, index, ref_logps.exp())
    return masses.log(), levels.to(ref_logps.dtype).expand_as(masses)


def evaluate(
    logps: Tensor,
    ref_logps: Tensor,
    rewards: Tensor,
    beta: float,
    levels: tuple[Tensor, Tensor] | None = None,
) -> Evaluation:
    """Evaluate a policy exactly.

    Args:
        logps: [prompts, answers], log π(y|x), normalised, every answer once.
        ref_logps: [prompts, answers], log π_ref(y|x).
        rewards: [prompts, answers].
        beta: KL strength > 0.
        levels: `reward_levels(ref_logps, rewards)`, if the caller has it.

    Returns:
        means over prompts; see `Evaluation`.
    """
    levels = levels or reward_levels(ref_logps, rewards)
    reward = float(expected_reward(logps, rewards).mean())
    ref_reward = float(expected_reward(*levels).mean())
    kl = max(0.0, float(kl_from_logps(logps, ref_logps).mean()))
    optimum = beta * float(log_partition(*levels, beta).mean())
    best = frontier_reward(*levels, kl)
    objective = reward - beta * kl
    gain = best - ref_reward
    return Evaluation(
        reward=reward,
        ref_reward=ref_reward,
        kl=kl,
        objective=objective,
        optimum=optimum,
        regret=optimum - objective,
        frontier_reward=best,
        efficiency=(reward - ref_reward) / gain if gain > 1e-6 else 0.0,
    )


def soft_value(ref_logps: Tensor, q_values: Tensor, beta: float) -> Tensor:
    """V*(s) = β·log Σ_a π_ref(a|s)·exp(Q*(s,a)/β), the optimal soft value of a state.

    Args:
        ref_logps: [..., actions], log π_ref(a|s).
        q_values: [..., actions], Q*(s, a): the reward where the answer ends, else V* of the next state.
        beta: KL strength > 0.

    Returns:
        [...]; at the prompt it is β·log Z(x). The advantage Q* − V* is β·log[π*(a|s)/π_ref(a|s)].
    """
    return beta * log_partition(ref_logps, q_values, beta)
