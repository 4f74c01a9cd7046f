"""The exercise of lab 10: how many bytes a training keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlhflab.checks.common import Case, Exercise, Function, Verdict


def cases() -> list[Case]:
    """Three by hand, then others. Bytes are whole numbers in all of them, however they are rounded.

    By hand: all of 300 weights trained, 4 + 4 + 4 + 4 bytes each; none trained, 1,000 in 16 bits, 2,000 bytes; QLoRA of
    1,000 weights in 4 bits with 10 in adapters, 500 + 160 bytes.
    """
    by_hand = ((300, 0, 32), (0, 1000, 16), (10, 1000, 4))
    return [
        Case(args)
        for args in (*by_hand, (7, 104, 8), (123, 456, 32), (1000, 1000, 16), (20_000_000, 7_000_000_000, 4))
    ]


MISTAKES: dict[str, Function] = {
    "the frozen weights are given in bits, and 8 bits are a byte": lambda t, f, b: 16 * t + b * f,
    "bits // 8 is 0 for 4 bits: multiply before dividing": lambda t, f, b: 16 * t + b // 8 * f,
    "a trained weight has four numbers: itself, its gradient, AdamW's two moments": lambda t, f, b: 12 * t + b * f / 8,
    "four numbers of four bytes each: that is 16 a trained weight": lambda t, f, b: 4 * 4 * 8 * t + b * f / 8,
    "AdamW's two moments of every trained weight are missing": lambda t, f, b: 8 * t + b * f / 8,
    "the weights alone are not enough: a trained one has a gradient and two moments": lambda t, f, b: 4 * t + b * f / 8,
    "frozen weights have no gradient and no moments: they need their own bits only": lambda t, f, b: (
        16 * t + (b / 8 + 12) * f
    ),
    "frozen weights have no gradient: they need their own bits only": lambda t, f, b: 16 * t + (b / 8 + 4) * f,
    "the frozen weights are missing": lambda t, f, b: 16.0 * t,
    "the trained weights are missing": lambda t, f, b: b * f / 8,
    "the frozen weights have bits of their own: frozen_bits": lambda t, f, b: 16 * t + 4 * f,
    "trained weights are float32 whatever the frozen ones are": lambda t, f, b: (b / 8 + 12) * t + b * f / 8,
    "gradients and moments are float32 too, whatever the frozen weights are": lambda t, f, b: b / 8 * (4 * t + f),
    "a thousandth of it: bytes are wanted, not kilobytes": lambda t, f, b: (16 * t + b * f / 8) / 1000,
    "bytes are wanted, not GB": lambda t, f, b: (16 * t + b * f / 8) / 1e9,
    "bytes are wanted, not GiB": lambda t, f, b: (16 * t + b * f / 8) / 2**30,
    "these are bits: 8 of them are a byte": lambda t, f, b: 128 * t + b * f,
}  # fmt: skip

EXERCISE = Exercise(
    ("trained", "frozen", "frozen_bits"),
    cases,
    lambda trained, frozen, bits: 16 * trained + frozen * bits / 8,
    MISTAKES,
    "Right: 16 bytes a trained weight, and for a frozen one its own bits.",
    what="number of bytes",
)


def check_training_bytes(function: Callable[..., Any]) -> Verdict:
    """Try a learner's count of bytes, print what is found, and return whether it is right.

    Args:
        function: takes (trained, frozen, frozen_bits): how many weights are trained in float32 with AdamW, how many are
            not, and how many bits one of these has; returns the bytes of weights, gradients and moments.
    """
    return EXERCISE.check(function)
