"""The check of the DPO loss accepts right answers and names typical wrong ones."""

import math

import pytest
import torch
import torch.nn.functional as F

from rlhflab.checks.dpo import EXERCISE, check_dpo_loss
from rlhflab.objectives.dpo import dpo_loss


def in_place(pw, pl, rw, rl, b):
    pw -= rw
    pl.sub_(rl)
    return F.softplus(pl.sub_(pw).mul_(b))


def as_classes(pw, pl, rw, rl, b):
    logits = b * torch.stack([pw - rw, pl - rl], 1)
    return F.cross_entropy(logits, torch.zeros(len(pw), dtype=torch.long), reduction="none")


def pair_by_pair(pw, pl, rw, rl, b):
    return torch.stack([-F.logsigmoid(b * (pw[i] - rw[i] - pl[i] + rl[i])) for i in range(len(pw))])


@pytest.mark.parametrize(
    "right",
    [
        lambda *args: dpo_loss(*args)[0],
        lambda pw, pl, rw, rl, b: torch.log1p(torch.exp(-b * (pw - rw - pl + rl))),
        lambda pw, pl, rw, rl, b: -F.logsigmoid(b * ((pw - pl) - (rw - rl))).squeeze(),
        lambda pw, pl, rw, rl, b: -F.logsigmoid(b * (pw - rw - pl + rl).double()),
        in_place,
        as_classes,
        pair_by_pair,
    ],
)
def test_right_answers_pass(right, capsys):
    assert check_dpo_loss(right) and check_dpo_loss(right)
    assert capsys.readouterr().out.count("✓") == 2


def test_the_case_by_hand():
    by_hand = [math.log1p(math.exp(-3.0)), math.log1p(math.exp(3.0))]
    assert EXERCISE.values(EXERCISE.right)[0].tolist() == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda pw, pl, rw, rl, b: F.logsigmoid(b * (pw - rw - pl + rl)), "the sign"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(b * (pl - rl - pw + rw)), "chosen and rejected changed places"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(pw - rw - pl + rl), "β is missing"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(b * (pw - pl)), "the reference is missing"),
        (lambda pw, pl, rw, rl, b: -torch.sigmoid(b * (pw - rw - pl + rl)), "the logarithm is missing"),
        (lambda pw, pl, rw, rl, b: torch.sigmoid(b * (pl - rl - pw + rw)), "weight in the gradient"),
        (lambda pw, pl, rw, rl, b: -F.log_softmax(b * (pw - rw - pl + rl), 0), "the softmax runs over the batch"),
        (lambda pw, pl, rw, rl, b: -b * F.logsigmoid(pw - rw - pl + rl), "β stands outside"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid((pw - rw - pl + rl) / b), "β divides"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(b * (pw - rw) - pl + rl), "β is a factor of both"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(b * (pw - rl) - b * (pl - rw)), "the references changed places"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(b * (pw / rw - pl / rl)), "already: subtract them"),
        (lambda pw, pl, rw, rl, b: ((pw - rw - pl + rl) - 0.5 / b) ** 2, "that is IPO's loss"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(b * (pw - rw - pl)), "the rejected answer's reference is missing"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(b * (pw - pl + rl)), "the chosen answer's reference is missing"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(b * (pw - rw)), "the rejected answer is missing"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(b * (pw - rw).exp() - b * (pl - rl).exp()), "exp is too much"),
        (lambda pw, pl, rw, rl, b: 1 - torch.sigmoid(b * (pl - rl - pw + rw)), "the probability of the choice"),
        (lambda pw, pl, rw, rl, b: b * (pl - rl - pw + rw), "σ is missing"),
        (lambda pw, pl, rw, rl, b: -torch.sigmoid(b * (pw - rw - pl + rl)).log2(), "log₂ gives bits"),
        (lambda pw, pl, rw, rl, b: torch.relu(1 - b * (pw - rw - pl + rl)), "a hinge"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(2 * (pw - rw - pl + rl)), "beta = 0.5 it gives"),  # β by hand
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(b * (pw - rw - pl.data + rl)), "reaches policy_rejected: it"),
        (lambda *args: dpo_loss(*args)[0].detach(), "no gradient reaches policy_chosen and policy_rejected"),
        (lambda *args: dpo_loss(*args), "returned a tuple"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(b * (pw - rw - pl + rl)).mean(), "one number"),
        (lambda pw, pl, rw, rl, b: None, "not written yet"),
        (lambda pw, pl, rw, rl, b: 0.3, "returned a float"),
        (lambda pw, pl, rw, rl, b: pw.unsqueeze(0), "shape (1, 2)"),
        (lambda pw, pl, rw, rl, b: pw * 7, "by hand it is"),
        (lambda pw: pw, "it raised TypeError"),
        (lambda pw: pw, "it is called with policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta"),
    ],
)  # fmt: skip
def test_wrong_answers_are_named(wrong, words, capsys):
    assert not check_dpo_loss(wrong)
    out = capsys.readouterr().out
    assert out.startswith("✗") and words in out
