"""The check of REINFORCE's loss accepts right answers and names typical wrong ones."""

import pytest
import torch

from rlhflab.checks import policy_gradient
from rlhflab.checks.policy_gradient import check_reinforce_loss
from rlhflab.objectives.advantages import discounted_returns


def to_go(rewards, gamma):
    returns = torch.zeros_like(rewards)
    later = torch.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        returns[:, t] = later = rewards[:, t] + gamma * later
    return returns


def weighed(weights):
    return lambda lp, r, g: -(lp * weights(r, g)).sum(1)


def test_right_answers_pass(capsys):
    assert check_reinforce_loss(weighed(to_go))
    ends = torch.tensor([[False, False, True]] * 2)
    assert check_reinforce_loss(
        lambda lp, r, g: -torch.einsum("et,et->e", lp, discounted_returns(r, ends, g))
    )
    assert check_reinforce_loss(lambda lp, r, g: weighed(to_go)(lp, r, g).double())
    assert capsys.readouterr().out.count("✓") == 3


def test_the_case_by_hand_is_what_the_package_computes():
    ends = torch.tensor([[False, False, True]] * 2)
    returns = discounted_returns(policy_gradient.REWARDS, ends, policy_gradient.GAMMA)
    torch.testing.assert_close(returns, -policy_gradient.SLOPES)
    torch.testing.assert_close(
        -(policy_gradient.LOGPS * returns).sum(1), torch.tensor(policy_gradient.EXPECTED)
    )


def discount(r, g):
    return torch.tensor([[1, g, g * g]]) * r


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
