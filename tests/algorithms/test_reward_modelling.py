"""Reward models learn what preferences show, are judged over every answer, and serve policy optimisation."""

import copy
import json
import math

import pytest
import torch

from rlhflab import recipes
from rlhflab.boundary import Fault
from rlhflab.core.record import Record
from rlhflab.data.ranking_source import WorldRankings
from rlhflab.data.sampled import SampledReference
from rlhflab.evaluation.reward_judge import (
    MODEL_ESS,
    ExactRewardJudge,
    SampledRewardJudge,
    all_scores,
    calibration,
    pursue,
    raw_scores,
)
from rlhflab.models.reward import answer_scores, reward_model_from
from rlhflab.objectives.optimum import expected_reward, frontier_reward, reward_levels
from rlhflab.objectives.preference import plackett_luce_loss, preference_probability
from rlhflab.tasks.rewards import score_texts


def build(**settings):
    return recipes.Reward(
        **{"device": "cpu", "progress": False, "pairs": 300, "steps": 8, "evaluate_every": 8, **settings}
    ).build()


@pytest.fixture(scope="module")
def fitted():
    algorithm = build(pairs=4000, steps=150, evaluate_every=150)
    return algorithm, list(algorithm)


def test_it_learns_to_rank_what_it_has_not_seen(fitted):
    _, records = fitted
    first, last = records[0], records[-1]
    assert first.scalars["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert last.scalars["eval/loss"] < 0.64 and last.scalars["eval/accuracy"] > 0.65
    assert last.exact["rank_correlation"] > 0.5 > abs(first.exact["rank_correlation"])


def test_held_out_rankings_are_never_trained_on_whatever_the_knob_says():
    algorithm = build(pairs=60, steps=30, evaluate=False)
    algorithm.knobs.pairs = 20_000  # more than there are
    seen = {answer // 2 for record in algorithm for answer in record.pairs.ids}
    assert seen == set(range(60)) and algorithm.rankings.size - algorithm.config.held_out == 60


def test_records_are_plain_data(fitted):
    for record in fitted[1][:2]:
        assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert fitted[1][0].exact and fitted[1][0].arrays and fitted[1][0].pairs


def test_the_policy_that_is_optimal_for_it_is_worth_more_and_never_passes_the_frontier(fitted):
    _, records = fitted
    first, last = (record.exact for record in (records[0], records[-1]))
    assert last["regret"] < 0.7 * first["regret"] and last["regret"] >= 0
    assert last["reward"] > last["ref_reward"] + 0.3 and last["efficiency"] <= 1 + 1e-9


def test_the_true_reward_as_a_reward_model_has_no_regret(reference, monkeypatch):
    from rlhflab.evaluation import reward_judge

    monkeypatch.setattr(reward_judge, "raw_scores", lambda view, model: view.rewards + 5.0)
    judge = reward_judge.ExactRewardJudge(reference)
    at = torch.tensor([0.7], dtype=torch.float64)
    best = reference.frontier(at)
    assert judge.backdrop.at(0.7).objective == pytest.approx(float(best.reward - at * best.kl), abs=1e-3)
    found = judge(None, beta=0.7)
    assert found.exact["regret"] == pytest.approx(0, abs=1e-9)
    assert found.exact["rank_correlation"] == pytest.approx(1)
    assert found.arrays["calibration/predicted"] == pytest.approx(found.arrays["calibration/true"])
    spread = [m - t for m, t in zip(found.arrays["scatter/model"], found.arrays["scatter/true"], strict=True)]
    assert max(spread) > min(spread)  # each prompt has its own shift


def test_scores_are_centred_on_the_reference_and_a_shift_changes_nothing(fitted, reference):
    model = copy.deepcopy(fitted[0].reward_model)
    scores = all_scores(reference, model)
    assert raw_scores(reference, model).dtype == torch.float64
    assert expected_reward(reference.logps, scores).abs().max() < 1e-9
    with torch.no_grad():
        model.score.bias.add_(100.0)
    assert (raw_scores(reference, model) - 100 - scores).std(1).max() < 1e-3
    torch.testing.assert_close(all_scores(reference, model), scores, atol=1e-3, rtol=0)


def test_calibration_by_hand():
    scores = torch.tensor([0.0, 0.05, 3.0])
    true = torch.tensor([1.0, 1.0, -1.0])
    found = calibration(scores, torch.zeros(3), true, torch.zeros(3))
    p, q = (
        preference_probability(scores, torch.zeros(3)).tolist(),
        preference_probability(true, torch.zeros(3)).tolist(),
    )
    assert found["calibration/predicted"] == pytest.approx(((p[0] + p[1]) / 2, p[2]))
    assert found["calibration/true"] == pytest.approx(((q[0] + q[1]) / 2, q[2]))


def test_rankings_follow_the_true_reward_as_plackett_luce_says(world, sft):
    """The share of pairs in which the better answer won is the mean of its Bradley–Terry probability."""
    source = WorldRankings(world, sft, 3000, 2, seed=0)
    rows = source.take(torch.arange(3000), 0.0)
    margins = torch.tensor([pair.margin for pair in rows.texts])
    expected = preference_probability(margins.abs(), torch.zeros(3000))
    seen = (margins > 0).float()[margins != 0].mean()
    error = 4 * (0.25 / 3000) ** 0.5
    assert abs(float(seen) - float(expected[margins != 0].mean())) < error
    first = source.take(torch.tensor([5]), 0.0).texts[0]
    assert first.margin == pytest.approx(
        world.true_reward(first.prompt, first.chosen) - world.true_reward(first.prompt, first.rejected)
    )


def test_label_noise_turns_the_same_rankings_round_every_time_and_more_of_them_with_more_noise(world, sft):
    source = WorldRankings(world, sft, 1000, 3, seed=0)
    ids = torch.arange(1000)
    clean, some, again, more = (source.take(ids, noise) for noise in (0.0, 0.2, 0.2, 0.4))
    assert not clean.flipped.any() and torch.equal(some.flipped, again.flipped)
    assert 0.15 < some.flipped.float().mean() < 0.25 and (more.flipped | ~some.flipped).all()
    row = int(some.flipped.nonzero()[0])
    assert (some.texts[row].chosen, some.texts[row].rejected) == (
        clean.texts[row].rejected,
        clean.texts[row].chosen,
    )
    assert some.ids[row] == clean.ids[row] + 1
    ranked = clean.answers.input_ids.view(3, 1000, -1)
    turned = some.answers.input_ids.view(3, 1000, -1)
    assert torch.equal(turned[:, row], ranked[:, row].flip(0))


def test_a_larger_pool_begins_with_the_smaller_one_and_no_ranking_repeats_an_answer(world, sft):
    small, large = (WorldRankings(world, sft, size, 4, seed=3) for size in (600, 1100))
    assert small.take(torch.arange(600), 0.0).texts == large.take(torch.arange(600), 0.0).texts
    answers = large.take(torch.arange(1100), 0.0).answers
    texts = [tuple(row.tolist()) for row in answers.input_ids.view(4, 1100, -1).transpose(0, 1).flatten(0, 1)]
    assert all(len(set(texts[4 * i : 4 * i + 4])) == 4 for i in range(1100))


def test_more_answers_a_ranking_use_the_plackett_luce_loss():
    algorithm = build(ranked=4)
    record = next(algorithm)
    assert record.scalars["loss"] == pytest.approx(math.log(24), abs=1e-5)  # all 4! orders alike
    scores = torch.tensor([[2.0, 1.0, 0.5, 0.1]])
    assert float(plackett_luce_loss(scores)) < math.log(24)


def test_the_live_knobs_change_the_data_of_the_next_step():
    algorithm = build(label_noise=0.0, batch_size=128, evaluate=False)
    assert not any(next(algorithm).pairs.flipped)
    algorithm.knobs.label_noise = 0.5
    algorithm.knobs.pairs = 3
    record = next(algorithm)
    assert {pair // 2 for pair in record.pairs.ids} <= {0, 1, 2} and any(record.pairs.flipped)


def test_a_blind_model_gives_the_same_score_to_what_it_cannot_tell_apart(world, sft):
    algorithm = build(blind="film", steps=5)
    model = algorithm.reward_model
    list(algorithm)
    prompts = [
        world.prompts.index(prompt) for prompt in ("the comedy was", "the thriller was", "the plot was")
    ]
    from rlhflab.models.logps import join_answers

    answer = world.encode_answer("very funny")
    batch = join_answers([world.prompt_ids[p].tolist() for p in prompts], [answer] * 3)
    scores = answer_scores(model, batch).tolist()
    assert scores[0] == scores[1] == scores[2] != 0
    seeing = reward_model_from(sft)
    torch.nn.init.normal_(seeing.score.weight)
    assert len(set(answer_scores(seeing, batch).tolist())) == 3


def test_the_same_seed_gives_the_same_records_and_a_stopped_run_continues_bit_for_bit():
    whole, again = list(build(evaluate=False)), list(build(evaluate=False))
    assert whole == again and list(build(evaluate=False, seed=1))[-1].scalars != whole[-1].scalars
    stopped = build(evaluate=False)
    for _ in range(3):
        next(stopped)
    state = copy.deepcopy(stopped.state_dict())
    fresh = build(evaluate=False)
    fresh.load_state_dict(state)
    assert list(fresh) == whole[3:]


def test_real_preferences_with_a_model_from_a_folder(tmp_path, world, sft, hh_rlhf):
    """HH-RLHF with a random GPT-2 of another vocabulary: the loss of a batch it sees again and again falls."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    sft.save_pretrained(tmp_path)
    tokenizer = byte_tokenizer()
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_positions=512, n_embd=32, n_layer=1, n_head=2)
    )
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert AutoTokenizer.from_pretrained(tmp_path / "model").eos_token == "<eos>"
    algorithm = recipes.Reward(
        world=str(hh_rlhf), model=str(tmp_path / "model"), pairs=8, steps=30, batch_size=8, learning_rate=3e-3,
        skip_bad=True, device="cpu",
    ).build()  # fmt: skip
    records = list(algorithm)
    assert records[0].scalars["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert records[-1].scalars["loss"] < 0.6 and records[-1].exact is None


def byte_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({"<eos>": 0, **{c: i + 1 for i, c in enumerate(alphabet)}}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


def test_policy_optimisation_against_a_model_raises_its_score_and_the_true_reward(sft):
    algorithm = recipes.PPO(
        reward="model", pairs=2000, steps=40, evaluate_every=40, device="cpu", progress=False
    ).build()
    records = list(algorithm)
    assert abs(records[0].scalars["objective/scores"]) < 0.3  # centred on the reference
    assert records[-1].scalars["objective/scores"] > records[0].scalars["objective/scores"] + 0.2
    assert records[-1].exact["reward"] > records[-1].exact["ref_reward"] + 0.2
    assert all(not p.requires_grad for p in algorithm.task.reward.reward_model.parameters())


def test_any_function_of_texts_is_a_reward(world, sft):
    def likes_very(prompts, answers):
        return [float("very" in answer.split()) for answer in answers]

    algorithm = recipes.PPO(
        reward=likes_very, beta=0.2, steps=30, evaluate_every=30, device="cpu", progress=False
    ).build()
    records = list(algorithm)
    assert records[-1].scalars["objective/scores"] > records[0].scalars["objective/scores"] + 0.2


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([1.0], r"a reward must be one number per answer, \(2,\), got \(1,\)"),
        ([[1.0], [2.0]], r"got \(2, 1\)"),
        (["good", "bad"], "a reward must be a list of 2 numbers"),
        (None, "a reward must be a list of 2 numbers, got None"),
        ([0.0, math.nan], "the reward of 'b' to 'y' is nan; rewards must be finite"),
        ([10**400, 1], "a reward must be a list of 2 numbers, got .1000"),
        ([10**5000, 1], "a reward must be a list of 2 numbers, got a list"),  # Python refuses to print it
        ({"a": 1, "b": 2}, "a reward must be a list of 2 numbers"),
        ((x for x in (1, 2)), "a reward must be a list of 2 numbers"),
    ],
)
def test_wrong_rewards_are_named(found, message):
    with pytest.raises(ValueError, match=message):
        score_texts(lambda prompts, answers: found, ["x", "y"], ["a", "b"])
    with pytest.raises(ValueError, match="at least one, got 0 and 0"):
        score_texts(lambda prompts, answers: [], [], [])


def test_a_reward_that_raises_is_one_line_with_its_name_and_place(tmp_path):
    def fails(prompts, answers):
        raise SystemExit("bye")

    line = fails.__code__.co_firstlineno
    with pytest.raises(Fault) as raised:
        score_texts(fails, ["x"], ["a"])
    file = "test_reward_modelling.py"
    assert str(raised.value).endswith(
        f".fails ({file}, line {line}): SystemExit: bye ({file}, line {line + 1})"
    )
    for passes in (KeyboardInterrupt(), MemoryError()):
        with pytest.raises(type(passes)) as raised:
            score_texts(lambda *_, error=passes: (_ for _ in ()).throw(error).__next__(), ["x"], ["a"])
        assert raised.value is passes


def test_a_bug_in_a_reward_of_ours_keeps_its_traceback():
    def ours(prompts, answers):
        return {}["missing"]

    ours.__module__ = "rlhflab.tasks.rewards"
    with pytest.raises(KeyError, match=r"^'missing'$") as raised:
        score_texts(ours, ["x"], ["a"])
    assert raised.traceback[-1].name == "ours"


def test_the_reviews_world_has_rankings_judges_and_policies(reviews, reviews_sft):
    reward = build(world="reviews", pairs=200, steps=3, evaluate_every=3, blind="hype")
    last = list(reward)[-1]
    assert last.exact is None and last.estimated["ess"] > 1
    assert ("reward_se" in last.estimated) == (last.estimated["optimum_trusted"] == 1)
    assert {"scatter/true", "calibration/true"} <= set(last.arrays)
    ppo = recipes.PPO(
        world="reviews", steps=2, batch_size=36, evaluate_every=2, device="cpu", progress=False
    ).build()
    last = list(ppo)[-1]
    assert last.estimated["reward_se"] > 0 and last.scalars["answer_length"] > 4
    with pytest.raises(ValueError, match="blind must be one of sentiment, coherence"):
        build(world="reviews", blind="film")


def test_the_pursuit_of_the_true_reward_is_the_frontier_and_no_other_lies_above(reference):
    betas = torch.tensor([0.1, 1.0, 10.0])
    right, best = pursue(reference, reference.rewards, betas), reference.frontier(betas)
    torch.testing.assert_close((right.kl, right.reward), (best.kl, best.reward))
    torch.testing.assert_close(right.score, right.reward)
    noise = torch.randn(reference.rewards.shape, generator=torch.Generator().manual_seed(0))
    found = pursue(reference, reference.rewards + noise, betas)
    levels = reward_levels(reference.logps, reference.rewards)
    for kl, reward in zip(found.kl.tolist(), found.reward.tolist(), strict=True):
        assert reward < frontier_reward(*levels, kl)
    assert (found.score > found.reward).all()


def test_what_samples_say_of_a_reward_model_agrees_with_the_exact_judgement(world, sft, reference):
    model = reward_model_from(sft)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.score.weight, std=0.1)
    exact = ExactRewardJudge(reference)(model, 1.0).exact
    judge = SampledRewardJudge(SampledReference(world, sft), samples=800)
    found = judge(model, 1.0).estimated
    assert found["optimum_trusted"] == 1 and found["ess"] > MODEL_ESS and judge.backdrop.reward_se
    assert abs(found["reward"] - exact["reward"]) < 4 * found["reward_se"] + 0.01
    assert abs(found["kl"] - exact["kl"]) < 0.05 and abs(found["regret"] - exact["regret"]) < 0.1
    assert not {"kl_se", "regret_se"} & found.keys()  # their bars would be too short
    greedy = judge(model, 0.02).estimated
    assert set(greedy) == {"ref_reward", "rank_correlation", "ess", "optimum_trusted"}
    assert greedy["optimum_trusted"] == 0
