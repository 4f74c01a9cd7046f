"""Rejection sampling fine-tuning: what is kept, one round against the exact best of n, rounds towards the argmax."""

import pytest
import torch

from rlhflab import recipes
from rlhflab.algorithms.rejection import best_answers
from rlhflab.models.logps import AnswerBatch
from rlhflab.objectives.best_of_n import best_of_n_logps
from rlhflab.objectives.divergence import kl_from_logps
from rlhflab.objectives.optimum import expected_reward
from rlhflab.tasks.rollout import Rollout

SMALL = {"best_of": 3, "batch_size": 27, "draws": 2, "updates": 3, "steps": 8, "evaluate_every": 4}
QUIET = {"device": "cpu", "progress": False}


def rollout(rewards, groups):
    rows, ones = len(groups), torch.ones(len(groups), 2, dtype=torch.bool)
    numbers = torch.arange(2 * rows).view(rows, 2)
    return Rollout(
        AnswerBatch(numbers, ones), numbers, torch.zeros(rows, 2), torch.tensor(rewards), torch.zeros(rows, 2), ~ones,
        ones, torch.tensor(groups), torch.zeros(rows),
    )  # fmt: skip


def test_of_every_n_answers_the_best_is_kept_and_the_first_of_equals():
    rewards = [[0.0, 1.0], [0.0, 3.0], [1.0, 1.0], [0.0, -1.0], [0.0, -1.0], [0.0, -2.0]]
    kept = best_answers(rollout(rewards, [4, 4, 4, 7, 7, 7]), 3)
    assert kept.actions.tolist() == [[2, 3], [6, 7]] and kept.groups.tolist() == [4, 7]
    for groups, n in (([4, 4, 4, 7, 7, 7], 2), ([4, 4, 4, 7, 7, 7], 4)):
        with pytest.raises(ValueError, match=f"^each prompt must have {n} answers"):
            best_answers(rollout(rewards, groups), n)


def test_a_round_draws_once_and_its_updates_learn_what_was_kept():
    run = recipes.Rejection(**SMALL, **QUIET).build()
    records = list(run)
    assert [record.scalars["rejection/round"] for record in records] == [1, 1, 1, 2, 2, 2, 3, 3]
    drew = [record.step for record in records if "rejection/kept_scores" in record.scalars]
    assert drew == [1, 4, 7] == [record.step for record in records if "objective/scores" in record.scalars]
    for record in records[::3]:
        assert record.scalars["rejection/kept_scores"] > record.scalars["objective/scores"] + 0.3
    assert records[2].scalars["loss"] < records[0].scalars["loss"]
    assert [len(kept["actions"]) for kept in run.state_dict()["kept"].values()] == [9, 9]


@pytest.mark.parametrize("stopped", [2, 3, 5])
def test_a_stopped_run_goes_on_bit_for_bit(stopped):
    whole = list(recipes.Rejection(**SMALL, **QUIET).build())
    first, second = (recipes.Rejection(**SMALL, **QUIET).build() for _ in range(2))
    begun = [next(first) for _ in range(stopped)]
    second.load_state_dict(first.state_dict())
    assert [*begun, *second] == whole


def test_a_batch_must_hold_whole_groups():
    with pytest.raises(ValueError, match=r"^batch_size must be a multiple of best_of = 5, got 252$"):
        recipes.Rejection(best_of=5)


@pytest.fixture(scope="module")
def one_round():
    """One round of many answers, trained to convergence, beside the exact best of n."""
    n = 4
    run = recipes.Rejection(
        best_of=n, batch_size=9 * n * 112, draws=8, updates=300, steps=300, evaluate_every=300, learning_rate=3e-3,
        **QUIET,
    ).build()  # fmt: skip
    *_, last = run
    view = run.task.evaluator.reference
    best = best_of_n_logps(view.logps, view.rewards, n)
    return (
        last.exact,
        float(expected_reward(best, view.rewards).mean()),
        float(kl_from_logps(best, view.logps).mean()),
    )


def test_one_round_to_convergence_is_the_best_of_n(one_round):
    found, reward, kl = one_round
    gain = reward - found["ref_reward"]
    assert found["reward"] == pytest.approx(reward, abs=0.05 * abs(reward)) and gain > 1
    assert found["kl"] == pytest.approx(kl, rel=0.05)


def test_rounds_go_on_towards_the_argmax(one_round):
    run = recipes.Rejection(
        best_of=4,
        batch_size=252,
        draws=4,
        updates=20,
        steps=160,
        evaluate_every=80,
        learning_rate=3e-3,
        **QUIET,
    ).build()
    exact = [record.exact for record in run if record.exact]
    rewards, kls = ([block[name] for block in exact] for name in ("reward", "kl"))
    best = float(run.task.evaluator.reference.rewards.amax(1).mean())
    assert rewards == sorted(rewards) and kls == sorted(kls)
    assert one_round[1] + 0.8 < rewards[-1] < best


def vowels(prompts, answers):
    return [float(sum(answer.count(letter) for letter in "aeiou")) for answer in answers]


def test_it_trains_a_real_model(model_folder, tmp_path):
    texts = "\n".join(f"The film number {n} was long and so was its plot,{n % 2}" for n in range(20))
    (tmp_path / "texts.csv").write_text(f"text,label\n{texts}")
    recipe = recipes.Rejection(
        world=str(tmp_path / "texts.csv"), model=str(model_folder("gpt2")), lora=True, reward=vowels,
        best_of=4, batch_size=16, draws=1, updates=4, steps=12, learning_rate=2e-2, max_new_tokens=6, pairs=8, **QUIET,
    )  # fmt: skip
    run = recipe.build()
    before = {
        name: weight.clone() for name, weight in run.policy.named_parameters() if not weight.requires_grad
    }
    scores = [record.scalars["objective/scores"] for record in run if "objective/scores" in record.scalars]
    assert len(scores) == 3 and scores[-1] > scores[0]
    assert all(
        torch.equal(before[name], weight) for name, weight in run.policy.named_parameters() if name in before
    )
