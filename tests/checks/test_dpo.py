"""The check of the DPO loss accepts right answers and names typical wrong ones."""

import pytest
import torch
import torch.nn.functional as F

from rlhflab.checks.dpo import check_dpo_loss
from rlhflab.objectives.dpo import dpo_loss


def test_right_answers_pass(capsys):
    assert check_dpo_loss(lambda *args: dpo_loss(*args)[0])
    assert check_dpo_loss(lambda pw, pl, rw, rl, b: torch.log1p(torch.exp(-b * (pw - rw - pl + rl))))
    assert capsys.readouterr().out.count("✓") == 2


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda pw, pl, rw, rl, b: F.logsigmoid(b * (pw - rw - pl + rl)), "the sign"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(b * (pl - rl - pw + rw)), "changed places"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(pw - rw - pl + rl), "β is missing"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(b * (pw - pl)), "the reference is missing"),
        (lambda pw, pl, rw, rl, b: -torch.sigmoid(b * (pw - rw - pl + rl)), "the logarithm is missing"),
        (lambda pw, pl, rw, rl, b: torch.sigmoid(b * (pl - rl - pw + rw)), "weight in the gradient"),
        (lambda pw, pl, rw, rl, b: -F.logsigmoid(b * (pw - rw - pl + rl)).mean(), "one number"),
        (lambda pw, pl, rw, rl, b: None, "not written yet"),
        (lambda pw, pl, rw, rl, b: 0.3, "returned a float"),
        (lambda pw, pl, rw, rl, b: pw.unsqueeze(0), "shape (1, 2)"),
        (lambda pw, pl, rw, rl, b: pw * 7, "by hand it is"),
        (lambda pw: pw, "it raised TypeError"),
    ],
)
def test_wrong_answers_are_named(wrong, words, capsys):
    assert not check_dpo_loss(wrong)
    out = capsys.readouterr().out
    assert out.startswith("✗") and words in out
