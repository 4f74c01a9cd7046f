"""Estimates of a policy's standing, worked out by hand; what samples and record blocks hold."""

import copy
import math

import pytest
import torch

from rlhflab.evaluation.evaluators import ExactEvaluator, optimum_of, per_token, standing
from rlhflab.models.logps import Compared

BETA = 0.5


def two(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_a_standing_by_hand():
    """Half of π_ref's 200 answers earn β·ln 2: w is 1 or 2, Z = 3/2, and ESS = 200·(3/2)²/(5/2) = 180."""
    ref_rewards = BETA * math.log(2) * (torch.arange(200).double() % 2).expand(2, -1)
    rewards, kl = two([1.0, 2.0], [3.0, 7.0]), two([0.2, 0.4], [0.6, 0.6])
    found = standing(rewards, Compared(-kl, -kl, kl), ref_rewards, BETA)
    se_z = math.sqrt((200 / 180 - 1) / 199) / math.sqrt(2)  # of the mean of two prompts
    se_reward = math.sqrt(0.5**2 + 2.0**2) / 2  # each prompt's is half the difference of its answers
    se_kl = 0.1 / 2
    objective = 3.25 - BETA * 0.45
    assert found == pytest.approx({
        "reward": 3.25, "reward_se": se_reward, "kl_rb": 0.45, "kl_rb_se": se_kl,
        "ref_reward": BETA * math.log(2) / 2,
        "ref_reward_se": BETA * math.log(2) / 2 / math.sqrt(199) / math.sqrt(2),
        "objective": objective, "objective_se": se_reward + BETA * se_kl,
        "log_z": math.log(1.5), "log_z_se": se_z, "optimum": BETA * math.log(1.5), "optimum_se": BETA * se_z,
        "regret": BETA * math.log(1.5) - objective,
        "regret_se": math.hypot(BETA * se_z, se_reward + BETA * se_kl),
        "ess": 180.0, "optimum_trusted": 1.0,
    })  # fmt: skip
    optimum = optimum_of(ref_rewards, BETA)
    assert [float(part) for part in optimum] == pytest.approx([BETA * math.log(1.5), BETA * se_z])


def test_the_loss_of_a_token_is_a_ratio_of_means_and_so_is_its_error():
    """(2 + 4)/(1 + 3) nats; of what the texts cost beyond 1.5 a token, ±½, the mean over two tokens is off by ±¼."""
    found = per_token(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 3.0]))
    assert found.value.item() == 1.5 and found.se.item() == pytest.approx(0.25)


def test_a_sample_has_its_own_rewards_and_changes_only_if_the_policy_does(world, sft, reference):
    evaluator, other = ExactEvaluator(reference, 0), copy.deepcopy(sft)
    with torch.no_grad():
        other.lm_head.weight.mul_(0.2)
    same, moved = evaluator(sft, 1.0).samples, evaluator(other, 1.0).samples
    assert all(sample.before == sample.after for sample in same) and [s.before for s in moved] == [
        s.before for s in same
    ]
    assert any(sample.before != sample.after for sample in moved)
    for sample in moved:
        rewards = [world.true_reward(sample.prompt, text) for text in (sample.before, sample.after)]
        assert [sample.reward_before, sample.reward_after] == pytest.approx(rewards)
