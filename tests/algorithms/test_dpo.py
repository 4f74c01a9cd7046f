"""DPO learns, follows its knobs, continues exactly, and agrees with TRL."""

import copy
import math
from statistics import fmean, pstdev

import pytest
import torch

from rlhflab import recipes
from rlhflab.algorithms.dpo import DPO
from rlhflab.core.algorithm import TrainingDiverged
from rlhflab.data.pair_source import FixedPairs, FreshPairs
from rlhflab.data.sampled import SampledReference
from rlhflab.evaluation.evaluators import EstimatingEvaluator
from rlhflab.models.logps import sequence_logps
from rlhflab.objectives.dpo import dpo_loss
from rlhflab.settings.dpo import DPOSettings


def run(steps, **settings):
    algorithm = recipes.DPO(steps=steps, device="cpu", progress=False, evaluate_every=50, **settings).build()
    return algorithm, list(algorithm)


@pytest.fixture(scope="module")
def short():
    return run(120, pairs=300, label_noise=0.2)


def test_first_record_is_at_the_reference(short):
    first = short[1][0]
    assert first.scalars["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first.pairs.weights == pytest.approx([0.5] * 32, abs=1e-4)
    assert first.scalars["rewards/margins"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("settings", [{"pairs": 300}, {"pairs": "fresh"}, {"pairs": 300, "beta": 10.0}])
def test_at_the_reference_all_pairs_are_ties(settings):
    (first,) = run(1, **settings)[1]
    assert first.scalars["rewards/accuracies"] == 0


def test_records_hold_what_they_promise(short):
    _, records = short
    assert [record.step for record in records] == list(range(1, 121))
    assert [record.step for record in records if record.exact] == [1, 50, 100, 120]
    last = records[-1]
    assert last.knobs == {"beta": 1.0, "learning_rate": 1e-3}
    pairs = last.pairs
    margins = [c - r for c, r in zip(pairs.chosen_rewards, pairs.rejected_rewards, strict=True)]
    assert last.scalars["rewards/margins"] == pytest.approx(sum(margins) / 32, abs=1e-5)
    for side, rewards in (("chosen", pairs.chosen_rewards), ("rejected", pairs.rejected_rewards)):
        assert last.scalars[f"rewards/{side}"] == pytest.approx(fmean(rewards), abs=1e-5)
        assert last.scalars[f"rewards/{side}_std"] == pytest.approx(pstdev(rewards), abs=1e-5)
    assert last.scalars["loss"] == pytest.approx(
        sum(math.log1p(math.exp(-m)) for m in margins) / 32, abs=1e-5
    )
    assert pairs.weights == pytest.approx([1 / (1 + math.exp(m)) for m in margins], abs=1e-5)
    assert len(last.samples) == 9 and last.samples[0].prompt == "the comedy was"
    assert any(pairs.flipped) and not all(pairs.flipped)


def test_with_fresh_pairs_it_closes_half_of_the_regret_in_seconds_and_never_passes_the_frontier():
    exact = [record.exact for record in run(250, pairs="fresh", batch_size=64)[1] if record.exact]
    attainable = exact[-1]["optimum"] - exact[-1]["ref_reward"]
    assert exact[-1]["regret"] < 0.5 * attainable
    assert exact[-1]["efficiency"] > 0.7
    assert all(e["efficiency"] <= 1 + 1e-9 and e["regret"] >= 0 for e in exact)


def test_mislabelled_pairs_end_with_the_larger_weights(short):
    weights = {True: [], False: []}
    for record in short[1][-9:]:
        for flipped, weight in zip(record.pairs.flipped, record.pairs.weights, strict=True):
            weights[flipped].append(weight)
    means = {flipped: sum(values) / len(values) for flipped, values in weights.items()}
    assert means[True] > means[False] + 0.1


def test_the_same_seed_gives_the_same_records_and_another_seed_others():
    first, again, other = (run(5, pairs=100, seed=seed)[1] for seed in (0, 0, 1))
    assert first == again
    assert first[-1].scalars != other[-1].scalars


@pytest.mark.parametrize("pairs", [100, "fresh"])
def test_a_stopped_run_continues_bit_for_bit(pairs):
    whole = run(12, pairs=pairs)[1]
    stopped = recipes.DPO(steps=12, pairs=pairs, device="cpu", progress=False, evaluate_every=50).build()
    for _ in range(7):
        next(stopped)
    state = copy.deepcopy(stopped.state_dict())
    fresh = recipes.DPO(steps=12, pairs=pairs, device="cpu", progress=False, evaluate_every=50).build()
    fresh.load_state_dict(state)
    assert list(fresh) == whole[7:]


def test_fresh_pairs_are_the_next_of_one_seeded_stream(sft, reference):
    source, stream = FreshPairs(reference, 0.2, 4, seed=3), torch.Generator().manual_seed(3)
    for first in (0, 4, 8):
        rows, expected = source.next(), reference.sample_pairs(4, 0.2, stream)
        assert rows.texts == reference.texts(expected) and rows.ids == list(range(first, first + 4))
        both = torch.cat([expected.chosen, expected.rejected])
        assert torch.equal(rows.ref_logps, reference.logps[expected.prompts.repeat(2), both].float())
        logps = sequence_logps(sft, rows.answers).detach()
        torch.testing.assert_close(logps, rows.ref_logps, atol=1e-4, rtol=0)
    state = source.state_dict()
    assert state["drawn"] == 12 and torch.equal(state["generator"], stream.get_state())


def test_a_knob_acts_on_the_next_step():
    turned, left = (recipes.DPO(steps=3, pairs=64, device="cpu", progress=False).build() for _ in range(2))
    assert next(turned) == next(left)
    turned.knobs.beta = 0.25
    record, other = next(turned), next(left)  # of the same policy: a record is taken before its update
    assert (record.knobs["beta"], other.knobs["beta"]) == (0.25, 1.0)
    for name in ("rewards/chosen", "rewards/margins"):
        assert record.scalars[name] == pytest.approx(0.25 * other.scalars[name], rel=1e-5)
    assert abs(other.scalars["rewards/margins"]) > 1e-3


def test_implicit_rewards_scale_with_the_knob(world, sft, reference):
    pairs = reference.texts(reference.sample_pairs(64, 0.0, torch.Generator().manual_seed(0)))
    policy = copy.deepcopy(sft)
    with torch.no_grad():
        policy.lm_head.weight.mul_(1.1)
    rewards = []
    for beta in (1.0, 3.0):
        source = FixedPairs(pairs, world.encode_prompt, world.encode_answer, sft, 64, 0)
        algorithm = DPO(copy.deepcopy(policy), source, DPOSettings(steps=1, beta=beta))
        rewards.append(next(algorithm).scalars["rewards/chosen"])
    assert rewards[1] == pytest.approx(3 * rewards[0], rel=1e-4) and rewards[0] != 0


def test_a_diverging_run_stops_with_step_and_knobs():
    algorithm = recipes.DPO(steps=30, pairs=64, device="cpu", progress=False).build()
    next(algorithm)
    with torch.no_grad():
        next(algorithm.policy.parameters()).mul_(math.nan)
    with pytest.raises(TrainingDiverged, match=r"loss.* at step 2 with beta=1, learning_rate=0.001"):
        next(algorithm)


def test_an_absurd_learning_rate_is_reported_as_divergence():
    with pytest.raises(TrainingDiverged, match=r"at step 1 with beta=1, learning_rate=1e\+30"):
        run(3, pairs=64, learning_rate=1e30)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"world": "macro"}, "unknown world 'macro'"),
        ({"reference": "none"}, "reference must be one of sft, preferred"),
        ({"beta": 0.0}, "beta must be a number > 0, got 0.0"),
        ({"beta": math.nan}, "beta must be a number > 0, got nan"),
        ({"learning_rate": -1.0}, "learning_rate must be a number > 0, got -1.0"),
        ({"pairs": 0}, "pairs must be a whole number ≥ 1 or fresh, got 0"),
        ({"label_noise": 0.6}, "label_noise must be a number ≥ 0 and ≤ 0.5, got 0.6"),
        ({"steps": 0}, "steps must be a whole number ≥ 1, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number ≥ 1, got 0"),
        ({"model": "/no/such"}, "the micro world needs --model tiny"),
    ],
)
def test_bad_settings_are_named_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        recipes.DPO(progress=False, **settings).build()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"reference": "preferred"},
        {"world": "reviews"},
        {"world": "owner/pairs"},
        {"world": "owner/pairs", "model": "gpt2"},
    ],
    ids=str,
)
def test_fresh_pairs_need_a_world_that_makes_them(settings):
    with pytest.raises(ValueError, match="fresh pairs need the micro world and the SFT reference"):
        recipes.DPO(pairs="fresh", **settings)


def test_preferred_finetuning_gives_a_reference_that_likes_the_chosen_answers():
    gaps = {}
    for reference in ("sft", "preferred"):
        (record,) = run(1, reference=reference, pairs=500)[1]
        gaps[reference] = record.scalars["logps/chosen"] - record.scalars["logps/rejected"]
    assert gaps["preferred"] > max(0, gaps["sft"]) + 0.3


def test_a_file_in_the_worlds_language_is_evaluated_exactly_and_another_is_refused(tmp_path, reference):
    from rlhflab.worlds.preferences import PreferencePair, write_pairs

    pairs = reference.texts(reference.sample_pairs(50, 0.0, torch.Generator().manual_seed(0)))
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    algorithm = recipes.DPO(
        world=str(tmp_path / "pairs.jsonl"), steps=1, device="cpu", progress=False
    ).build()
    assert next(algorithm).exact is not None
    assert algorithm.notes["read"].startswith("pairs.jsonl, JSON Lines: 50 rows, 50 pairs; ")
    write_pairs(tmp_path / "other.jsonl", [PreferencePair("the plot was", "good", "excellent")])
    with pytest.raises(
        ValueError, match=r"other\.jsonl, line 1: unknown answer 'excellent'.*give --model a folder"
    ):
        recipes.DPO(world=str(tmp_path / "other.jsonl"), steps=1, progress=False).build()


def test_any_text_with_a_model_from_a_folder(tmp_path, world, sft):
    from rlhflab.worlds.preferences import PreferencePair, write_pairs

    sft.save_pretrained(tmp_path / "model")
    world.tokenizer.save_pretrained(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", [PreferencePair("the plot was", "good", "bad")] * 3)
    algorithm = recipes.DPO(
        world=str(tmp_path / "pairs.jsonl"), model=str(tmp_path / "model"), steps=20, batch_size=4,
        learning_rate=1e-3, device="cpu",
    ).build()  # fmt: skip
    records = list(algorithm)
    assert records[-1].exact is None and records[-1].samples[0].prompt == "the plot was"
    assert records[-1].scalars["rewards/margins"] > 0.5


def test_agrees_with_trl_on_the_same_batch(world, sft, reference, tmp_path):
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    from datasets import Dataset

    beta = 0.3
    policy = copy.deepcopy(sft)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)  # away from the reference, or every loss is ln 2
        policy.lm_head.weight.add_(0.1 * torch.randn(policy.lm_head.weight.shape, generator=generator))
    rows = reference.sample_pairs(8, 0.0, torch.Generator().manual_seed(3))
    texts = reference.texts(rows)
    ids = {
        "prompt_ids": [world.tokenizer(pair.prompt)["input_ids"] for pair in texts],
        "chosen_ids": [world.encode_answer(pair.chosen) for pair in texts],
        "rejected_ids": [world.encode_answer(pair.rejected) for pair in texts],
    }
    source = FixedPairs(texts, world.encode_prompt, world.encode_answer, sft, 8, 0)
    batch = source.next()
    ours = dpo_loss(
        *sequence_logps(policy, batch.answers).chunk(2), *batch.ref_logps.chunk(2), beta
    )[0].mean()  # fmt: skip

    # TRL joins prompt and answer without a space
    spaced = [{"prompt": p.prompt, "chosen": f" {p.chosen}", "rejected": f" {p.rejected}"} for p in texts]
    trainer = trl.DPOTrainer(
        model=policy,
        ref_model=copy.deepcopy(sft),  # accelerate wraps its forward, and copies of a wrapped model run the original
        args=trl.DPOConfig(
            str(tmp_path), beta=beta, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
            save_strategy="no", per_device_train_batch_size=8,
        ),
        processing_class=world.tokenizer,
        train_dataset=Dataset.from_list(spaced),
    )  # fmt: skip
    features = [dict(zip(ids, row, strict=True)) for row in zip(*ids.values(), strict=True)]
    inputs = trainer.data_collator(features)
    with torch.no_grad():
        theirs = trainer.compute_loss(trainer.model.eval(), inputs)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    assert abs(ours.item() - math.log(2)) > 1e-3


def test_dpo_raises_the_estimated_true_reward(reviews, reviews_sft):
    reference = SampledReference(reviews, reviews_sft)
    pairs = reference.texts(reference.sample_pairs(8000, 0.0, torch.Generator().manual_seed(0)))
    source = FixedPairs(pairs, reviews.encode_prompt, reviews.encode_answer, reviews_sft, 64, 0)
    config = DPOSettings(steps=100, evaluate_every=100, beta=0.3)
    evaluator = EstimatingEvaluator(reference, 0, samples=1000, ref_samples=100)
    records = list(DPO(copy.deepcopy(reviews_sft), source, config, evaluator))
    first, last = records[0].estimated, records[-1].estimated
    assert [record.step for record in records if record.estimated] == [1, 100] and records[-1].exact is None
    assert first["kl_rb"] < 0.05 < last["kl_rb"]
    error = (last["reward_se"] ** 2 + last["ref_reward_se"] ** 2) ** 0.5
    assert last["reward"] > last["ref_reward"] + 4 * error
    assert len(records[-1].samples) == 18
