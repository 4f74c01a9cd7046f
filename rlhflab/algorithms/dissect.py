"""One TRPO step taken apart: the prediction of the quadratic model along the step, and the true values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rlhflab.algorithms.trpo import TRPO
from rlhflab.objectives.advantages import whiten
from rlhflab.objectives.checks import positive


class Dissection(NamedTuple):
    """A step's direction, measured along it; the step of radius δ ends at √δ.

    Attributes:
        iterations: of conjugate gradient, one direction each.
        radii: √δ of the points, from 0 upwards, the same for every direction.
        kls: [directions][points], mean KL(π_old‖π_θ), nats per token or time step;
            the prediction is the square of the radius.
        gains: [directions][points], of the surrogate.
        slopes: [directions], predicted gain per unit of the radius.
        residuals: ‖g − H·x_k‖/‖g‖, from k = 0 to the largest number of iterations.
    """

    iterations: tuple[int, ...]
    radii: tuple[float, ...]
    kls: tuple[tuple[float, ...], ...]
    gains: tuple[tuple[float, ...], ...]
    slopes: tuple[float, ...]
    residuals: tuple[float, ...]


def dissect(
    trpo: TRPO, iterations: Sequence[int] = (1, 2, 5, 10, 20), max_kl: float = 0.5, points: int = 81
) -> Dissection:
    """Collect a rollout and measure KL and gain along the step that TRPO would take; the policy is left unchanged.

    Args:
        trpo: a run that is paused; its task advances by one rollout.
        iterations: of conjugate gradient, ascending; each gives another direction.
        max_kl: the largest δ, nats per token or time step.
        points: along each direction, ≥ 2.
    """
    positive(max_kl=max_kl)
    if not iterations or min(iterations) < 1 or list(iterations) != sorted(set(iterations)):
        raise ValueError(f"iterations must be ascending and ≥ 1, got {tuple(iterations)}")
    if points < 2:
        raise ValueError(f"points must be ≥ 2, got {points}")
    knobs = trpo.knobs.snapshot()
    rollout = trpo.task.collect(knobs).rollout
    advantages = whiten(trpo.advantages(rollout, knobs).advantages, rollout.mask)
    fractions = [point / (points - 1) for point in range(points)]
    kls, gains, slopes = [], [], []
    for number in iterations:
        proposal = trpo.propose(rollout, advantages, max_kl, number)
        found = [proposal.attempt(fraction) for fraction in fractions]
        proposal.withdraw()
        gains.append(tuple(gain for gain, _ in found))
        kls.append(tuple(kl for _, kl in found))
        slopes.append(float(proposal.gradient @ proposal.step) / max_kl**0.5)
        residuals = proposal.solution.residuals
    radii = tuple(fraction * max_kl**0.5 for fraction in fractions)
    return Dissection(tuple(iterations), radii, tuple(kls), tuple(gains), tuple(slopes), residuals)
