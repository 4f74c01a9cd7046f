"""The trust-region step: conjugate gradient on Fisher-vector products, the step's length, a backtracking line search.

    maximise  g·x   subject to   ½·xᵀHx ≤ δ          x* = √(2δ / gᵀH⁻¹g) · H⁻¹g

with g the gradient of the surrogate and H the Fisher matrix, the Hessian of KL(π_old‖π_θ) at π_θ = π_old. H is never
built. Source: Schulman et al. (2015), "Trust region policy optimization", section 6 and appendix C.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rlhflab.objectives.checks import positive


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """One vector of all entries, in order."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


class FisherVectorProduct:
    """v ↦ (H + damping·I)·v by double backward: H·v = ∇(∇KL·v); one graph of ∇KL serves all products.

    Args:
        kl: scalar KL(π_old‖π_θ) at π_θ = π_old, with a graph that can be differentiated twice.
        parameters: θ.
        damping: ≥ 0, usually 1e-3 to 0.1; it makes the matrix positive definite and shortens the step in directions
            that the sampled states say nothing about.
    """

    def __init__(self, kl: Tensor, parameters: Sequence[Tensor], damping: float = 1e-2) -> None:
        if not damping >= 0:
            raise ValueError(f"damping must be ≥ 0, got {damping!r}")
        self._parameters, self._damping = list(parameters), damping
        gradient = torch.autograd.grad(kl, self._parameters, create_graph=True, allow_unused=True)
        self._used = [g is not None for g in gradient]
        self._gradient = [g for g in gradient if g is not None]

    def __call__(self, vector: Tensor) -> Tensor:
        """[n] in, [n] out."""
        parts = vector.split([p.numel() for p in self._parameters])
        chosen = [
            part.view_as(p) for part, p, used in zip(parts, self._parameters, self._used, strict=True) if used
        ]
        product = torch.autograd.grad(
            self._gradient, self._parameters, grad_outputs=chosen, retain_graph=True, allow_unused=True
        )
        rows = [
            torch.zeros_like(p) if h is None else h for h, p in zip(product, self._parameters, strict=True)
        ]
        return flatten(rows).detach() + self._damping * vector


class GradientPreconditioner:
    """An estimate of the Fisher matrix's diagonal, up to a factor, from gradients that are computed anyway.

    The sampled gradient of the surrogate is mostly noise, and the noise's variance in a parameter is related to its
    Fisher information; so a running mean of g² separates parameters that move π a lot from those that hardly do. It
    starts uniform. The power 3/4 is that of Martens (2010), "Deep learning via Hessian-free optimization", section 4.7.

    Attributes:
        squares: [n], the running mean of g²; None before the first gradient.
    """

    def __init__(self, decay: float = 0.9, power: float = 0.75, floor: float = 0.01) -> None:
        self.decay, self.power, self.floor = decay, power, floor
        self.squares: Tensor | None = None

    def __call__(self, gradient: Tensor) -> Tensor:
        """Add g, [n], to the running mean and return the diagonal, [n], positive with mean 1 before the power."""
        square = gradient.square()
        former = torch.full_like(square, float(square.mean())) if self.squares is None else self.squares
        self.squares = former + (1 - self.decay) * (square - former)
        mean = float(self.squares.mean())
        relative = self.squares / mean if mean > 0 else torch.ones_like(gradient)
        return ((relative + self.floor) / (1 + self.floor)) ** self.power


class Solution(NamedTuple):
    """Result of `conjugate_gradient`.

    Attributes:
        x: [n], approximate solution of H·x = b.
        residuals: ‖b − H·x_k‖/‖b‖ before the first and after every iteration.
    """

    x: Tensor
    residuals: tuple[float, ...]


def conjugate_gradient(
    product: Callable[[Tensor], Tensor],
    b: Tensor,
    iterations: int = 10,
    tolerance: float = 1e-5,
    preconditioner: Tensor | None = None,
) -> Solution:
    """Solve H·x = b for a symmetric positive definite H known by its products (Hestenes & Stiefel, 1952).

    Args:
        product: v ↦ H·v.
        b: [n].
        iterations: most products; n of them would solve it exactly, up to rounding.
        tolerance: stop when the residual has fallen to this fraction of ‖b‖.
        preconditioner: [n], positive; an estimate of H's diagonal. The solution is the same, but needs fewer products;
            the residuals may rise on the way.

    Returns:
        x and the residuals; x = 0 where b = 0.

    >>> H = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    >>> conjugate_gradient(lambda v: H @ v, torch.tensor([1.0, 2.0]), iterations=2).x
    tensor([0.2000, 0.6000])
    """
    x, residual = torch.zeros_like(b), b.clone()
    scale = float(b.norm())
    if scale == 0:
        return Solution(x, (0.0,))
    scaled = residual if preconditioner is None else residual / preconditioner
    direction, square = scaled.clone(), float(residual @ scaled)
    residuals = [1.0]
    for _ in range(iterations):
        image = product(direction)
        curvature = float(direction @ image)
        if not curvature > 0:  # rounding, or a matrix that is not positive definite
            break
        step = square / curvature
        x += step * direction
        residual -= step * image
        residuals.append(float(residual.norm()) / scale)
        if residuals[-1] < tolerance:
            break
        scaled = residual if preconditioner is None else residual / preconditioner
        former, square = square, float(residual @ scaled)
        direction = scaled + square / former * direction
    return Solution(x, tuple(residuals))


def step_scale(x: Tensor, hx: Tensor, max_kl: float) -> float:
    """√(2δ/xᵀHx): the factor by which the direction x reaches the border of the quadratic trust region.

    Args:
        x: [n], direction, usually H⁻¹g.
        hx: [n], H·x.
        max_kl: δ > 0, nats per step, usually 0.001–0.05.

    Returns:
        factor ≥ 0; 0 where x is 0.
    """
    positive(max_kl=max_kl)
    curvature = float(x @ hx)
    return (2 * max_kl / curvature) ** 0.5 if curvature > 0 else 0.0


class Trial(NamedTuple):
    """One try of the line search.

    Attributes:
        share: fraction of the full step.
        gain: surrogate there minus surrogate at π_old.
        kl: mean KL(π_old‖π_θ) there, nats per step.
        accepted: whether both conditions held.
    """

    share: float
    gain: float
    kl: float
    accepted: bool


def backtrack(
    attempt: Callable[[float], tuple[float, float]], max_kl: float, tries: int = 10, factor: float = 0.8
) -> tuple[Trial, ...]:
    """Try the fractions 1, factor, factor², … of the full step; stop at the first with gain > 0 and KL ≤ δ.

    Args:
        attempt: fraction → (surrogate gain, mean KL) of the policy there; it leaves the policy there.
        max_kl: δ > 0.
        tries: at most this many.
        factor: in (0, 1); 0.8 is Spinning Up's, 0.5 the first implementation's.

    Returns:
        all trials; if none is accepted, the caller must restore the policy.
    """
    positive(max_kl=max_kl)
    if not 0 < factor < 1:
        raise ValueError(f"factor must be in (0, 1), got {factor!r}")
    trials = []
    for number in range(tries):
        gain, kl = attempt(factor**number)
        trials.append(Trial(factor**number, gain, kl, gain > 0 and kl <= max_kl))
        if trials[-1].accepted:
            break
    return tuple(trials)
