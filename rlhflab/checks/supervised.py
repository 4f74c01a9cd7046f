"""The exercise of lab 04: write the loss of a language model on answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from rlhflab.checks.common import differ, one_number_each, say

# Three tokens. Probabilities after each position, and logits that differ from their logarithms by a constant.
PROBABILITIES = torch.tensor(
    [
        [[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.4, 0.5, 0.1]],
        [[0.1, 0.2, 0.7], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.2, 0.2, 0.6]],
    ]
)
LOGITS = PROBABILITIES.log() + 1.5
INPUT_IDS = torch.tensor([[0, 1, 2, 0, 1], [1, 2, 0, 1, 1]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 1, 1, 0]], dtype=torch.bool)
# By hand, the token at t is predicted at t − 1: first text 0.5, 0.6, 0.1; second text 0.7, 0.8 and then padding.
EXPECTED = (-math.log(0.5 * 0.6 * 0.1), -math.log(0.7 * 0.8))

_NEXT = LOGITS[:, :-1].log_softmax(-1).gather(-1, INPUT_IDS[:, 1:, None])[..., 0]
_SAME = LOGITS.log_softmax(-1).gather(-1, INPUT_IDS[..., None])[..., 0]
_RAW = LOGITS[:, :-1].gather(-1, INPUT_IDS[:, 1:, None])[..., 0]
_TOKENS = MASK.sum(1)

MISTAKES = {
    "the sign: the loss is −log π, which is not negative": (_NEXT * MASK[:, 1:]).sum(1),
    "shift by one: the logits at position t predict the token at t + 1": -(_SAME * MASK).sum(1),
    "shift by one: the mask belongs to the tokens that are predicted, mask[:, 1:]": -(
        _NEXT * MASK[:, :-1]
    ).sum(1),
    "the prompt's tokens are counted: only the answer's are wanted, use the mask": -(
        _NEXT * (MASK[:, 1:].flip(1).cumsum(1).flip(1) > 0)
    ).sum(1),
    "every token is counted, prompt and padding too: use the mask": -_NEXT.sum(1),
    "a mean over tokens: log π(y|x) is their sum": -(_NEXT * MASK[:, 1:]).sum(1) / _TOKENS,
    "a mean over all positions: log π(y|x) is a sum over the answer's tokens": -(_NEXT * MASK[:, 1:]).mean(1),
    "the softmax is missing: logits are no log-probabilities before log_softmax": -(_RAW * MASK[:, 1:]).sum(
        1
    ),
    "probabilities are summed: the sum is over their logarithms": -(_NEXT.exp() * MASK[:, 1:]).sum(1),
    "the last token is missing: the answer's end is predicted too": -(_NEXT * MASK[:, 1:])[:, :-1].sum(1),
}


def check_answer_loss(function: Callable[..., Any]) -> bool:
    """Try a learner's loss of a language model on answers, print what is found, and return whether it is right.

    Args:
        function: takes (logits, input_ids, mask): [batch, time, vocabulary], [batch, time], and [batch, time] True on
            the answers' tokens; returns −log π(y|x) of every text, [batch].
    """
    praise = "Right: the answer's tokens only, each predicted one position before, and their sum."
    return say(_verdict(function), praise)


def _verdict(function: Callable[..., Any]) -> str:
    losses = one_number_each(function, (LOGITS.clone(), INPUT_IDS.clone(), MASK.clone()), 2, "text")
    if isinstance(losses, str):
        return losses
    if torch.allclose(losses, torch.tensor(EXPECTED), atol=1e-4):
        return ""
    for words, wrong in MISTAKES.items():
        if torch.allclose(losses, wrong, atol=1e-4):
            return words
    return differ(losses, EXPECTED, "the texts in rlhflab.checks.supervised")
