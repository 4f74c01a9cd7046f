"""The count of a training's bytes: right answers pass, typical wrong ones are named."""

import numpy as np
import pytest
import torch

from rlhflab.checks.memory import check_training_bytes


def test_right_answers_pass(capsys):
    assert check_training_bytes(lambda trained, frozen, bits: 16 * trained + frozen * bits / 8)
    assert check_training_bytes(lambda trained, frozen, bits: 4 * 4 * trained + (frozen * bits) // 8)
    assert check_training_bytes(
        lambda trained, frozen, bits: np.int64(16) * trained + np.float32(frozen * bits) / 8
    )
    assert check_training_bytes(lambda trained, frozen, bits: torch.tensor(16 * trained + frozen * bits // 8))
    assert check_training_bytes(
        lambda trained, *, frozen, frozen_bits=16: trained * 16 + frozen * (frozen_bits / 8)
    )
    assert capsys.readouterr().out.count("✓") == 5


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda t, f, b: 16 * t + b * f, "8 bits are a byte"),
        (lambda t, f, b: 4 * t + 8 * t + b * f / 8, "itself, its gradient, AdamW's two moments"),
        (lambda t, f, b: 8 * t + b * f / 8, "two moments of every trained weight are missing"),
        (lambda t, f, b: 4 * t + b * f / 8, "the weights alone are not enough"),
        (lambda t, f, b: 4 * t * 32 + b * f / 8, "four numbers of four bytes each"),
        (lambda t, f, b: 16 * (t + f) - 4 * f + b * f / 8, "frozen weights have no gradient and no moments"),
        (lambda t, f, b: 16 * t + 4 * f + b * f / 8, "frozen weights have no gradient:"),
        (lambda t, f, b: b * (t + t + 2 * t + f) / 8, "gradients and moments are float32 too"),
        (lambda t, f, b: 16e-3 * t + b * f / 8e3, "not kilobytes"),
        (lambda t, f, b: 16e-9 * t + b * f / 8e9, "not GB"),
        (lambda t, f, b: 4 * 32 * t + b * f, "these are bits"),
        (lambda t, f, b: 16 * t, "the frozen weights are missing"),
        (lambda t, f, b: (b / 8 + 12) * t + b * f / 8, "trained weights are float32"),
        (lambda t, f, b: 16 * t + b // 8 * f, "multiply before dividing"),
        (lambda t, f, b: b * f / 8, "the trained weights are missing"),
        (lambda t, f, b: 16 * t + 4 * f, "bits of their own"),
        (lambda t, f, b: 16 * t + {4: 0.5, 16: 2, 32: 2}[b] * f, "frozen_bits = 8 it raised KeyError: 8"),
        (lambda t, f, b: (16 * t + b * f / 8) / 2**30, "not GiB"),
        (lambda t, f, b: t, "by hand it is 4800"),
        (lambda t, f, b: t * f, "by hand it is 4800"),  # 0, as with the trained weights missing
        (lambda t, f, b: 10**400, "it gives inf; by hand it is 4800"),
        (lambda t, f, b: [t, f], "returned a list; a number of bytes is wanted"),
        (lambda t, f, b: torch.zeros(2), "returned the shape (2,)"),
        (lambda t, f, b: None, "not written yet"),
        (lambda t, f, b: "16t", "a number of bytes is wanted"),
        (lambda t: t, "it raised TypeError"),
    ],
)
def test_wrong_answers_are_named(wrong, words, capsys):
    assert not check_training_bytes(wrong)
    out = capsys.readouterr().out
    assert out.startswith("✗") and words in out, out
