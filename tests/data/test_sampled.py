"""Samples stand in for enumeration: against the micro world's exact values."""

import copy

import pytest
import torch

from rlhflab.data.sampled import SampledReference, answer_texts, draw_answers, drawn_logps, speaker
from rlhflab.evaluation.evaluators import (
    TRUSTED_ESS,
    EstimatingEvaluator,
    estimated_backdrop,
    optimum_of,
    trusted,
)
from rlhflab.objectives.importance import optimum_estimate


@pytest.fixture(scope="module")
def nudged(sft):
    """A policy a little away from the micro world's reference."""
    policy = copy.deepcopy(sft)
    with torch.no_grad():
        policy.lm_head.weight.mul_(0.9)
    return policy


def test_log_probabilities_of_drawn_answers_are_the_trees(world, nudged):
    drawn = draw_answers(
        world, nudged, torch.arange(9).repeat(20), torch.Generator().manual_seed(0), chunk=50
    )
    at = world.tree.positions(drawn.tokens, drawn.mask)
    exact = world.logps(nudged)[drawn.prompts, at]
    torch.testing.assert_close(drawn_logps(world, nudged, drawn), exact, rtol=0, atol=3e-5)
    assert answer_texts(world, drawn) == [world.answers[index] for index in at]


def test_a_speaker_says_answers_as_often_as_likely_with_their_probability_and_worth(world, sft, nudged):
    speak, other, exact = speaker(world, sft), speaker(world, nudged), world.logps(sft)[4].exp()
    replies = [speak(4, seed) for seed in range(400)]
    top = int(exact.argmax())
    share = sum(text == world.answers[top] for text, _, _ in replies) / 400
    assert abs(share - float(exact[top])) < 5 * float(exact[top] / 400) ** 0.5
    for text, probability, reward in replies[:20]:
        at = world.answer_position(text)
        assert probability == pytest.approx(float(exact[at]), rel=1e-3) and reward == world.rewards[4, at]
    assert sum(speak(4, seed)[0] == other(4, seed)[0] for seed in range(100)) > 50  # the same luck


def test_estimates_agree_with_the_micro_worlds_exact_evaluation(world, sft, reference, nudged):
    exact = reference.evaluate(nudged, 1.0)
    assert exact.kl > 0.01
    for seed in range(3):
        found = EstimatingEvaluator(SampledReference(world, sft), seed, samples=900)(nudged, 1.0)
        estimated = found.estimated
        assert found.exact is None and estimated["optimum_trusted"] == 1
        assert all(type(value) is float for value in estimated.values())
        for name in ("reward", "ref_reward", "objective", "optimum", "regret"):
            assert abs(estimated[name] - getattr(exact, name)) < 4 * estimated[f"{name}_se"], name
        assert abs(estimated["kl_rb"] - exact.kl) < 4 * estimated["kl_rb_se"]
        assert not {"optimum_at_least", "regret_at_least"} & estimated.keys()
        assert estimated["reward_se"] < 0.1 and 0.9 < estimated["grammatical"] <= 1
        assert [sample.prompt for sample in found.samples] == list(world.prompts)


def test_the_reference_has_no_kl_to_itself_and_a_small_beta_is_not_trusted(reviews, reviews_sft):
    evaluator = EstimatingEvaluator(SampledReference(reviews, reviews_sft), 0, samples=100, ref_samples=200)
    mild, greedy = (evaluator(reviews_sft, beta).estimated for beta in (5.0, 0.1))
    assert mild["kl_rb"] == 0 == mild["kl_rb_se"] and mild["objective"] == pytest.approx(mild["reward"])
    assert abs(mild["reward"] - mild["ref_reward"]) < 4 * mild["reward_se"]
    assert mild["ess"] > TRUSTED_ESS > greedy["ess"] >= 1
    assert (mild["optimum_trusted"], greedy["optimum_trusted"]) == (1, 0)
    assert {"log_z", "optimum", "regret", "regret_se"} <= mild.keys() and "optimum_at_least" not in mild
    assert not {"log_z", "optimum", "regret", "optimum_se", "regret_se"} & greedy.keys()
    assert greedy["optimum_at_least"] > greedy["reward"] + 1 and greedy["regret_at_least"] > 1
    assert optimum_of(evaluator.ref_rewards, 0.1) is None
    found = evaluator(reviews_sft, 1.0)
    assert found == evaluator(reviews_sft, 1.0)
    for sample in found.samples:
        assert sample.before == sample.after
        assert sample.reward_after == pytest.approx(reviews.true_reward(sample.prompt, sample.after))


def test_one_prompt_that_cannot_be_trusted_is_enough():
    for spread, known in ((1.0, True), (3.0, False)):
        table = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        table[-1] *= spread
        ess = optimum_estimate(table, 1.0).ess
        assert ess.mean() > 2 * TRUSTED_ESS and trusted(ess) == known == (float(ess.min()) >= TRUSTED_ESS)
        backdrop = estimated_backdrop(table)
        assert backdrop.knows(1.0) == known and backdrop.knows(10.0)


def test_the_bound_comes_from_the_policy_where_it_knows_more(world, sft):
    evaluator = EstimatingEvaluator(SampledReference(world, sft), 0, samples=90, ref_samples=100)
    sharp = copy.deepcopy(sft)
    with torch.no_grad():
        sharp.lm_head.weight.mul_(1.5)
    found = evaluator(sharp, 0.05).estimated
    drawn = draw_answers(
        world, sharp, torch.arange(9).repeat_interleave(10), torch.Generator().manual_seed(0)
    )
    rewards = world.answer_rewards(*drawn).view(9, -1)
    logps, ref_logps = (drawn_logps(world, model, drawn).view(9, -1) for model in (sharp, sft))
    bounds = []
    for log_weights in (evaluator.ref_rewards / 0.05, rewards / 0.05 + ref_logps - logps):
        weights = log_weights.exp()
        error = weights.std(1, correction=1) / weights.shape[1] ** 0.5 / weights.mean(1)
        bounds.append(0.05 * float(weights.mean(1).log().mean() - 2 * error.square().sum().sqrt() / 9))
    assert found["optimum_at_least"] == pytest.approx(max(bounds), rel=1e-3)
    least = max(bounds) - found["objective"] - 2 * found["objective_se"]
    assert found["regret_at_least"] == pytest.approx(max(0.0, least), rel=1e-3, abs=1e-6)
    assert found["objective"] == pytest.approx(found["reward"] - 0.05 * found["kl_rb"])


def test_the_reviews_reference_speaks_mostly_clean_language(reviews, reviews_sft):
    drawn = draw_answers(reviews, reviews_sft, torch.arange(18).repeat(50), torch.Generator().manual_seed(0))
    assert reviews.grammatical(drawn.tokens, drawn.mask).double().mean() > 0.85
    assert 9 < drawn.mask.sum(1).double().mean() < 15
    assert len(set(answer_texts(reviews, drawn))) > 800


def test_pairs_differ_prefer_better_answers_and_mark_the_noise(reviews, reviews_sft):
    reference = SampledReference(reviews, reviews_sft)
    pairs = reference.sample_pairs(1000, 0.2, torch.Generator().manual_seed(0))
    assert pairs.flipped.double().mean().item() == pytest.approx(0.2, abs=0.05)
    assert pairs.margins[~pairs.flipped].mean() > 0.3 > -0.3 > pairs.margins[pairs.flipped].mean()
    texts = reference.texts(pairs)
    assert all(pair.chosen != pair.rejected for pair in texts) and len({pair.prompt for pair in texts}) == 18
    for pair, flipped in zip(texts[:50], pairs.flipped.tolist(), strict=False):
        margin = reviews.true_reward(pair.prompt, pair.chosen) - reviews.true_reward(
            pair.prompt, pair.rejected
        )
        assert margin == pytest.approx(pair.margin, abs=1e-9) and pair.flipped == flipped
    again = reference.texts(reference.sample_pairs(1000, 0.2, torch.Generator().manual_seed(0)))
    assert texts == again
    with pytest.raises(ValueError, match="pairs must be ≥ 1, got 0"):
        reference.sample_pairs(0, 0.0, torch.Generator())


def test_pairs_of_a_narrow_policy_still_differ(world, sft):
    narrow = copy.deepcopy(sft)
    with torch.no_grad():
        narrow.lm_head.weight.mul_(4)  # a few answers have nearly all the probability
    pairs = SampledReference(world, narrow).sample_pairs(300, 0.0, torch.Generator().manual_seed(0))
    assert (pairs.chosen.tokens != pairs.rejected.tokens).any(1).all()
