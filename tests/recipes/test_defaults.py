"""What a training is made with where nothing is said: README's figures and the labs were measured with it."""

from dataclasses import asdict

import pytest

from rlhflab.algorithms.supervised import SupervisedConfig

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
        "learning_rate": 1e-3,
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


@pytest.mark.parametrize(("name", "world"), EXPECTED, ids=str)
def test_a_training_is_made_with_these_settings(name, world):
    if world == "micro":
        run, sizes = builder(name, world)(progress=False, device="cpu"), {}
        if name in ("ppo", "trpo"):
            assert (run.task.trunk is not None) == (name == "trpo")  # whose value model is one of its own
    else:
        pytest.importorskip("gymnasium")
        run = builder(name, world)(world, device="cpu")
        sizes = {"envs": run.task.world.envs, "horizon": run.task.horizon}
    assert {**asdict(run.config), **run.knobs.snapshot(), **sizes} == EXPECTED[name, world]


def test_maximum_likelihood_is_made_with_these():
    assert asdict(SupervisedConfig()) == {
        "steps": 300, "batch_size": 128, "seed": 0, "schedule": "cosine", "warmup": 20, "evaluate_every": 25,
    }  # fmt: skip
    assert SupervisedKnobs().snapshot() == {"learning_rate": 3e-3}
