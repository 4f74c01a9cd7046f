"""The check of the answers' loss accepts right answers and names typical wrong ones."""

import pytest
import torch
import torch.nn.functional as F

from rlhflab.checks.supervised import MISTAKES, check_answer_loss


def right(logits, ids, mask):
    logps = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return -(logps * mask[:, 1:]).sum(1)


def by_cross_entropy(logits, ids, mask):
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    return losses.masked_fill(~mask[:, 1:], 0).sum(1)


def test_right_answers_pass(capsys):
    assert check_answer_loss(right) and check_answer_loss(by_cross_entropy)
    assert capsys.readouterr().out.count("✓") == 2


def test_no_two_mistakes_look_alike():
    values = torch.stack(list(MISTAKES.values()))
    assert torch.cdist(values, values).add(torch.eye(len(values))).min() > 1e-3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda z, i, m: -right(z, i, m), "the sign"),
        (lambda z, i, m: -(z.log_softmax(-1).gather(-1, i[..., None])[..., 0] * m).sum(1), "predict the token at"),
        (lambda z, i, m: right(z, i, m.roll(1, 1)), "mask[:, 1:]"),
        (lambda z, i, m: right(z, i, m | (torch.arange(5) < 2)), "the prompt's tokens are counted"),
        (lambda z, i, m: right(z, i, torch.ones_like(m)), "every token is counted"),
        (lambda z, i, m: right(z, i, m) / m.sum(1), "a mean over tokens"),
        (lambda z, i, m: right(z, i, m) / 4, "a mean over all positions"),
        (lambda z, i, m: -(z[:, :-1].gather(-1, i[:, 1:, None])[..., 0] * m[:, 1:]).sum(1), "softmax is missing"),
        (lambda z, i, m: right(z[:, :-1], i[:, :-1], m[:, :-1]), "the last token is missing"),
        (lambda z, i, m: right(z, i, m).mean(), "one number"),
        (lambda z, i, m: None, "not written yet"),
        (lambda z, i, m: right(z, i, m) * 7, "by hand it is"),
        (lambda z: z, "it raised TypeError"),
    ],
)  # fmt: skip
def test_wrong_answers_are_named(wrong, words, capsys):
    assert not check_answer_loss(wrong)
    out = capsys.readouterr().out
    assert out.startswith("✗") and words in out, out
