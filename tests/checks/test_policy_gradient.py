"""The check of REINFORCE's loss accepts right answers and names typical wrong ones."""

import pytest
import torch

from rlhflab.checks.policy_gradient import EXERCISE, cases, check_reinforce_loss
from rlhflab.objectives.advantages import discounted_returns


def to_go(rewards, gamma):
    returns = torch.zeros_like(rewards)
    later = 0.0
    for t in reversed(range(rewards.shape[1])):
        returns[:, t] = later = rewards[:, t] + gamma * later
    return returns


def weighed(weights):
    return lambda lp, r, g: -(lp * weights(r, g)).sum(1)


def ends_of(rewards):
    return (torch.arange(rewards.shape[1]) == rewards.shape[1] - 1).expand(rewards.shape)


def in_place(logps, rewards, gamma):
    for t in reversed(range(rewards.shape[1] - 1)):
        rewards[:, t] += gamma * rewards[:, t + 1]
    return logps.mul_(rewards).sum(1).neg_()


def as_a_matrix(lp, r, gamma):
    steps = torch.arange(r.shape[1])
    ahead = steps - steps[:, None]
    return -(lp * (r @ torch.where(ahead >= 0, gamma ** ahead.clamp(min=0), 0.0).T)).sum(1)


def episode_by_episode(logps, rewards, gamma):
    losses = []
    for lp, r in zip(logps, rewards, strict=True):
        losses.append(
            -sum(lp[t] * sum(gamma ** (k - t) * r[k] for k in range(t, len(r))) for t in range(len(r)))
        )
    return torch.stack(losses)


@pytest.mark.parametrize(
    "right",
    [
        weighed(to_go),
        lambda lp, r, g: -torch.einsum("et,et->e", lp, discounted_returns(r, ends_of(r), g)),
        lambda lp, r, g: weighed(to_go)(lp, r, g).double(),
        lambda lp, r, g: weighed(to_go)(lp, r, g).squeeze(),
        in_place,
        as_a_matrix,
        episode_by_episode,
    ],
)
def test_right_answers_pass(right, capsys):
    assert check_reinforce_loss(right) and check_reinforce_loss(right)
    assert capsys.readouterr().out.count("✓") == 2


def test_the_case_by_hand_is_what_the_package_computes():
    logps, rewards, gamma = cases()[0].args
    returns = discounted_returns(rewards, ends_of(rewards), gamma)
    assert returns.tolist() == [[2, 2, 4], [-1, 0, 2]]
    found = EXERCISE.values(EXERCISE.right)[0].tolist()
    assert found == pytest.approx([1.0 + 2.0 + 8.0, -1.0 + 0.0 + 0.5]) == (-(logps * returns).sum(1)).tolist()


def discount(r, g):
    return g ** torch.arange(r.shape[1]) * r


def broken(lp, r, g):
    raise RuntimeError("one line\nand another")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda lp, r, g: (lp * to_go(r, g)).sum(1), "the minus is missing"),
        (lambda lp, r, g: -(lp * to_go(r, g)).mean(1), "mean for sum"),
        (lambda lp, r, g: -(lp.exp() * to_go(r, g)).sum(1), "not of π"),
        (lambda lp, r, g: -to_go(r, g).sum(1), "log-probabilities are missing"),
        (lambda lp, r, g: -lp.sum(1) * discount(r, g).sum(1), "whole return"),
        (weighed(lambda r, g: r), "only the reward of the step"),
        (weighed(lambda r, g: to_go(r, 1.0)), "nothing is discounted"),
        (weighed(lambda r, g: to_go(discount(r, g), 1.0)), "from the start of the episode"),
        (weighed(lambda r, g: to_go(r.flip(1), g).flip(1)), "run forwards"),
        (weighed(lambda r, g: to_go(r, g) - r), "own reward is missing"),
        (weighed(lambda r, g: g * to_go(r, g)), "γ^0 = 1"),
        (weighed(lambda r, g: to_go(r, g) / to_go(r, g).sum(1, keepdim=True)), "do not divide"),
        (lambda lp, r, g: weighed(to_go)(lp.detach(), r, g), "detached"),
        (
            lambda lp, r, g: weighed(to_go)(lp.detach(), r, g) + (lp - lp.detach()).sum(1),
            "the gradient is not",
        ),
        (weighed(lambda r, g: to_go(r, g) - to_go(r, g).mean(0)), "the mean over the episodes"),
        (weighed(lambda r, g: to_go(r, g) - to_go(r, g).mean()), "the mean over all"),
        (lambda lp, r, g: -((-lp).log() * to_go(r, g)).sum(1), "are logarithms already"),
        (
            weighed(lambda r, g: to_go(r, g) - to_go(r, g).mean(1, keepdim=True)),
            "the episode's mean is taken off",
        ),
        (weighed(lambda r, g: to_go(r, 0.5)), "gamma = 0.9 it gives"),  # the γ of the first case
        (lambda lp, r, g: weighed(to_go)(lp, r, g) / len(r), "divided by the number of episodes"),
        (lambda lp, r, g: weighed(to_go)(lp, r, g).mean(), "one number"),
        (lambda lp, r, g: None, "not written yet"),
        (lambda lp, r, g: 0.3, "returned a float"),
        (lambda lp, r, g: lp * r, "shape (2, 3)"),
        (lambda lp, r, g: 7 * lp.sum(1), "by hand it is"),
        (lambda lp, r: lp, "it raised TypeError"),
        (broken, "it raised RuntimeError: one line"),
    ],
)
def test_wrong_answers_are_named(wrong, words, capsys):
    assert not check_reinforce_loss(wrong)
    out = capsys.readouterr().out
    assert out.startswith("✗") and words in out and len(out.splitlines()) == 1, out
