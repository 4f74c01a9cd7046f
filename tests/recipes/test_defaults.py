"""What a training is made with where nothing is said: README's figures and the labs were measured with it."""

from dataclasses import fields, is_dataclass

import pytest

from rlhflab.recipes import CONTROL as CONTROL_NAMES
from rlhflab.recipes import LANGUAGE, recipe_class
from rlhflab.settings.supervised import SupervisedSettings

REAL = {"model": "owner/model", "world": "owner/name"}
ONE = {"gamma": 1.0, "schedule": "linear", "max_grad_norm": 1.0, "seed": 0}
PPO = {
    "entropy_coef": 0.0, "value_clip": None, "whiten_advantages": True, "target_kl": None, "kl_target": None,
    "kl_horizon": 10_000, "clip_range": 0.2,
}  # fmt: skip
TRPO = {
    "cg_iterations": 10, "damping": 1e-3, "preconditioned": True, "line_search": True, "line_search_tries": 10,
    "value_learning_rate": 2e-3,
}  # fmt: skip
CONTROL = {**ONE, "warmup": 0, "evaluate_every": 10, "max_grad_norm": 0.5}
CONTROL_PPO = {**CONTROL, **PPO, "value_coef": 1.0, "adam_eps": 1e-5, "learning_rate": 3e-3, "envs": 4}
CONTROL_TRPO = {**CONTROL, **TRPO, "fisher_share": 1.0, "value_epochs": 20, "minibatches": 2, "horizon": 128}
EXPECTED = {
    ("reward", "micro"): {
        "steps": 300, "batch_size": 64, "schedule": "linear", "warmup": 10, "max_grad_norm": 1.0, "weight_decay": 0.0,
        "held_out": 512, "test_every": 10, "evaluate_every": 100, "seed": 0, "learning_rate": 1e-3, "pairs": 2000,
        "label_noise": 0.0, "beta": 1.0,
    },
    ("dpo", "micro"): {
        "steps": 600, "schedule": "linear", "warmup": 10, "max_grad_norm": 1.0, "evaluate_every": 25, "beta": 1.0,
        "learning_rate": 1e-3, "seed": 0,
    },
    ("reinforce", "micro"): {
        **ONE, "steps": 800, "warmup": 20, "evaluate_every": 25, "to_go": False, "beta": 1.0, "learning_rate": 3e-3,
    },
    ("ppo", "micro"): {
        **ONE, **PPO, "steps": 400, "warmup": 20, "evaluate_every": 25, "minibatches": 2, "value_coef": 0.1,
        "adam_eps": 1e-8, "beta": 1.0, "learning_rate": 1e-3, "gae_lambda": 0.95, "epochs": 2,
    },
    ("trpo", "micro"): {
        **ONE, **TRPO, "steps": 160, "warmup": 0, "evaluate_every": 10, "fisher_share": 0.5, "value_epochs": 4,
        "minibatches": 4, "beta": 1.0, "max_kl": 0.01, "gae_lambda": 0.95,
    },
    ("reinforce", "CartPole-v1"): {
        **CONTROL, "max_grad_norm": 1.0, "steps": 60, "gamma": 0.99, "to_go": True, "learning_rate": 1e-2, "envs": 16,
        "horizon": 1,
    },
    ("ppo", "CartPole-v1"): {
        **CONTROL_PPO, "steps": 195, "gamma": 0.98, "minibatches": 1, "gae_lambda": 0.9, "epochs": 20, "horizon": 128,
    },
    ("ppo", "Pendulum-v1"): {
        **CONTROL_PPO, "steps": 50, "gamma": 0.9, "minibatches": 4, "gae_lambda": 0.95, "epochs": 10, "horizon": 512,
    },
    ("trpo", "CartPole-v1"): {
        **CONTROL_TRPO, "steps": 195, "gamma": 0.98, "max_kl": 0.01, "gae_lambda": 0.95, "envs": 4,
    },
    ("trpo", "Acrobot-v1"): {
        **CONTROL_TRPO, "steps": 120, "gamma": 0.99, "max_kl": 0.01, "gae_lambda": 0.95, "envs": 8,
    },
    ("trpo", "Pendulum-v1"): {
        **CONTROL_TRPO, "steps": 100, "gamma": 0.9, "max_kl": 0.02, "gae_lambda": 0.95, "envs": 8,
    },
}  # fmt: skip


def settings_of(found):
    """What the algorithm itself reads: the settings that are declared in `rlhflab.settings`."""
    read = [base for base in type(found).__mro__ if base.__module__.startswith("rlhflab.settings")]
    return {name: getattr(found, name) for base in read for name in base.declared()}


@pytest.mark.parametrize(("name", "world"), EXPECTED, ids=str)
def test_a_training_is_made_with_these_settings(name, world):
    if world != "micro":
        pytest.importorskip("gymnasium")
    run = recipe_class(name, world)(world=world, progress=False, device="cpu").build()
    knobs, others = run.knobs.snapshot(), {}
    if world != "micro":
        others = {"envs": run.task.world.envs, "horizon": run.task.horizon}
    elif hasattr(run, "gamma"):
        others = {"gamma": run.gamma(knobs)}
        assert (run.task.trunk is not None) == (name == "trpo")  # whose value model is one of its own
    found = {**settings_of(run.config), **others}
    assert found == EXPECTED[name, world]
    assert knobs == {knob: found[knob] for knob in knobs}


@pytest.mark.parametrize(
    ("name", "world"),
    [(name, "micro") for name in LANGUAGE] + [(name, "CartPole-v1") for name in CONTROL_NAMES],
)
def test_every_setting_is_given_by_its_name(name, world):
    made_of = filter(is_dataclass, recipe_class(name, world).__mro__)
    assert all(field.kw_only for each in made_of for field in fields(each))


@pytest.mark.parametrize(
    ("name", "world"),
    [(name, "micro") for name in LANGUAGE] + [(name, "CartPole-v1") for name in CONTROL_NAMES],
)
def test_a_default_is_within_what_is_allowed(name, world):
    for setting, declared in recipe_class(name, world).declared().items():
        if declared.default is not None:
            assert declared.checked(setting, declared.default) == declared.default


def test_maximum_likelihood_is_made_with_these():
    found = SupervisedSettings()
    assert settings_of(found) == {
        "steps": 300, "batch_size": 128, "seed": 0, "schedule": "cosine", "warmup": 20, "evaluate_every": 25,
        "learning_rate": 3e-3, "max_grad_norm": 1.0, "weight_decay": 0.01, "beta": 1.0,
    }  # fmt: skip
    assert found.knobs().snapshot() == {"learning_rate": 3e-3}


# The defaults that depend on the model, the world or the other settings, as they were when they stood in the builders.
ELSEWHERE = [
    ("pretrain", {}, {"learning_rate": 3e-3, "steps": 400, "batch_size": 128, "p_noise": 0.3, "texts": 20_000}),
    ("pretrain", {"world": "reviews"}, {"learning_rate": 5e-3}),
    ("sft", {}, {"learning_rate": 1e-3, "steps": 200, "batch_size": 128, "warmup": 20, "texts": 10_000}),
    ("sft", {"world": "reviews"}, {"learning_rate": 2e-3}),
    ("sft", REAL, {"learning_rate": None, "batch_size": 8, "max_length": 512, "beta": 1.0}),
    ("dpo", {}, {"batch_size": 32, "pairs": 2000}),
    ("dpo", {"pairs": "fresh"}, {"batch_size": 256}),
    ("dpo", REAL, {"beta": 0.1, "batch_size": 8, "pairs": 1600, "warmup": 10, "learning_rate": None}),
    ("dpo", {**REAL, "steps": 30, "batch_size": 2}, {"pairs": 20, "warmup": 3}),
    ("reward", REAL, {"beta": 1.0, "batch_size": 8, "pairs": 800, "warmup": 10, "learning_rate": None}),
    ("reinforce", {"steps": 50}, {"warmup": 5, "batch_size": 252, "max_length": 128}),
    ("reinforce", REAL, {"beta": 0.1, "batch_size": 32, "learning_rate": None, "pairs": 2000}),
    ("ppo", {"steps": 100}, {"warmup": 10, "batch_size": 252, "value": "shared", "max_new_tokens": 24}),
    ("ppo", REAL, {"beta": 0.1, "batch_size": 32, "learning_rate": None, "value_coef": 0.1, "max_length": 128}),
    ("trpo", REAL, {"beta": 0.1, "batch_size": 32, "max_kl": 0.01, "value_epochs": 4}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "expected"), ELSEWHERE, ids=str)
def test_a_default_depends_on_what_it_did(name, given, expected):
    recipe = recipe_class(name)(**given)
    assert {setting: getattr(recipe, setting) for setting in expected} == expected
