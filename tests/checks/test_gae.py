"""The check of GAE accepts right answers and names typical wrong ones."""

import pytest
import torch

from rlhflab.checks import gae as case
from rlhflab.checks.gae import check_gae
from rlhflab.objectives.advantages import gae


def written(rewards, values, following, no_future, stops, gamma, decay):
    advantages, carried = torch.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        error = rewards[t] + gamma * following[t] * (~no_future[t]) - values[t]
        carried = error + decay * (~stops[t]) * carried
        advantages[t] = carried
    return advantages


def right(r, v, n, term, trunc, g, lam):
    return written(r, v, n, term, term | trunc, g, g * lam)


def as_sums(r, v, n, term, trunc, g, lam):
    """Every advantage by itself, as the sum that defines it."""
    errors, found = r + g * n.masked_fill(term, 0) - v, []
    for t in range(len(r)):
        ends = [k for k in range(t, len(r)) if term[k] or trunc[k]]
        last = ends[0] if ends else len(r) - 1
        found.append(sum((g * lam) ** (k - t) * errors[k] for k in range(t, last + 1)))
    return torch.stack(found)


def test_right_answers_pass(capsys):
    assert check_gae(right) and check_gae(as_sums)
    assert capsys.readouterr().out.count("✓") == 2


def test_the_case_by_hand_is_what_the_package_computes():
    found = []
    for steps, last in ((slice(0, 3), 0.0), (slice(3, 5), 8.0), (slice(5, 6), 4.0)):
        rewards, values, ends = (
            column[steps].unsqueeze(0) for column in (case.REWARDS, case.VALUES, case.TERMINATED)
        )
        found += gae(rewards, values, ends, case.GAMMA, case.LAMBDA, torch.tensor([last]))[0].tolist()
    assert found == pytest.approx(case.EXPECTED)


def test_no_two_mistakes_look_alike():
    values = torch.stack([*case.MISTAKES.values(), torch.tensor(case.EXPECTED)])
    assert torch.cdist(values, values).add(torch.eye(len(values))).min() > 1e-3


def shifted(r, v, n, term, trunc, g, lam):
    return right(r, v, torch.cat([v[1:], torch.zeros(1)]), term, trunc, g, lam)


def forwards(r, v, n, term, trunc, g, lam):
    errors, advantages, carried = r + g * n * ~term - v, [], 0.0
    for t in range(len(r)):
        carried = errors[t] + (g * lam * carried if t and not (term | trunc)[t - 1] else 0)
        advantages.append(carried)
    return torch.stack(advantages)


NONE = torch.zeros(6, dtype=torch.bool)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda r, v, n, e, c, g, k: written(r, v, n, NONE, e | c, g, g * k), "added where the episode has terminated"),
        (lambda r, v, n, e, c, g, k: written(r, v, n, e | c, e | c, g, g * k), "a time limit is taken for an end"),
        (lambda r, v, n, e, c, g, k: right(r, v, n, c, e, g, k), "ends and cuts are swapped"),
        (lambda r, v, n, e, c, g, k: written(r, v, n, e, c, g, g * k), "runs on over a termination"),
        (lambda r, v, n, e, c, g, k: written(r, v, n, e, e, g, g * k), "runs on over a truncation"),
        (lambda r, v, n, e, c, g, k: written(r, v, n, e, NONE, g, g * k), "runs on over both"),
        (shifted, "V(s') is values[t + 1]"),
        (lambda r, v, n, e, c, g, k: written(r, v, n, e, e | c, g, k), "decays by λ alone"),
        (lambda r, v, n, e, c, g, k: written(r, v, n, e, e | c, g, g), "λ is missing"),
        (lambda r, v, n, e, c, g, k: written(r, v, n, e, e | c, 1.0, g * k), "V(s') is not discounted"),
        (lambda r, v, n, e, c, g, k: r + g * n * ~e - v, "these are the TD errors"),
        (lambda *a: right(*a) + a[1], "these are the returns"),
        (forwards, "the sum runs forwards"),
        (lambda *a: -right(*a), "the sign of the advantages"),
        (lambda *a: right(*a).mean(), "one number; keep one advantage a step"),
        (lambda *a: right(*a).tolist(), "returned a list"),
        (lambda *a: right(*a)[:5], "the shape (5,) for 6 steps"),
        (lambda *a: None, "not written yet: return a tensor with one advantage a step"),
        (lambda *a: right(*a) * 3, "by hand it is"),
        (lambda r, *a: r @ r @ r, "it raised RuntimeError"),
    ],
)  # fmt: skip
def test_wrong_answers_are_named(wrong, words, capsys):
    assert not check_gae(wrong)
    out = capsys.readouterr().out
    assert out.startswith("✗") and words in out
