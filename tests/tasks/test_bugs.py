"""What each bug does to the KL term of a rollout, against the same rollout drawn right."""

import pytest
import torch

from rlhflab import recipes
from rlhflab.models.logps import token_logps
from rlhflab.tasks.bugs import CutSampling, MeanForSum, WrongKLSign

KNOBS = {"beta": 0.5}


@pytest.fixture
def run():
    run = recipes.PPO(steps=3, batch_size=36, evaluate_every=100, progress=False).build()
    for _ in run:  # away from the reference, where the KL term is 0
        pass
    return run


def pieces(task, collected):
    """Scores, KL terms as they should be [batch, time], and the mask."""
    rollout = collected.rollout
    with torch.no_grad():
        ref_logps, mask = token_logps(task.ref_policy, rollout.inputs)
    scores = task.reward.world.answer_rewards(rollout.groups, rollout.actions, rollout.mask).float()
    return scores, -KNOBS["beta"] * (rollout.logps - ref_logps) * mask, mask


@pytest.mark.parametrize(
    ("bug", "share"),
    [
        (WrongKLSign, lambda lengths: -torch.ones_like(lengths)),
        (MeanForSum, lambda lengths: 1 / lengths),
    ],
)
def test_the_kl_term_is_spoilt_and_nothing_else(run, bug, share):
    collected = bug(run.task).collect(KNOBS)
    scores, right, mask = pieces(run.task, collected)
    wanted = scores + share(mask.sum(1).float()) * right.sum(1)
    assert right.abs().max() > 1e-3
    torch.testing.assert_close(collected.rollout.rewards.sum(1), wanted, atol=1e-5, rtol=0)


def test_cut_sampling_never_stops_early_and_prices_with_the_whole_softmax(run):
    collected = CutSampling(run.task, words=2).collect(KNOBS)
    rollout, scalars = collected
    scores, right, mask = pieces(run.task, collected)
    assert mask.sum(1).min() >= 3
    with torch.no_grad():
        logps, _ = token_logps(run.policy, rollout.inputs)
    torch.testing.assert_close(rollout.logps, logps)
    torch.testing.assert_close(rollout.rewards.sum(1), scores + right.sum(1), atol=1e-5, rtol=0)
    assert scalars["objective/kl"] == pytest.approx(float(-right.sum(1).mean() / KNOBS["beta"]), abs=1e-5)


def test_a_spoilt_run_goes_on_and_can_be_saved(run):
    run.steps = 5
    run.task = CutSampling(run.task)
    assert [record.step for record in run] == [4, 5]
    assert "policy" in run.state_dict()["task"]
