"""The check of the Bradley–Terry loss accepts right answers and names typical wrong ones."""

import pytest
import torch
import torch.nn.functional as F

from rlhflab.checks.reward import check_bradley_terry_loss
from rlhflab.objectives.preference import bradley_terry_loss, plackett_luce_loss


def test_right_answers_pass(capsys):
    assert check_bradley_terry_loss(bradley_terry_loss)
    assert check_bradley_terry_loss(lambda w, r: F.softplus(r - w))
    assert check_bradley_terry_loss(lambda w, r: plackett_luce_loss(torch.stack([w, r], 1)))
    assert capsys.readouterr().out.count("✓") == 3


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
        (lambda w, r: bradley_terry_loss(w, r).mean(), "one number"),
        (lambda w, r: None, "not written yet"),
        (lambda w, r: 0.3, "returned a float"),
        (lambda w, r: w.unsqueeze(0), "shape (1, 2)"),
        (lambda w, r: w * 7, "by hand it is"),
        (lambda w: w, "it raised TypeError"),
    ],
)
def test_wrong_answers_are_named(wrong, words, capsys):
    assert not check_bradley_terry_loss(wrong)
    out = capsys.readouterr().out
    assert out.startswith("✗") and words in out, out
