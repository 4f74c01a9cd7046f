"""The exercise of lab 04: write the loss of a language model on answers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor

from rlhflab.checks.common import Case, Exercise, Function, Verdict, drawn


def cases() -> list[Case]:
    """Two texts of three words by hand, then random ones.

    By hand, the token at t is predicted at t − 1, where the probabilities of the answers' tokens are 0.5, 0.6, 0.1 in
    the first text, and 0.7, 0.8 in the second, which ends with padding. The losses are −log of their products. The
    logits differ from the probabilities' logarithms by a constant.
    """
    probabilities = [
        [[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.4, 0.5, 0.1]],
        [[0.1, 0.2, 0.7], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.2, 0.2, 0.6]],
    ]
    input_ids = torch.tensor([[0, 1, 2, 0, 1], [1, 2, 0, 1, 1]])
    random = Random(0)
    return [
        Case((torch.tensor(probabilities).log() + 1.5, input_ids, _mask(5, (2, 5), (2, 4)))),
        _random_case(random, 4, _mask(4, (1, 4))),
        _random_case(random, 6, _mask(7, (2, 5), (3, 7), (1, 3), (4, 5))),
    ]


def _mask(time: int, *answers: tuple[int, int]) -> Tensor:
    """True from each answer's first token up to its end, [texts, time]."""
    return torch.tensor([[start <= t < end for t in range(time)] for start, end in answers])


def _random_case(random: Random, words: int, mask: Tensor) -> Case:
    ids = [[random.randrange(words) for _ in row] for row in mask]
    return Case((drawn(random, *mask.shape, words), torch.tensor(ids), mask))


def _predicted(logits: Tensor, input_ids: Tensor) -> Tensor:
    """What position t says of the token at t + 1, [batch, time − 1]."""
    return logits[:, :-1].gather(-1, input_ids[:, 1:, None])[..., 0]


def _logps(logits: Tensor, input_ids: Tensor) -> Tensor:
    return _predicted(logits.log_softmax(-1), input_ids)


def _right(logits: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
    return -(_logps(logits, input_ids) * mask[:, 1:]).sum(1)


def _up_to_the_end(mask: Tensor) -> Tensor:
    return mask.flip(1).cumsum(1).flip(1) > 0


MISTAKES: dict[str, Function] = {
    "the sign: the loss is −log π, which is not negative": lambda z, i, m: -_right(z, i, m),
    "shift by one: the logits at position t predict the token at t + 1": lambda z, i, m: (
        -(z.log_softmax(-1).gather(-1, i[..., None])[..., 0] * m).sum(1)
    ),
    "shift by one: the mask belongs to the tokens that are predicted, mask[:, 1:]": lambda z, i, m: (
        -(_logps(z, i) * m[:, :-1]).sum(1)
    ),
    "the shift runs backwards: the logits at position t predict the token at t + 1": lambda z, i, m: (
        -(z[:, 1:].log_softmax(-1).gather(-1, i[:, :-1, None])[..., 0] * m[:, :-1]).sum(1)
    ),
    "the prompt's tokens are counted: only the answer's are wanted, use the mask": lambda z, i, m: (
        _right(z, i, _up_to_the_end(m))
    ),
    "the padding is counted: only the answer's tokens are wanted, use the mask": lambda z, i, m: (
        _right(z, i, m.cumsum(1) > 0)
    ),
    "every token is counted, prompt and padding too: use the mask": lambda z, i, m: -_logps(z, i).sum(1),
    "the mask is upside down: it is True on the answer's tokens": lambda z, i, m: _right(z, i, ~m),
    "a mean over tokens: log π(y|x) is their sum": lambda z, i, m: _right(z, i, m) / m.sum(1),
    "a mean over all positions: log π(y|x) is a sum over the answer's tokens": lambda z, i, m: (
        _right(z, i, m) / (m.shape[1] - 1)
    ),
    "divided by the tokens of the whole batch: log π(y|x) is a sum": lambda z, i, m: _right(z, i, m) / m.sum(),
    "divided by the number of texts: keep one loss a text, the mean comes later": lambda z, i, m: (
        _right(z, i, m) / len(m)
    ),
    "the softmax is missing: logits are not log-probabilities before log_softmax": lambda z, i, m: (
        -(_predicted(z, i) * m[:, 1:]).sum(1)
    ),
    "the softmax runs over time: it is over the vocabulary, the last dimension": lambda z, i, m: (
        -(_predicted(z.log_softmax(1), i) * m[:, 1:]).sum(1)
    ),
    "probabilities are summed: the sum is over their logarithms": lambda z, i, m: (
        -(_logps(z, i).exp() * m[:, 1:]).sum(1)
    ),
    "the likeliest token is taken: it is the text's own, input_ids": lambda z, i, m: (
        -(z[:, :-1].log_softmax(-1).amax(-1) * m[:, 1:]).sum(1)
    ),
    "the last token is missing: the answer's end is predicted too": lambda z, i, m: _right(
        z[:, :-1], i[:, :-1], m[:, :-1]
    ),
    "the answer's end is missing: its last token is predicted too": lambda z, i, m: _right(
        z, i, m & torch.cat([m[:, 1:], ~m[:, :1] & False], 1)
    ),
    "the answer's first token is missing: the prompt's last position predicts it": lambda z, i, m: _right(
        z, i, m & m.roll(1, 1)
    ),
}  # fmt: skip

EXERCISE = Exercise(
    ("logits", "input_ids", "mask"),
    cases,
    _right,
    MISTAKES,
    "Right: the answer's tokens only, each predicted one position before, and their sum.",
    each="text",
    learns=("logits",),
)


def check_answer_loss(function: Callable[..., Any]) -> Verdict:
    """Try a learner's loss of a language model on answers, print what is found, and return whether it is right.

    Args:
        function: takes (logits, input_ids, mask): [batch, time, vocabulary], [batch, time], and [batch, time] True on
            the answers' tokens; returns −log π(y|x) of every text, [batch].
    """
    return EXERCISE.check(function)
