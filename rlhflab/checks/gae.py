"""The exercise of lab 03: write generalised advantage estimation, with episodes that end and episodes that are cut."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor

from rlhflab.checks.common import Case, Exercise, Function, Verdict, drawn


def cases() -> list[Case]:
    """Six steps by hand, then random ones.

    By hand, one copy of an environment: an episode that ends in a state without a future, one that a time limit cuts,
    and the first step of a third, in which the stretch ends. V of the state that each step led to stands in
    `next_values`. With γ = 0.5 and λ = 0.8 the TD errors are −½, 1, −2 (nothing follows), −2, 1 (8 follows), 3; γλ is
    0.4, and the sums begin anew twice, so the advantages are −0.42, 0.2, −2, −1.6, 1, 3.
    """
    rewards = torch.tensor([1.0, 0.0, 2.0, 1.0, -1.0, 3.0])
    values, next_values = (
        torch.tensor([2.0, 1.0, 4.0, 4.0, 2.0, 2.0]),
        torch.tensor([1.0, 4.0, 6.0, 2.0, 8.0, 4.0]),
    )
    random = Random(0)
    return [
        Case((rewards, values, next_values, _flags(6, 2), _flags(6, 4), 0.5, 0.8)),
        Case((*_random_steps(random, 1), _flags(1), _flags(1), 0.9, 0.7)),
        Case((*_random_steps(random, 4), _flags(4, 3), _flags(4, 1), 0.9, 0.6)),
        Case((*_random_steps(random, 8), _flags(8, 0, 1, 5), _flags(8, 3, 7), 0.95, 0.9)),
        Case(
            (*_random_steps(random, 3), _flags(3, 1), _flags(3, 1), 0.9, 0.6),
            slip="a step can be both, when the time limit comes in a state without a future: then it has terminated",
        ),
    ]  # fmt: skip


def _flags(time: int, *steps: int) -> Tensor:
    return torch.tensor([t in steps for t in range(time)])


def _random_steps(random: Random, time: int) -> tuple[Tensor, ...]:
    """Rewards, V of the states and of those that followed."""
    return drawn(random, time), drawn(random, time, scale=3.0), drawn(random, time, scale=3.0)


Signal = Callable[..., Tensor]


def _sums(errors: Tensor, decay: float, stops: Tensor) -> Tensor:
    """A_t = δ_t + decay·A_{t+1}, begun anew where `stops`."""
    carried, sums = torch.tensor(0.0), []
    for error, stop in zip(errors.flip(0), stops.flip(0), strict=True):
        carried = error + decay * carried * ~stop
        sums.append(carried)
    return torch.stack(sums[::-1])


def _forwards(errors: Tensor, decay: float, stops: Tensor) -> Tensor:
    """The same from the past on."""
    begins = torch.cat([torch.zeros(1, dtype=torch.bool), stops[:-1]])
    return _sums(errors.flip(0), decay, begins.flip(0)).flip(0)


def _written(
    no_future: Signal = lambda terminated, truncated: terminated,
    stops: Signal = lambda terminated, truncated: terminated | truncated,
    gamma: Callable[[float, float], float] = lambda g, k: g,
    decay: Callable[[float, float], float] = lambda g, k: g * k,
    following: Signal = lambda values, next_values: next_values,
    sums: Callable[[Tensor, float, Tensor], Tensor] = _sums,
) -> Function:
    """GAE, or with one of its parts replaced."""

    def gae(
        rewards: Tensor,
        values: Tensor,
        next_values: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        g: float,
        k: float,
    ) -> Tensor:
        future = following(values, next_values) * ~no_future(terminated, truncated)
        errors = rewards + gamma(g, k) * future - values
        return sums(errors, decay(g, k), stops(terminated, truncated))

    return gae


_right = _written()

MISTAKES: dict[str, Function] = {
    "V(s') is added where the episode has terminated: nothing follows there": _written(
        no_future=lambda term, trunc: term & False
    ),
    "a time limit is treated as an end: add γ·V(s') where the episode was truncated": _written(
        no_future=lambda term, trunc: term | trunc
    ),
    "ends and cuts are swapped: V(s') counts after a truncation, not after a termination": _written(
        no_future=lambda term, trunc: trunc
    ),
    "the sum continues across a termination: the next episode's advantage flows back": _written(
        stops=lambda term, trunc: trunc
    ),
    "the sum continues across a truncation: the next episode's advantage flows back": _written(
        stops=lambda term, trunc: term
    ),
    "the sum continues across both: it begins anew wherever an episode is over": _written(
        stops=lambda term, trunc: term & False
    ),
    "V(s') is values[t + 1]: after a cut that is the next episode's first state, take next_values": _written(
        following=lambda values, next_values: torch.cat([values[1:], torch.zeros(1)])
    ),
    "V(s') is missing: δ = r + γ·V(s') − V(s)": _written(gamma=lambda g, k: 0.0),
    "V(s) is missing: δ = r + γ·V(s') − V(s)": lambda r, v, *rest: _right(r, v * 0, *rest),
    "V(s') is not discounted: δ = r + γ·V(s') − V(s)": _written(gamma=lambda g, k: 1.0),
    "γ and λ are swapped: γ discounts V(s'), and the sum decays by γλ": _written(gamma=lambda g, k: k),
    "the sum decays by λ alone: it is γλ": _written(decay=lambda g, k: k),
    "λ is missing: the sum decays by γλ": _written(decay=lambda g, k: g),
    "these are the TD errors: their sum over what follows is missing": _written(decay=lambda g, k: 0.0),
    "these are the returns, A + V: do not add the values back": lambda r, v, *rest: _right(r, v, *rest) + v,
    "the sum runs forwards: A_t takes from A_{t+1}, so begin at the last step": _written(sums=_forwards),
    "the sign of the advantages: better than V(s) expected is positive": lambda *args: -_right(*args),
    "the mean is taken off: give the advantages themselves": lambda *args: _right(*args) - _right(*args).mean(),
    "the advantages are normalised: that comes later, over the whole batch": lambda *args: _normalised(
        _right(*args), 1
    ),
    "the advantages are normalised, with the population's deviation: that comes later": lambda *args: _normalised(
        _right(*args), 0
    ),
}  # fmt: skip


def _normalised(advantages: Tensor, correction: int) -> Tensor:
    spread = advantages.std(correction=min(correction, len(advantages) - 1))
    return (advantages - advantages.mean()) / (spread + 1e-8)


EXERCISE = Exercise(
    ("rewards", "values", "next_values", "terminated", "truncated", "gamma", "gae_lambda"),
    cases,
    _right,
    MISTAKES,
    "Right: ends have no future, cuts have one, and no episode flows into another.",
    each="step",
    what="advantage",
)


def check_gae(function: Callable[..., Any]) -> Verdict:
    """Try a learner's GAE, print what is found, and return whether it is right.

    Args:
        function: takes (rewards, values, next_values, terminated, truncated, gamma, gae_lambda): r_t, V(s_t), V of the
            state that step t led to, and two bools that tell how the episode was over with it, all [time]; returns the
            advantages, [time].
    """
    return EXERCISE.check(function)
