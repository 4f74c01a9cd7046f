"""A problem of two states and two parameters, small enough that everything about a policy is exact.

In each state one may stay or go to the other; staying in A pays 1, staying in B pays 2, going pays nothing. It is
Kakade's example (2001, "A natural policy gradient"), with a discount instead of the long-run average.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhflab.objectives.checks import positive
from rlhflab.objectives.trust_region import (
    FisherVectorProduct,
    Trial,
    backtrack,
    conjugate_gradient,
    step_scale,
)

GAMMA = 0.9
START = (0.8, 0.2)  # probabilities of beginning in A and in B
PAY = (1.0, 2.0)  # for staying there
TRIES = 10  # of the line search, each 0.8 of the one before

# logits = M·θ: the same policies, written with other parameters.
PARAMETERS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "separate": ((1.0, 0.0), (0.0, 1.0)),
    "stretched": ((1.0, 0.0), (0.0, 3.0)),
    "mixed": ((2.0, 1.0), (1.0, 2.0)),
}


class Exact(NamedTuple):
    """Exact values of a policy.

    Attributes:
        objective: [...], J: expected reward a step, discounted; from 0 to 1.84.
        visits: [..., 2], fraction of the discounted time spent in A and in B; they sum to 1.
        preference: [..., 2], Q(s, stay) − Q(s, go).
    """

    objective: Tensor
    visits: Tensor
    preference: Tensor


class Step(NamedTuple):
    """One TRPO step.

    Attributes:
        gradient: [2], of J by θ.
        natural: [2], H⁻¹·gradient.
        scale: √(2δ/xᵀHx) with x the natural gradient; 1/scale is the multiplier λ.
        plain: [2], the step along the gradient to the same ellipse: √(2δ/gᵀHg)·g.
        trials: of the line search, which decides on the exact surrogate and the exact KL.
        theta: [2], where it ends; the start where no trial was accepted.
    """

    gradient: Tensor
    natural: Tensor
    scale: float
    plain: Tensor
    trials: tuple[Trial, ...]
    theta: Tensor


def logits_of(theta: Tensor, parameters: str = "separate") -> Tensor:
    """The logits of staying in A and in B, [..., 2] in and out; `parameters` is a key of PARAMETERS."""
    return theta @ _matrix(parameters).T


def theta_of(logits: Tensor, parameters: str = "separate") -> Tensor:
    """Inverse of `logits_of`."""
    return logits @ torch.linalg.inv(_matrix(parameters)).T


def evaluate(logits: Tensor) -> Exact:
    """J, d(s) and Q(s, stay) − Q(s, go) of the policy that stays with probabilities σ(logits).

    (I − γP)·V = r,  d = (1 − γ)(I − γPᵀ)⁻¹ρ,  J = (1 − γ)·ρ·V

    Args:
        logits: [..., 2], double precision.
    """
    stay, pay = logits.sigmoid(), torch.tensor(PAY, dtype=torch.float64)
    start = torch.tensor(START, dtype=torch.float64)
    a, b = stay.unbind(-1)
    transition = torch.stack([torch.stack([a, 1 - a], -1), torch.stack([1 - b, b], -1)], -2)
    system = torch.eye(2, dtype=torch.float64) - GAMMA * transition
    values = torch.linalg.solve(system, (stay * pay).unsqueeze(-1)).squeeze(-1)
    visits = (1 - GAMMA) * torch.linalg.solve(
        system.transpose(-1, -2), start.expand_as(stay).unsqueeze(-1)
    ).squeeze(-1)
    preference = pay + GAMMA * (values - values.flip(-1))
    return Exact((1 - GAMMA) * (values * start).sum(-1), visits, preference)


def surrogate_gain(old: Tensor, new: Tensor) -> Tensor:
    """Σ_s d_old(s) Σ_a π_new(a|s)·A_old(s,a), the surrogate's gain over π_old; logits [..., 2] in, [...] out."""
    found = evaluate(old)
    return (found.visits * (new.sigmoid() - old.sigmoid()) * found.preference).sum(-1)


def mean_kl(old: Tensor, new: Tensor) -> Tensor:
    """Σ_s d_old(s)·KL(π_old(·|s)‖π_new(·|s)), nats a step; logits [..., 2] in, [...] out."""
    stay = old.sigmoid()
    of_state = stay * (logsigmoid(old) - logsigmoid(new)) + (1 - stay) * (logsigmoid(-old) - logsigmoid(-new))
    return (evaluate(old).visits.detach() * of_state).sum(-1)


def trpo_step(theta: Tensor, max_kl: float, parameters: str = "separate") -> Step:
    """TRPO's step from θ, with the same functions that train networks.

    Args:
        theta: [2], double precision.
        max_kl: δ > 0, nats a step.
        parameters: a key of PARAMETERS.
    """
    positive(max_kl=max_kl)
    theta = theta.detach().clone().requires_grad_()
    logits = logits_of(theta, parameters)
    old = logits.detach()
    (gradient,) = torch.autograd.grad(evaluate(logits).objective, theta, retain_graph=True)
    product = FisherVectorProduct(mean_kl(old, logits), [theta], damping=0.0)
    natural = conjugate_gradient(product, gradient, iterations=2, tolerance=1e-12).x
    scale = step_scale(natural, product(natural), max_kl)
    plain = step_scale(gradient, product(gradient), max_kl) * gradient

    def attempt(share: float) -> tuple[float, float]:
        new = logits_of(theta.detach() + share * scale * natural, parameters)
        return float(surrogate_gain(old, new)), float(mean_kl(old, new))

    trials = backtrack(attempt, max_kl, TRIES)
    taken = trials[-1].share if trials[-1].accepted else 0.0
    return Step(gradient, natural, scale, plain, trials, theta.detach() + taken * scale * natural)


def _matrix(parameters: str) -> Tensor:
    if parameters not in PARAMETERS:
        raise ValueError(f"parameters must be one of {', '.join(PARAMETERS)}, got {parameters!r}")
    return torch.tensor(PARAMETERS[parameters], dtype=torch.float64)
