"""The check of GAE accepts right answers and names typical wrong ones."""

import pytest
import torch

from rlhflab.checks.gae import EXERCISE, cases, check_gae
from rlhflab.objectives.advantages import gae


def written(rewards, values, following, no_future, stops, gamma, decay):
    advantages, carried = torch.zeros(len(rewards)), 0.0
    no_future, stops = no_future.expand(len(rewards)), stops.expand(len(rewards))
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


def in_place(rewards, values, next_values, terminated, truncated, gamma, gae_lambda):
    next_values[terminated] = 0
    rewards += gamma * next_values - values
    for t in range(len(rewards) - 2, -1, -1):
        if not (terminated[t] or truncated[t]):
            rewards[t] += gamma * gae_lambda * rewards[t + 1]
    return rewards


def as_a_matrix(r, v, n, term, trunc, g, lam):
    over = (term | trunc).double().cumsum(0)
    episode = over - (term | trunc).double()  # how many were over before each step
    steps = torch.arange(len(r))
    ahead = steps - steps[:, None]
    weights = (g * lam) ** ahead.clamp(min=0) * (ahead >= 0) * (episode == episode[:, None])
    return weights.double() @ (r + g * n * (1 - term.float()) - v).double()


@pytest.mark.parametrize("answer", [right, as_sums, in_place, as_a_matrix, lambda *a: right(*a).squeeze()])
def test_right_answers_pass(answer, capsys):
    assert check_gae(answer) and check_gae(answer)
    assert capsys.readouterr().out.count("✓") == 2


def test_the_case_by_hand_is_what_the_package_computes():
    found, (rewards, values, _, terminated, _, gamma, decay) = [], cases()[0].args
    for steps, last in ((slice(0, 3), 0.0), (slice(3, 5), 8.0), (slice(5, 6), 4.0)):
        stretch = (column[steps].unsqueeze(0) for column in (rewards, values, terminated))
        found += gae(*stretch, gamma, decay, torch.tensor([last]))[0].tolist()
    assert found == pytest.approx([-0.42, 0.2, -2.0, -1.6, 1.0, 3.0])
    assert found == pytest.approx(EXERCISE.values(EXERCISE.right)[0].tolist())


def shifted(r, v, n, term, trunc, g, lam):
    return right(r, v, torch.cat([v[1:], torch.zeros(1)]), term, trunc, g, lam)


def forwards(r, v, n, term, trunc, g, lam):
    errors, advantages, carried = r + g * n * ~term - v, [], 0.0
    for t in range(len(r)):
        carried = errors[t] + (g * lam * carried if t and not (term | trunc)[t - 1] else 0)
        advantages.append(carried)
    return torch.stack(advantages)


NONE = torch.zeros(1, dtype=torch.bool)


def cut_first(r, v, n, term, trunc, g, lam):
    """Right, but a step that is both has a future."""
    return written(r, v, n, term & ~trunc, term | trunc, g, g * lam)


def spread_of(advantages):
    return (advantages - advantages.mean()).square().mean().sqrt() + 1e-8


def whitened(*args):
    advantages = right(*args)
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


@pytest.mark.filterwarnings("ignore:std")  # of a single step
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda r, v, n, e, c, g, k: written(r, v, n, NONE, e | c, g, g * k), "added where the episode has terminated"),
        (lambda r, v, n, e, c, g, k: written(r, v, n, e | c, e | c, g, g * k), "a time limit is treated as an end"),
        (lambda r, v, n, e, c, g, k: right(r, v, n, c, e, g, k), "ends and cuts are swapped"),
        (lambda r, v, n, e, c, g, k: written(r, v, n, e, c, g, g * k), "continues across a termination"),
        (lambda r, v, n, e, c, g, k: written(r, v, n, e, e, g, g * k), "continues across a truncation"),
        (lambda r, v, n, e, c, g, k: written(r, v, n, e, NONE, g, g * k), "continues across both"),
        (shifted, "V(s') is values[t + 1]"),
        (lambda r, v, n, e, c, g, k: written(r, v, n, e, e | c, g, k), "decays by λ alone"),
        (lambda r, v, n, e, c, g, k: written(r, v, n, e, e | c, g, g), "λ is missing"),
        (lambda r, v, n, e, c, g, k: written(r, v, n, e, e | c, 1.0, g * k), "V(s') is not discounted"),
        (lambda r, v, n, e, c, g, k: r + g * n * ~e - v, "these are the TD errors"),
        (lambda *a: right(*a) + a[1], "these are the returns"),
        (forwards, "the sum runs forwards"),
        (lambda *a: -right(*a), "the sign of the advantages"),
        (lambda r, v, n, e, c, g, k: right(r, v, n, e, c, k, g), "γ and λ are swapped"),
        (lambda r, v, n, e, c, g, k: right(r, v, 0 * n, e, c, g, k), "V(s') is missing"),
        (lambda r, v, n, e, c, g, k: right(r, 0 * v, n, e, c, g, k), "V(s) is missing"),
        (whitened, "the advantages are normalised: that comes later"),
        (lambda *a: (right(*a) - right(*a).mean()) / spread_of(right(*a)), "with the population's deviation"),
        (lambda *a: right(*a) - right(*a).sum() / len(a[0]), "the mean is taken off"),
        (cut_first, "a step can be both"),
        (lambda r, v, n, e, c, g, k: right(r, v, n, e, c, 0.5, 0.8), "gamma = 0.9, gae_lambda = 0.7 it gives"),
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
