"""The exercise of lab 02: write the product of the Fisher matrix with a vector, without the matrix."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor

from rlhflab.checks.common import Case, Exercise, Function, Verdict, drawn


def cases() -> list[Case]:
    """One state by hand, and two states whose policy is not the softmax of the parameters themselves.

    By hand: three actions and logits θ with π = (0.5, 0.3, 0.2), so H = diag(π) − ππᵀ. With v = (2, 0, −1): π·v = 0.8,
    so H·v = (0.5·2 − 0.5·0.8, −0.3·0.8, −0.2 − 0.2·0.8). All logits together move no policy: H·v = 0.
    """
    theta = torch.tensor([0.5, 0.3, 0.2]).log().requires_grad_()
    kl = _kl(theta)
    twice = (
        "once it is right; asked again, as conjugate gradient asks, for v = (1, 1, 1), which moves no policy"
    )
    random = Random(0)
    parameters, weights = drawn(random, 4).requires_grad_(), drawn(random, 2, 3, 4)
    other = _kl(weights @ parameters)
    return [
        Case((kl, theta, torch.tensor([2.0, 0.0, -1.0])), "π = (0.5, 0.3, 0.2) and v = (2, 0, −1)"),
        Case((kl, theta, torch.ones(3)), "v = (1, 1, 1)", slip=twice),
        *(
            Case((other, parameters, drawn(random, 4)), f"two states, rlhflab.checks.trpo.cases()[{at}]")
            for at in (2, 3)
        ),
    ]


def _kl(logits: Tensor) -> Tensor:
    """KL(π_old‖π_θ) at π_θ = π_old, the states' mean."""
    logps = logits.log_softmax(-1)
    return (logps.detach().exp() * (logps.detach() - logps)).sum(-1).mean()


def _right(kl: Tensor, theta: Tensor, vector: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(kl, theta, create_graph=True)
    return torch.autograd.grad(gradient @ vector, theta, retain_graph=True)[0]


def _diagonal(kl: Tensor, theta: Tensor) -> Tensor:
    return torch.stack([_right(kl, theta, unit)[at] for at, unit in enumerate(torch.eye(len(theta)))])


MISTAKES: dict[str, Function] = {
    "that is 0, as ∇KL is at π_θ = π_old: differentiate the number ∇KL·v once more": lambda kl, theta, v: (
        torch.zeros_like(v)
    ),
    "that is H's diagonal times v: sum ∇KL·v to one number before the second derivative": lambda kl, theta, v: (
        _diagonal(kl, theta) * v
    ),
    "that is the sum of H's rows times v: v belongs within, ∇(∇KL·v)": lambda kl, theta, v: (
        _right(kl, theta, torch.ones_like(v)) * v
    ),
    "that is v: it seems that nothing was differentiated": lambda kl, theta, v: v,
    "the sign: H is the Hessian of +KL": lambda kl, theta, v: -_right(kl, theta, v),
    "half of it: the ½ belongs to ½·vᵀHv, not to H·v": lambda kl, theta, v: _right(kl, theta, v) / 2,
    "twice as much: H·v is one second derivative, without a factor": lambda kl, theta, v: 2 * _right(kl, theta, v),
    "that is H·v + v: the damping is added later, and is smaller": lambda kl, theta, v: _right(kl, theta, v) + v,
    "H was applied twice": lambda kl, theta, v: _right(kl, theta, _right(kl, theta, v)),
}  # fmt: skip


def _hint(given: Any) -> str:
    """Words for what is returned or raised, where the reason is known."""
    if isinstance(given, Exception) and "does not require grad" in str(given):
        return "∇KL has no graph to be differentiated again: create_graph=True in the first derivative"
    if isinstance(given, Exception) and "second time" in str(given):
        return "the graph is gone after its first use: retain_graph=True in the second derivative"
    if isinstance(given, tuple) and len(given) == 1:
        return "it returned a tuple: torch.autograd.grad gives one gradient a parameter, take the first"
    if isinstance(given, Tensor) and given.shape == ():
        return "it returned one number: vᵀHv perhaps, or ∇KL·v; its gradient by θ is wanted"
    return ""


EXERCISE = Exercise(
    ("kl", "theta", "vector"),
    cases,
    _right,
    MISTAKES,
    "Right: H·v without H, as often as conjugate gradient asks.",
    each="parameter",
    what="number",
    hint=_hint,
)


def check_fisher_product(function: Callable[..., Any]) -> Verdict:
    """Try a learner's Fisher-vector product, print what is found, and return whether it is right.

    Args:
        function: takes (kl, theta, vector): KL(π_old‖π_θ) at π_θ = π_old, a number with a graph; the parameters [n] and
            a vector [n]. Returns H·v, [n].
    """
    return EXERCISE.check(function)
