"""Memory that runs out, in every algorithm and phase: one line, nothing left behind, and the next step can be made."""

from __future__ import annotations

import gc
import json
import traceback
from types import FunctionType

import pytest
import torch

from rlhflab import recipes
from rlhflab.algorithms.room import PHASES
from rlhflab.core.algorithm import OutOfMemory
from rlhflab.models.memory import smaller
from rlhflab.oom import release
from rlhflab.recipes import CONTROL, LANGUAGE, recipe_class
from tests.memory import CPU, alive, failing, graphs, short

AMOUNTS = "2.00 GiB asked for, 1.06 GiB free of 14.74 GiB on GPU 0, 962.56 MiB too little"
TINY = {"steps": 4, "batch_size": 8}
ENGINES = [*((name, "lab") for name in LANGUAGE), ("sft", "trl"), ("dpo", "trl"), ("reward", "trl")]


def build(name, engine="lab", **settings):
    settings |= {"engine": "trl"} if engine == "trl" else {}
    settings |= {"evaluate": False} if name == "reward" else {}  # it takes seconds
    return recipe_class(name, settings.get("world"))(**settings).build()


def model_of(algorithm):
    return getattr(algorithm, "reward_model", None) or algorithm.policy


def layer(model):
    """A module in the middle of any of the models."""
    inside = getattr(model, "base_model", model)
    blocks = [m for m in inside.modules() if type(m).__name__ in ("GPT2Block", "LlamaDecoderLayer")]
    return blocks[-1] if blocks else model.net


@pytest.fixture
def texts(tmp_path):
    """Pairs of real texts, and a function that rewards answers."""
    rows = [
        {"prompt": f"Is it {n}?", "chosen": f"Yes,{' yes' * (n % 3)}.", "rejected": "No."} for n in range(12)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "pairs.jsonl"


def real(name, engine, model_folder, texts, **settings):
    """A run of an algorithm on a model of a real architecture with adapters."""
    settings = {
        "model": str(model_folder("llama")),
        "world": str(texts),
        "steps": 3,
        "batch_size": 4,
    } | settings
    if "reward" in LANGUAGE[name].declared():
        settings |= {"reward": lambda prompts, answers: [float(len(a)) for a in answers], "max_new_tokens": 6}
    return build(name, engine, **settings)


def assert_one_line(error, *parts):
    said = str(error)
    assert "\n" not in said and len(said) < 600 and all(part in said for part in parts), said
    assert error.__context__ is None and error.__cause__ is None
    names = [frame.f_code.co_qualname for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert not [
        name for name in names if name.endswith(("._advance", "._update", "forward", "Tensor.backward"))
    ]


@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_a_step_that_does_not_fit_is_one_line_and_leaves_nothing(name, engine):
    algorithm = build(name, engine, **TINY)
    next(algorithm)
    before = graphs()
    for way in ("forward", "backward"):
        module = layer(model_of(algorithm))
        if name == "trpo" and way == "backward":
            module = layer(algorithm.task.trunk)  # it has no backward() but the value function's
        with failing(module, way) as noted, pytest.raises(OutOfMemory) as raised:
            next(algorithm)
        assert alive(noted) == 0
        assert graphs() <= before
        assert all(weight.grad is None for weight in model_of(algorithm).parameters())
        assert_one_line(raised.value, f", step 2 of 4 of {algorithm.name}: {AMOUNTS}; ", "batch_size=4")
        assert not [
            word for word in ("lora", "max_", "four_bit", "checkpointing") if word in str(raised.value)
        ]
        assert ("minibatches=4" in str(raised.value)) == (name == "ppo")
        assert (way == "backward") == ("in the backward pass" in str(raised.value))
        assert algorithm.step == 1
    assert [record.step for record in algorithm] == [2, 3, 4]


@pytest.mark.parametrize("name", list(CONTROL))
def test_control_too(name):
    algorithm = build(name, world="CartPole-v1", steps=3, envs=4)
    next(algorithm)
    with (
        failing(layer(algorithm.policy), "forward", short(CPU)) as noted,
        pytest.raises(OutOfMemory) as raised,
    ):
        next(algorithm)
    assert alive(noted) == 0 and algorithm.step == 1
    assert_one_line(
        raised.value, "in the ", f"step 2 of 3 of {name}-control: 8192.00 GiB asked for, ", "envs=2"
    )
    assert [record.step for record in algorithm] == [2, 3]


@pytest.mark.parametrize(
    ("name", "engine"), [pair for pair in ENGINES if pair[0] != "pretrain" and pair != ("sft", "trl")]
)
def test_real_models_say_what_else_would_help(name, engine, model_folder, texts):
    algorithm = real(name, engine, model_folder, texts, lora=True, max_length=64)
    next(algorithm)
    with failing(layer(model_of(algorithm)), "forward") as noted, pytest.raises(OutOfMemory) as raised:
        next(algorithm)
    assert alive(noted) == 0
    helps = "batch_size=2, (minibatches=4, )?max_length=32, (max_new_tokens=3, )?gradient_checkpointing=True"
    assert raised.match(f".*: {helps}, four_bit=True$")
    assert_one_line(raised.value, AMOUNTS)
    assert [record.step for record in algorithm] == [2, 3]


@pytest.mark.parametrize("kind", ["optimiser", "evaluation", "sampling", "reference", "scores"])
def test_the_line_names_the_phase(kind, monkeypatch):
    algorithm = build("ppo", evaluate_every=1, **TINY)
    next(algorithm)
    places = {
        "optimiser": (algorithm._optimiser.adam, "step", "in the optimiser's step, "),
        "evaluation": (algorithm.task, "evaluator", "in the evaluation, "),
        "sampling": (type(algorithm.policy), "forward", "in sampling answers, "),
        "reference": (algorithm.task.ref_policy, "forward", "in the answers' log-probabilities, "),
        "scores": (algorithm.task, "reward", "in scoring the answers, "),
    }
    holder, attribute, words = places[kind]

    def fail(*_, **__):
        raise short()

    if kind == "optimiser":
        hook = algorithm._optimiser.adam.register_step_pre_hook(fail)
    else:
        monkeypatch.setattr(holder, attribute, fail)
    with pytest.raises(OutOfMemory) as raised:
        next(algorithm)
    assert_one_line(raised.value, f"out of memory {words}step 2 of 4 of ppo: {AMOUNTS}", "batch_size=4")
    assert ("minibatches" in str(raised.value)) == (kind == "optimiser")
    hook.remove() if kind == "optimiser" else monkeypatch.undo()
    assert [record.step for record in algorithm] == [2, 3, 4]


def test_an_evaluation_after_a_step_of_trl_that_fails_costs_no_step(monkeypatch):
    algorithm = build("dpo", "trl", evaluate_every=1, **TINY)
    next(algorithm)
    for _ in range(2):
        with monkeypatch.context() as patched, pytest.raises(OutOfMemory, match="in the evaluation"):
            patched.setattr(algorithm, "evaluator", lambda *_: (_ for _ in ()).throw(short()))
            next(algorithm)
    assert [record.step for record in algorithm] == [2, 3, 4]


def test_float16_goes_on_where_the_step_was_broken_off():
    algorithm = build("dpo", **TINY)
    optimiser = algorithm._optimiser
    optimiser._scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    next(algorithm)
    hook = optimiser.adam.register_step_pre_hook(lambda *_: (_ for _ in ()).throw(short()))
    with pytest.raises(OutOfMemory, match="in the optimiser's step"):
        next(algorithm)
    hook.remove()
    assert optimiser._scaler.get_scale() == 8.0
    assert [record.step for record in algorithm] == [2, 3, 4]


def test_a_share_of_a_trust_region_step_that_was_only_tried_does_not_stay(monkeypatch):
    algorithm = build("trpo", **TINY)
    next(algorithm)
    before = [weight.clone() for weight in algorithm.task.policy_parameters()]
    surrogate, calls = algorithm._surrogate, []

    def fail_in_the_line_search(*given):
        calls.append(1)
        if len(calls) == 2:
            assert any(
                not torch.equal(a, b) for a, b in zip(before, algorithm.task.policy_parameters(), strict=True)
            )
            raise short()
        return surrogate(*given)

    monkeypatch.setattr(algorithm, "_surrogate", fail_in_the_line_search)
    with pytest.raises(OutOfMemory):
        next(algorithm)
    assert all(torch.equal(a, b) for a, b in zip(before, algorithm.task.policy_parameters(), strict=True))


def test_a_race_goes_on_with_the_same_lap():
    updates = {"dpo": 4, "ppo_learned": 0, "preferred": 4, "ppo": 0, "trpo": 0, "reinforce": 0}
    race = recipes.Race(laps=2, updates=updates, reward_updates=10, pairs=50).build()
    for _ in range(10):
        next(race)
    with (
        failing(layer(race.contestants["dpo"].policy), "backward") as noted,
        pytest.raises(OutOfMemory) as raised,
    ):
        next(race)
    assert alive(noted) == 0 and race.step == 10
    assert_one_line(raised.value, "step 1 of 4 of dpo: ", "nothing here; close what else uses this memory")
    assert [record.step for record in race] == [11, 12, 13, 14]


def test_other_errors_stay_as_they_are_and_do_not_count_either():
    algorithm = build("dpo", **TINY)
    error = ZeroDivisionError("a bug")
    with failing(layer(algorithm.policy), "forward", error), pytest.raises(ZeroDivisionError) as raised:
        next(algorithm)
    assert raised.value is error and "DPO._update" in str(
        [frame.f_code.co_qualname for frame, _ in traceback.walk_tb(error.__traceback__)]
    )
    assert [record.step for record in algorithm] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", list(LANGUAGE))
def test_building_too(name, monkeypatch, model_folder, texts):
    if name == "pretrain":
        monkeypatch.setattr("rlhflab.recipes.reference.encode_texts", fail := _failing())
        with pytest.raises(OutOfMemory) as raised:
            build(name, texts=100)
        assert_one_line(raised.value, f"in building pretrain: {AMOUNTS}", "texts=50")
    else:
        fail = _failing()
        monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", fail)
        with pytest.raises(OutOfMemory) as raised:
            real(name, "lab", model_folder, texts)
        assert_one_line(
            raised.value, f"in loading the weights, building {name}: {AMOUNTS}; what makes it smaller: "
        )
        assert raised.match(".*: lora=True, lora=True with four_bit=True$")
    assert fail.calls


def test_building_a_control_problem_too(monkeypatch):
    monkeypatch.setattr("rlhflab.tasks.control.ControlTask", _failing())
    with pytest.raises(OutOfMemory, match="in building ppo control: "):
        recipes.PPOControl(world="CartPole-v1").build()


def _failing():
    def fail(*_, **__):
        fail.calls += 1
        raise short()

    fail.calls = 0
    return fail


def test_a_training_within_another_names_no_setting_that_cannot_be_given(monkeypatch):
    monkeypatch.setattr("rlhflab.algorithms.reward_modelling.plackett_luce_loss", _failing())
    with pytest.raises(OutOfMemory) as raised:
        build("ppo", reward="model", pairs=100, progress=False, **TINY)
    assert_one_line(
        raised.value, "step 1 of 300 of reward: ", "nothing here; close what else uses this memory"
    )


def test_the_phases_are_names_of_functions_that_there_are():
    import rlhflab.recipes.answers_of_texts
    import rlhflab.tasks.control  # noqa: F401

    release()
    known = {each.__code__.co_qualname for each in gc.get_objects() if type(each) is FunctionType}
    assert set(PHASES) <= known, set(PHASES) - known


def test_only_what_is_allowed_and_not_done_yet_is_offered():
    done = {"model": "gpt2", "batch_size": 1, "lora": True, "four_bit": True, "gradient_checkpointing": True}
    assert smaller(done) == []
    assert {"max_length": 20} not in smaller({**done, "max_length": 40, "max_new_tokens": 24})
    own = smaller({**done, "lora": False, "four_bit": False, "value": "own"})
    assert own == [{"value": "shared"}, {"lora": True, "value": "shared"},
                   {"lora": True, "value": "shared", "four_bit": True}]  # fmt: skip
    assert {"minibatches": 16} not in smaller({"batch_size": 8, "minibatches": 8})
    assert smaller({"batch_size": 1, "envs": 1}) == [] and smaller({"envs": 3}) == [{"envs": 1}]
