"""The check of the Bradley–Terry loss accepts right answers and names typical wrong ones."""

import math

import pytest
import torch
import torch.nn.functional as F

from rlhflab.checks.reward import EXERCISE, check_bradley_terry_loss
from rlhflab.objectives.preference import bradley_terry_loss, plackett_luce_loss


def in_place(w, r):
    w -= r
    return -F.logsigmoid(w)


@pytest.mark.parametrize(
    "right",
    [
        bradley_terry_loss,
        lambda w, r: F.softplus(r - w),
        lambda w, r: plackett_luce_loss(torch.stack([w, r], 1)),
        lambda w, r: -F.logsigmoid(w - r).squeeze(),
        lambda w, r: torch.logaddexp(torch.zeros_like(w), r - w).double(),
        lambda w, r: -torch.stack([w, r]).log_softmax(0)[0],
        lambda w, r: F.binary_cross_entropy_with_logits(w - r, torch.ones_like(w), reduction="none"),
        lambda w, r: torch.stack([F.softplus(b - a) for a, b in zip(w, r, strict=True)]),
        in_place,
    ],
)
def test_right_answers_pass(right, capsys):
    assert check_bradley_terry_loss(right) and check_bradley_terry_loss(right)
    assert capsys.readouterr().out.count("✓") == 2


def test_the_case_by_hand():
    by_hand = [math.log1p(math.exp(-3.0)), math.log1p(math.e)]
    assert EXERCISE.values(EXERCISE.right)[0].tolist() == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda w, r: F.logsigmoid(w - r), "the sign"),
        (lambda w, r: -F.logsigmoid(r - w), "changed places"),
        (lambda w, r: -torch.sigmoid(w - r), "the logarithm is missing"),
        (lambda w, r: torch.sigmoid(w - r), "the probability of the choice"),
        (lambda w, r: torch.sigmoid(r - w), "weight in the gradient"),
        (lambda w, r: r - w, "σ is missing"),
        (lambda w, r: -(w.sigmoid().log() - r.sigmoid().log()), "not σ of each score"),
        (lambda w, r: -F.logsigmoid(w), "the rejected score is missing"),
        (lambda w, r: -torch.sigmoid(w - r).log2(), "nats are wanted"),
        (lambda w, r: -torch.sigmoid(w - r).log(), "it overflows"),
        (lambda w, r: (1 + (r - w).exp()).log(), "it overflows: a difference of −200 costs 200 nats"),
        (lambda w, r: -(w.exp() / (w.exp() + r.exp())).log(), "it overflows"),
        (lambda w, r: -F.logsigmoid(w) - F.logsigmoid(-r), "each answer is judged alone"),
        (lambda w, r: -F.log_softmax(w - r, 0), "the softmax runs over the batch: each pair"),
        (lambda w, r: w.logsumexp(0) - w, "the batch's chosen scores"),
        (lambda w, r: (1 + (-w - r).exp()).log(), "the scores are added"),
        (lambda w, r: torch.relu(1 - w + r), "a hinge"),
        (lambda w, r: -F.logsigmoid(w - r.mean()), "by hand it is"),
        (lambda w, r: -F.logsigmoid(w - r.detach()), "no gradient reaches rejected_scores: it was detached"),
        (lambda w, r: torch.tensor(bradley_terry_loss(w, r).tolist()), "reaches chosen_scores and rejected_scores"),
        (lambda w, r: bradley_terry_loss(w, r).mean(), "one number"),
        (lambda w, r: None, "not written yet"),
        (lambda w, r: 0.3, "returned a float"),
        (lambda w, r: w.unsqueeze(0), "shape (1, 2)"),
        (lambda w, r: w * 7, "by hand it is"),
        (lambda w: w, "it raised TypeError"),
    ],
)  # fmt: skip
def test_wrong_answers_are_named(wrong, words, capsys):
    assert not check_bradley_terry_loss(wrong)
    out = capsys.readouterr().out
    assert out.startswith("✗") and words in out, out
