"""The exercise of lab 05: write the Bradley–Terry loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from rlhflab.checks.common import Case, Exercise, Function, Verdict, drawn


def cases() -> list[Case]:
    """Two pairs by hand, random ones, and scores far from 0.

    By hand: the differences r_w − r_l are 3 and −1, so the losses are ln(1 + e⁻³) and ln(1 + e).
    """
    random = Random(0)
    far = torch.tensor([-200.0, 200.0]), torch.tensor([0.0, 203.0])
    return [
        Case((torch.tensor([2.0, 0.5]), torch.tensor([-1.0, 1.5]))),
        *(Case((drawn(random, pairs, scale=2.0), drawn(random, pairs, scale=2.0))) for pairs in (1, 3, 5)),
        Case(far, slip="it overflows: a difference of −200 costs 200 nats (torch has logsigmoid)"),
    ]


MISTAKES: dict[str, Function] = {
    "the sign: −log σ(…) is wanted, not log σ(…)": lambda w, r: logsigmoid(w - r),
    "chosen and rejected changed places: the chosen score comes first": lambda w, r: -logsigmoid(r - w),
    "the logarithm is missing: −log σ(…), not −σ(…)": lambda w, r: -torch.sigmoid(w - r),
    "that is the probability of the choice; the loss is −log of it": lambda w, r: torch.sigmoid(w - r),
    "σ(r_l − r_w) is the pair's weight in the gradient; the loss is −log σ(r_w − r_l)": lambda w, r: (
        torch.sigmoid(r - w)
    ),
    "σ is missing: −log σ(r_w − r_l), not the bare difference": lambda w, r: r - w,
    "σ of the difference is wanted, not σ of each score": lambda w, r: logsigmoid(r) - logsigmoid(w),
    "each answer is judged alone, good or bad: only the difference of a pair's scores counts": lambda w, r: (
        -logsigmoid(w) - logsigmoid(-r)
    ),
    "the rejected score is missing: only differences count": lambda w, r: -logsigmoid(w),
    "the scores are added: only their difference counts": lambda w, r: -logsigmoid(w + r),
    "the softmax runs over the batch: each pair is compared within itself": lambda w, r: -torch.log_softmax(w - r, 0),
    "the softmax runs over the batch's chosen scores: each is compared with its rejected one": lambda w, r: (
        -torch.log_softmax(w, 0)
    ),
    "that is a hinge, max(0, 1 − …); the loss is −log σ(…)": lambda w, r: (1 - w + r).relu(),
    "log₂ gives bits; nats are wanted: the natural logarithm": lambda w, r: -logsigmoid(w - r) / math.log(2),
}  # fmt: skip

EXERCISE = Exercise(
    ("chosen_scores", "rejected_scores"),
    cases,
    lambda w, r: -logsigmoid(w - r),
    MISTAKES,
    "Right: the loss and its gradient, on all pairs, ln 2 for a tie, and no overflow far from it.",
    each="pair",
    learns=("chosen_scores", "rejected_scores"),
)


def check_bradley_terry_loss(function: Callable[..., Any]) -> Verdict:
    """Try a learner's Bradley–Terry loss, print what is found, and return whether it is right.

    Args:
        function: takes (chosen_scores, rejected_scores), [batch] each; returns one loss a pair, [batch].
    """
    return EXERCISE.check(function)
