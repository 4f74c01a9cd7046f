"""REINFORCE, PPO and TRPO on the micro world: the frontier's bound, KL estimates, the trust region, exact resume."""

import copy
import math

import pytest
import torch

from rlhflab.algorithms.ppo import PPO
from rlhflab.algorithms.reinforce import Reinforce
from rlhflab.algorithms.trpo import TRPO
from rlhflab.core.algorithm import TrainingDiverged
from rlhflab.evaluation.evaluators import ExactEvaluator
from rlhflab.models.loading import frozen_copy
from rlhflab.objectives.divergence import categorical_kl
from rlhflab.objectives.policy_gradient import masked_mean
from rlhflab.settings.ppo import PPOControlSettings, PPOSettings
from rlhflab.settings.reinforce import ReinforceSettings
from rlhflab.settings.trpo import TRPOSettings
from rlhflab.tasks.language import LanguageTask, Prompts
from rlhflab.tasks.rewards import TextReward, TrueReward

KINDS = {
    "reinforce": (Reinforce, ReinforceSettings, "none"),
    "ppo": (PPO, PPOSettings, "shared"),
    "trpo": (TRPO, TRPOSettings, "own"),
}


@pytest.fixture
def make(world, sft, reference):
    """name → algorithm on the micro world, starting at the reference."""

    def build(name, steps=6, reward=None, batch=54, evaluate_every=3, value=None, seed=0, **settings):
        kind, config, values = KINDS[name]
        prompts = Prompts(world.prompt_ids, world.stop_ids, world.max_tokens)
        task = LanguageTask(
            copy.deepcopy(sft), frozen_copy(sft), prompts, reward or TrueReward(world), batch, seed, value or values,
            evaluator=ExactEvaluator(reference, seed),
        )  # fmt: skip
        return kind(task, config(steps=steps, evaluate_every=evaluate_every, seed=seed, **settings))

    return build


@pytest.mark.parametrize("name", KINDS)
def test_learning_closes_regret_and_never_passes_the_frontier(make, name):
    rates = {} if name == "trpo" else {"learning_rate": 1e-3}
    algorithm = make(name, steps={"trpo": 12, "ppo": 40, "reinforce": 60}[name], batch=252, **rates)
    exact = [record.exact for record in algorithm if record.exact]
    attainable = exact[-1]["optimum"] - exact[-1]["ref_reward"]
    assert exact[-1]["regret"] < 0.45 * attainable
    assert all(e["efficiency"] <= 1 + 1e-9 and e["regret"] >= 0 for e in exact)


@pytest.mark.parametrize("name", KINDS)
def test_the_same_seed_gives_the_same_records_and_another_seed_others(make, name):
    first, again, other = (list(make(name, steps=2, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first[-1].scalars != other[-1].scalars


@pytest.mark.parametrize("name", KINDS)
def test_a_stopped_run_continues_bit_for_bit(make, name):
    whole = list(make(name))
    stopped = make(name)
    for _ in range(4):
        next(stopped)
    state = copy.deepcopy(stopped.state_dict())
    fresh = make(name)
    fresh.load_state_dict(state)
    assert list(fresh) == whole[4:]


@pytest.mark.parametrize("name", KINDS)
def test_a_constant_reward_leaves_the_policy_at_the_reference(make, name):
    constant = TextReward(lambda prompts, answers: [3.0] * len(answers), [f"{i}" for i in range(9)], str)
    last = list(make(name, steps=40, reward=constant, batch=126, evaluate_every=40))[-1]
    assert (
        last.exact["kl"] < 0.02
    )  # it strays while V still learns the constant, and the KL term brings it back
    assert last.scalars["objective/scores"] == 3.0


def test_kl_estimates_agree_with_the_exact_kl(make):
    """PPO moves the policy; the mean sequence log-ratio of many samples is then KL(π_θ‖π_ref) within its error."""
    algorithm = make("ppo", steps=25, batch=252)
    for _ in algorithm:
        pass
    task = algorithm.task
    exact = task.evaluator(algorithm.policy, 1.0)[0]["kl"]
    estimates = torch.tensor([task.collect({"beta": 1.0}).scalars["objective/kl"] for _ in range(40)])
    error = float(estimates.std() / 40**0.5)
    assert exact > 0.1
    assert abs(float(estimates.mean()) - exact) < 4 * error < 0.1 * exact


def test_ppo_starts_every_rollout_at_ratio_1_and_reports_the_clip(make):
    record = next(make("ppo", epochs=1, learning_rate=1e-9, minibatches=1))
    assert record.arrays["ratio"] == pytest.approx([1.0] * len(record.arrays["ratio"]), abs=1e-4)
    assert record.scalars["policy/clipfrac_avg"] == 0
    moved = next(make("ppo", epochs=8, learning_rate=5e-3, clip_range=0.02))
    assert moved.scalars["policy/clipfrac_avg"] > 0.1
    assert min(moved.arrays["ratio"]) < 0.98 and max(moved.arrays["ratio"]) > 1.02


def test_ppos_epochs_stop_at_the_target_kl(make):
    long = {"epochs": 10, "learning_rate": 5e-3}
    free = next(make("ppo", **long))
    held = next(make("ppo", target_kl=1e-4, **long))
    assert free.scalars["policy/updates"] == 20 and held.scalars["policy/updates"] < 20
    assert held.scalars["policy/kl_old_k3"] < free.scalars["policy/kl_old_k3"]


def test_the_adaptive_controller_moves_beta_towards_its_target(make):
    loose = make("ppo", steps=3, kl_target=100.0, kl_horizon=54)
    assert [record.knobs["beta"] for record in loose] == pytest.approx([1.0, 0.8, 0.64])
    tight = make("ppo", steps=8, kl_target=0.01, kl_horizon=540, learning_rate=3e-3)
    assert [record.knobs["beta"] for record in tight][-1] > 1.05


@pytest.mark.parametrize("max_kl", [0.003, 0.1])
def test_trpo_never_breaks_its_bound(make, max_kl):
    """Measured anew on the rollout's own states, from the policies before and after each step."""
    algorithm = make("trpo", steps=5, max_kl=max_kl, schedule="constant")
    task, collect = algorithm.task, algorithm.task.collect
    kept = []
    accepted = []
    task.collect = lambda knobs: kept.append(collect(knobs)) or kept[-1]
    for _ in range(5):
        before = copy.deepcopy(algorithm.policy.state_dict())
        record = next(algorithm)
        rollout = kept[-1].rollout
        with torch.no_grad():
            new = task.outputs(rollout).distribution.logits
            after = copy.deepcopy(algorithm.policy.state_dict())
            algorithm.policy.load_state_dict(before)
            old = task.outputs(rollout).distribution.logits
            algorithm.policy.load_state_dict(after)
        kl = float(masked_mean(categorical_kl(old, new), rollout.mask))
        assert 0 <= kl <= max_kl * (1 + 1e-4)
        assert record.scalars["trpo/kl_old"] == pytest.approx(kl, rel=1e-3, abs=1e-7)
        accepted.append(record.scalars["trpo/share"] > 0)
        assert (kl > 0) == (record.scalars["trpo/gain"] > 0) == accepted[-1]
    assert sum(accepted) >= 3  # at δ = 0.1 ten tries fail now and then


def test_a_small_trpo_step_is_what_the_quadratic_model_predicts(make):
    record = next(make("trpo", max_kl=1e-4, batch=126, cg_iterations=20, damping=1e-4, fisher_share=1.0))
    scalars = record.scalars
    assert scalars["trpo/kl_old"] == pytest.approx(scalars["trpo/predicted_kl_old"], rel=0.25)
    assert scalars["trpo/gain"] == pytest.approx(scalars["trpo/predicted_gain"], rel=0.1)
    assert record.arrays["cg_residuals"][0] == 1 and record.arrays["cg_residuals"][-1] < 0.5


def test_without_the_line_search_the_full_step_is_taken_and_bounds_break(make):
    free = make("trpo", steps=6, max_kl=0.5, line_search=False, damping=1e-5, batch=18, schedule="constant")
    records = list(free)
    assert all(record.scalars["trpo/share"] == 1 for record in records)
    assert any(record.scalars["trpo/kl_old"] > 0.5 for record in records)


@pytest.mark.parametrize("value", ["shared", "own"])
def test_the_value_function_learns_to_explain_the_returns(make, value):
    records = list(make("ppo", steps=30, batch=252, value=value, learning_rate=2e-3, value_coef=0.5))
    explained = [record.scalars["val/explained_variance"] for record in records]
    assert abs(explained[0]) < 1e-3 and sum(explained[-5:]) / 5 > 0.1


def test_a_knob_acts_on_the_next_step(make):
    algorithm = make("ppo", steps=3)
    next(algorithm)
    algorithm.knobs.beta = 50.0
    record = next(algorithm)
    assert record.knobs["beta"] == 50.0
    kl, score = record.scalars["objective/kl"], record.scalars["objective/scores"]
    assert record.scalars["objective/rlhf_reward"] == pytest.approx(score - 50.0 * kl, abs=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reward_that_is_no_number_stops_with_its_answer(make, world, bad):
    texts = TextReward(
        lambda prompts, answers: [bad if a.startswith("g") else 0.0 for a in answers],
        world.prompts,
        world.decode_answer,
    )
    with pytest.raises(
        ValueError, match=rf"the reward of 'g[a-z ]*' to 'the \w+ \w+' is {bad}; rewards must be finite"
    ):
        next(make("ppo", reward=texts))


def test_weights_that_are_no_numbers_stop_with_step_and_knobs(make):
    algorithm = make("ppo")
    next(algorithm)
    with torch.no_grad():
        next(algorithm.policy.parameters()).mul_(math.nan)
    with pytest.raises(TrainingDiverged, match=r"at step 2 with beta=1, learning_rate=0.001, clip_range=0.2"):
        next(algorithm)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (PPOSettings, {"minibatches": 0}, "minibatches must be a whole number ≥ 1, got 0"),
        (PPOSettings, {"target_kl": 0.0}, "target_kl must be a number > 0 or None, got 0.0"),
        (PPOSettings, {"steps": 0}, "steps must be a whole number ≥ 1, got 0"),
        (TRPOSettings, {"fisher_share": 1.5}, "fisher_share must be a number > 0 and ≤ 1, got 1.5"),
        (TRPOSettings, {"damping": math.nan}, "damping must be a number ≥ 0, got nan"),
        (PPOControlSettings, {"gamma": 1.1}, "gamma must be a number ≥ 0 and ≤ 1, got 1.1"),
    ],
)
def test_bad_settings_are_named(config, settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        config(**settings)


def test_lora_policies_are_their_own_reference_with_adapters_off(world, sft, reference):
    from peft import LoraConfig, get_peft_model

    start = copy.deepcopy(sft)
    torch.manual_seed(0)  # PEFT draws the adapters from the global state
    policy = get_peft_model(
        start, LoraConfig(r=8, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    )
    prompts = Prompts(world.prompt_ids, world.stop_ids, 4)
    task = LanguageTask(
        policy, None, prompts, TrueReward(world), 126, 0, "shared", evaluator=ExactEvaluator(reference, 0)
    )
    frozen = copy.deepcopy(dict(policy.get_base_model().named_parameters()))
    algorithm = PPO(task, PPOSettings(steps=25, evaluate_every=25, learning_rate=1e-2))
    records = list(algorithm)
    assert records[0].scalars["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert records[-1].scalars["objective/kl"] > 0.02
    assert records[-1].exact["reward"] > records[-1].exact["ref_reward"] + 0.1
    for name, weight in policy.get_base_model().named_parameters():
        assert "lora" in name or torch.equal(weight, frozen[name])


@pytest.mark.parametrize("value", ["shared", "own"])
def test_prompts_of_several_lengths_are_judged_where_their_answers_are(world, sft, value):
    """What is sampled behind padding agrees with what is judged without it: log π_θ, log π_ref and V of each token."""
    prompts = [list(row[: 1 + at % 3]) for at, row in enumerate(world.prompt_ids.tolist())]
    seen = []

    def reward(answers):
        seen.append(answers.batch)
        return torch.zeros(len(answers.prompts))

    task = LanguageTask(
        copy.deepcopy(sft),
        frozen_copy(sft),
        Prompts(prompts, world.stop_ids, world.max_tokens),
        reward,
        27,
        0,
        value,
    )
    torch.nn.init.normal_(task.head.weight)
    rollout, scalars = task.collect({"beta": 1.0})
    assert abs(scalars["objective/kl"]) < 1e-4 and rollout.rewards.abs().max() < 1e-4
    some = rollout.rows(torch.tensor([3, 0, 20, 7]))
    with torch.no_grad():
        distribution, values = task.outputs(some)
    logps = distribution.log_prob(some.actions) * some.mask
    assert torch.allclose(logps, some.logps, atol=1e-4) and torch.allclose(
        values * some.mask, some.values, atol=1e-4
    )
    assert some.values.abs().max() > 0.1
    (batch,) = seen
    for row, prompt in enumerate(rollout.groups.tolist()):
        length, tokens = len(prompts[prompt]), rollout.actions[row][rollout.mask[row]].tolist()
        assert batch.input_ids[row, : length + len(tokens)].tolist() == prompts[prompt] + tokens
        assert batch.mask[row].nonzero()[:, 0].tolist() == list(range(length, length + len(tokens)))
    assert len(list(PPO(task, PPOSettings(steps=2, evaluate_every=2)))) == 2


def test_an_answer_that_was_cut_pays_the_penalty_on_its_last_token(world, sft):
    """At the reference and with a score of 0 nothing else is earned."""
    stops = (world.stop_ids[0], *world.encode_answer("good")[:1])
    task = LanguageTask(
        copy.deepcopy(sft), frozen_copy(sft), Prompts(world.prompt_ids, stops, 2),
        lambda answers: torch.zeros(len(answers.prompts)), 200, 0, "none", missing_stop_penalty=3.0,
    )  # fmt: skip
    (rollout, scalars) = task.collect({"beta": 1.0})
    last = rollout.mask.sum(1) - 1
    rows = torch.arange(200)
    cut = ~torch.isin(rollout.actions[rows, last], torch.tensor(stops))
    assert 10 < int(cut.sum()) < 190 and int((last == 0).sum()) > 10
    expected = torch.zeros(200, 2)
    expected[rows, last] = -3.0 * cut
    torch.testing.assert_close(rollout.rewards, expected, atol=1e-4, rtol=0)
    assert scalars["stopped"] == pytest.approx(1 - float(cut.float().mean()))
    assert scalars["objective/scores"] == 0
    assert scalars["objective/rlhf_reward"] == pytest.approx(-3.0 * float(cut.float().mean()), abs=1e-4)
