"""The exercise of lab 10: how many bytes a training keeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

from rlhflab.checks.common import say

# By hand, in bytes. All of 300 weights trained: 4 + 4 + 4 + 4 bytes each. None trained, 1,000 in 16 bits: 2,000.
# QLoRA of 1,000 weights in 4 bits with 10 in adapters: 500 + 160.
CASES = (((300, 0, 32), 4800.0), ((0, 1000, 16), 2000.0), ((10, 1000, 4), 660.0))

MISTAKES: dict[str, Callable[[int, int, int], float]] = {
    "the frozen weights are given in bits, and 8 bits are a byte": lambda t, f, b: 16 * t + b * f,
    "a trained weight has four numbers: itself, its gradient, AdamW's two moments": lambda t, f, b: (
        12 * t + b * f / 8
    ),
    "AdamW's two moments of every trained weight are missing": lambda t, f, b: 8 * t + b * f / 8,
    "the weights alone are not all: a trained one has a gradient and two moments": lambda t, f, b: (
        4 * t + b * f / 8
    ),
    "frozen weights have no gradient and no moments: they need their own bits only": lambda t, f, b: (
        16 * t + (b / 8 + 12) * f
    ),
    "the frozen weights are missing": lambda t, f, b: 16.0 * t,
    "trained weights are float32 whatever the frozen ones are": lambda t, f, b: (b / 8 + 12) * t + b * f / 8,
}


def check_training_bytes(function: Callable[..., Any]) -> bool:
    """Try a learner's count of bytes, print what is found, and return whether it is right.

    Args:
        function: takes (trained, frozen, frozen_bits): how many weights are trained in float32 with AdamW, how many are
            not, and how many bits one of these has; returns the bytes of weights, gradients and moments.
    """
    return say(_verdict(function), "Right: 16 bytes a trained weight, and for a frozen one its own bits.")


def _verdict(function: Callable[..., Any]) -> str:
    found = []
    for given, _ in CASES:
        try:
            value = function(*given)
        except Exception as error:  # the learner's own code: any error is a finding
            return f"it raised {type(error).__name__}: {error}"
        if value is None:
            return "not written yet: return a number of bytes"
        if not isinstance(value, Real):
            return f"it returned a {type(value).__name__}; a number of bytes is wanted"
        found.append(float(value))
    if all(math.isclose(value, wanted) for value, (_, wanted) in zip(found, CASES, strict=True)):
        return ""
    for words, wrong in MISTAKES.items():
        if all(math.isclose(value, wrong(*given)) for value, (given, _) in zip(found, CASES, strict=True)):
            return words
    place = next(i for i, (_, wanted) in enumerate(CASES) if not math.isclose(found[i], wanted))
    (trained, frozen, bits), wanted = CASES[place]
    where = f"{trained} trained weights and {frozen} frozen ones of {bits} bits"
    return f"for {where} it gives {found[place]:g}; by hand it is {wanted:g}"
