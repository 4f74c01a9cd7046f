"""The check of the answers' loss accepts right answers and names typical wrong ones."""

import math

import pytest
import torch
import torch.nn.functional as F

from rlhflab.checks.supervised import EXERCISE, check_answer_loss


def right(logits, ids, mask, spread=lambda x: x.log_softmax(-1)):
    logps = spread(logits)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    return -(logps * mask[:, 1:]).sum(1)


def by_cross_entropy(logits, ids, mask):
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    return losses.masked_fill(~mask[:, 1:], 0).sum(1)


def by_labels(logits, input_ids, mask):
    input_ids[~mask] = -100  # in place
    losses = F.cross_entropy(logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten(), reduction="none")
    return losses.view(len(mask), -1).sum(1).double()


def in_place(logits, ids, mask):
    logits -= logits.detach().amax(-1, keepdim=True)
    mask[:, 0] = False
    logits = logits - logits.logsumexp(-1, keepdim=True)
    return -torch.einsum(
        "btv,btv,bt->b", logits[:, :-1], F.one_hot(ids, logits.shape[-1])[:, 1:].float(), mask[:, 1:].float()
    )


def rolled(logits, ids, mask):
    logps = logits.log_softmax(-1).gather(-1, ids.roll(-1, 1).unsqueeze(-1)).squeeze(-1)
    return -torch.where(mask.roll(-1, 1), logps, 0).sum(-1)


def backwards(logits, ids, mask):
    logps = [
        z[1:].log_softmax(-1)[torch.arange(len(row) - 1), row[:-1]]
        for z, row in zip(logits, ids, strict=True)
    ]
    return -(torch.stack(logps) * mask[:, :-1]).sum(1)


def token_by_token(logits, input_ids, mask):
    losses = []
    for z, ids, m in zip(logits, input_ids, mask, strict=True):
        losses.append(-sum(z[t - 1].log_softmax(0)[ids[t]] for t in range(1, len(ids)) if m[t]))
    return torch.stack(losses)


@pytest.mark.parametrize("answer", [right, by_cross_entropy, by_labels, in_place, rolled, token_by_token])
def test_right_answers_pass(answer, capsys):
    assert check_answer_loss(answer) and check_answer_loss(answer)
    assert capsys.readouterr().out.count("✓") == 2


def test_the_case_by_hand():
    by_hand = [-math.log(0.5 * 0.6 * 0.1), -math.log(0.7 * 0.8)]
    assert EXERCISE.values(EXERCISE.right)[0].tolist() == pytest.approx(by_hand)


def first_token_left_out(z, i, m):
    return right(z, i, m & (m.cumsum(1) > 1))


def end_left_out(z, i, m):
    return right(z, i, m & (m.cumsum(1) < m.sum(1, keepdim=True)))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda z, i, m: -right(z, i, m), "the sign"),
        (lambda z, i, m: -(z.log_softmax(-1).gather(-1, i[..., None])[..., 0] * m).sum(1), "shift by one: the logits"),
        (backwards, "the shift runs backwards"),
        (lambda z, i, m: right(z, i, m.roll(1, 1)), "mask[:, 1:]"),
        (lambda z, i, m: right(z, i, m | (torch.arange(5) < 2)), "the prompt's tokens are counted"),
        (lambda z, i, m: right(z, i, torch.ones_like(m)), "every token is counted"),
        (lambda z, i, m: right(z, i, m) / m.sum(1), "a mean over tokens"),
        (lambda z, i, m: right(z, i, m) / 4, "a mean over all positions"),
        (lambda z, i, m: right(z, i, m) / z.shape[0], "divided by the number of texts"),
        (lambda z, i, m: right(z.log_softmax(1).exp().log(), i, m, spread=lambda x: x), "the softmax runs over time"),
        (lambda z, i, m: right(z, i, m, spread=lambda x: x.softmax(-1)), "probabilities are summed"),
        (lambda z, i, m: right(z, z.argmax(-1).roll(1, 1), m), "the likeliest token is taken"),
        (lambda z, i, m: -(z[:, :-1].gather(-1, i[:, 1:, None])[..., 0] * m[:, 1:]).sum(1), "softmax is missing"),
        (lambda z, i, m: right(z[:, :-1], i[:, :-1], m[:, :-1]), "the last token is missing"),
        (first_token_left_out, "the answer's first token is missing"),
        (end_left_out, "the answer's end is missing"),
        (lambda z, i, m: right(z, i, ~m), "the mask is upside down"),
        (lambda z, i, m: right(z, i, m) / m.sum(), "the tokens of the whole batch"),
        (lambda z, i, m: right(z, i, m.cumsum(1) > 0), "the padding is counted"),
        (lambda z, i, m: right(z.log_softmax(1).detach(), i, m), "by hand it is"),
        (lambda z, i, m: right(z.detach(), i, m), "no gradient reaches logits: it was detached"),
        (lambda z, i, m: right(z.detach(), i, m) + 0 * z.sum(), "no gradient reaches logits"),
        (lambda z, i, m: torch.tensor(right(z, i, m).tolist(), requires_grad=True), "no gradient reaches logits"),
        (lambda z, i, m: right(z.sub_(z.logsumexp(-1, keepdim=True)), i, m), "overwritten in place"),
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
