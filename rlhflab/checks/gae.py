"""The exercise of lab 03: write generalised advantage estimation, with episodes that end and episodes that are cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlhflab.checks.common import differ, one_number_each, say

# Six steps of one copy of an environment: an episode that ends in a state without a future, one that a time limit cuts,
# and the first step of a third, in which the stretch ends. V of the state that each step led to stands in NEXT_VALUES.
REWARDS = torch.tensor([1.0, 0.0, 2.0, 1.0, -1.0, 3.0])
VALUES = torch.tensor([2.0, 1.0, 4.0, 4.0, 2.0, 2.0])
NEXT_VALUES = torch.tensor([1.0, 4.0, 6.0, 2.0, 8.0, 4.0])
TERMINATED = torch.tensor([False, False, True, False, False, False])
TRUNCATED = torch.tensor([False, False, False, False, True, False])
GAMMA, LAMBDA = 0.5, 0.8
# By hand, the TD errors are −½, 1, −2 (nothing follows), −2, 1 (8 follows), 3; γλ = 0.4, and the sums begin anew twice.
EXPECTED = (-0.42, 0.2, -2.0, -1.6, 1.0, 3.0)

_ENDS = TERMINATED | TRUNCATED
_NONE = torch.zeros_like(_ENDS)


def _sums(errors: Tensor, decay: float, stops: Tensor) -> Tensor:
    """A_t = δ_t + decay·A_{t+1}, begun anew where `stops`."""
    carried, sums = torch.tensor(0.0), []
    for error, stop in zip(errors.flip(0), stops.flip(0), strict=True):
        carried = error + decay * carried * ~stop
        sums.append(carried)
    return torch.stack(sums[::-1])


def _errors(no_future: Tensor, gamma: float = GAMMA, following: Tensor = NEXT_VALUES) -> Tensor:
    return REWARDS + gamma * following * ~no_future - VALUES


_RIGHT = _errors(TERMINATED)
_SHIFTED = torch.cat([VALUES[1:], torch.zeros(1)])
MISTAKES: dict[str, Tensor] = {
    "V(s') is added where the episode has terminated: nothing follows there": _sums(
        _errors(_NONE), GAMMA * LAMBDA, _ENDS
    ),
    "a time limit is taken for an end: add γ·V(s') where the episode was truncated": _sums(
        _errors(_ENDS), GAMMA * LAMBDA, _ENDS
    ),
    "ends and cuts are swapped: V(s') counts after a truncation, not after a termination": _sums(
        _errors(TRUNCATED), GAMMA * LAMBDA, _ENDS
    ),
    "the sum runs on over a termination: the next episode's advantage flows back": _sums(
        _RIGHT, GAMMA * LAMBDA, TRUNCATED
    ),
    "the sum runs on over a truncation: the next episode's advantage flows back": _sums(
        _RIGHT, GAMMA * LAMBDA, TERMINATED
    ),
    "the sum runs on over both: it begins anew wherever an episode is over": _sums(_RIGHT, GAMMA * LAMBDA, _NONE),
    "V(s') is values[t + 1]: after a cut that is the next episode's first state, take next_values": _sums(
        _errors(TERMINATED, following=_SHIFTED), GAMMA * LAMBDA, _ENDS
    ),
    "the sum decays by λ alone: it is γλ": _sums(_RIGHT, LAMBDA, _ENDS),
    "λ is missing: the sum decays by γλ": _sums(_RIGHT, GAMMA, _ENDS),
    "V(s') is not discounted: δ = r + γ·V(s') − V(s)": _sums(_errors(TERMINATED, 1.0), GAMMA * LAMBDA, _ENDS),
    "these are the TD errors: their sum over what follows is missing": _RIGHT,
    "these are the returns, A + V: do not add the values back": _sums(_RIGHT, GAMMA * LAMBDA, _ENDS) + VALUES,
    "the sum runs forwards: A_t takes from A_{t+1}, so begin at the last step": _sums(
        _RIGHT.flip(0), GAMMA * LAMBDA, torch.cat([torch.zeros(1, dtype=torch.bool), _ENDS[:-1]]).flip(0)
    ).flip(0),
    "the sign of the advantages: better than V(s) expected is positive": -_sums(_RIGHT, GAMMA * LAMBDA, _ENDS),
}  # fmt: skip


def check_gae(function: Callable[..., Any]) -> bool:
    """Try a learner's GAE, print what is found, and return whether it is right.

    Args:
        function: takes (rewards, values, next_values, terminated, truncated, gamma, gae_lambda): r_t, V(s_t), V of the
            state that step t led to, and two bools that tell how the episode was over with it, all [time]; returns the
            advantages, [time].
    """
    return say(
        _verdict(function), "Right: ends have no future, cuts have one, and no episode flows into another."
    )


def _verdict(function: Callable[..., Any]) -> str:
    columns = (REWARDS, VALUES, NEXT_VALUES, TERMINATED, TRUNCATED)
    args = (*(column.clone() for column in columns), GAMMA, LAMBDA)
    found = one_number_each(function, args, len(EXPECTED), "step", "advantage")
    if isinstance(found, str):
        return found
    found = found.detach()
    if torch.allclose(found, torch.tensor(EXPECTED), atol=1e-4):
        return ""
    for words, wrong in MISTAKES.items():
        if torch.allclose(found, wrong, atol=1e-4):
            return words
    return differ(found, EXPECTED, "γ = 0.5, λ = 0.8 and the steps in rlhflab.checks.gae")
