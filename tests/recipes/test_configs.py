"""A run's config.json, of today and of before settings were declared, opens as the recipe it was made with."""

from __future__ import annotations

import json

import pytest

from rlhflab import recipes
from rlhflab.runs.drive import begin, drive, resume
from rlhflab.runs.store import Run

LOADING = """
 "skip_bad": false, "four_bit": false, "lora": false, "lora_rank": 16, "lora_targets": "", "dtype": "auto",
 "gradient_checkpointing": false, "trust_remote_code": false, "progress": true, "seed": 0, "device": "auto",
 "model": "tiny"
"""
# As `rlhflab train` wrote them in version 0.1 of November 2026: null where a default was found later.
BEFORE = [
    (
        recipes.DPO(),
        """{"algorithm": "dpo", "world": "micro", "reference": "sft", "beta": null, "learning_rate": null,
        "pairs": null, "label_noise": 0.0, "steps": 600, "batch_size": null, "evaluate_every": 25, "engine": "lab",
        "max_length": 512,""",
    ),
    (
        recipes.DPO(pairs="fresh", steps=20),
        """{"algorithm": "dpo", "world": "micro", "reference": "sft", "beta": 1.0, "learning_rate": 0.001,
        "pairs": "fresh", "label_noise": 0.0, "steps": 20, "batch_size": null, "evaluate_every": 25, "engine": "lab",
        "max_length": 512,""",
    ),
    (
        recipes.PPO(reward="model", beta=0.3),
        """{"algorithm": "ppo", "world": "micro", "reward": "model", "beta": 0.3, "learning_rate": null,
        "clip_range": 0.2, "gae_lambda": 0.95, "epochs": 2, "value": "shared", "pairs": 2000, "prompt_words": 4,
        "max_new_tokens": 24, "label_noise": 0.0, "blind": "", "steps": 400, "batch_size": null, "minibatches": 2,
        "evaluate_every": 25, "max_length": 128,""",
    ),
    (
        recipes.Reward(blind="film"),
        """{"algorithm": "reward", "world": "micro", "beta": 1.0, "learning_rate": null, "pairs": null, "ranked": 2,
        "label_noise": 0.0, "blind": "film", "steps": 300, "batch_size": null, "evaluate_every": 100, "engine": "lab",
        "evaluate": true, "max_length": 512,""",
    ),
    (
        recipes.SFT(world="reviews"),
        """{"algorithm": "sft", "world": "reviews", "texts": 10000, "p_noise": 0.0, "beta": 1.0, "learning_rate": null,
        "steps": 200, "batch_size": null, "evaluate_every": 20, "engine": "lab", "max_length": 512,""",
    ),
]
CARTPOLE = """
{"algorithm": "ppo", "world": "CartPole-v1", "learning_rate": null, "clip_range": 0.2, "gamma": null,
 "gae_lambda": null, "epochs": null, "steps": 4, "envs": 2, "horizon": 32, "minibatches": null, "evaluate_every": 10,
 "seed": 3, "device": "auto"}
"""


def kept(folder, text):
    """A run's folder with this config.json."""
    Run.create(folder, {}).close()
    (folder / "config.json").write_text(text, encoding="utf-8")
    return Run.open(folder)


@pytest.mark.parametrize(("recipe", "before"), BEFORE, ids=lambda given: getattr(given, "title", ""))
def test_a_config_of_before_is_the_same_recipe(recipe, before, tmp_path):
    run = kept(tmp_path / "run", before + LOADING + "}")
    assert recipes.from_config(run.config) == recipe and type(recipes.from_config(run.config)) is type(recipe)


def test_a_run_of_before_goes_on_bit_for_bit(tmp_path):
    pytest.importorskip("gymnasium")
    recipe = recipes.PPOControl(steps=4, envs=2, horizon=32, seed=3)
    whole = list(recipe.build())
    run = kept(tmp_path / "run", CARTPOLE)
    assert recipes.from_config(run.config) == recipe
    algorithm = recipe.build()
    for _ in range(2):
        run.append(next(algorithm))
    run.save_checkpoint(algorithm)
    run = Run.open(run.folder)
    assert drive(resume(recipes.from_config(run.config), run), run)["status"] == "finished"
    assert list(run.records()) == whole


@pytest.mark.parametrize("name", [*recipes.LANGUAGE, *(f"{name} in control" for name in recipes.CONTROL)])
def test_a_config_of_today_is_the_same_recipe(name):
    found = recipes.recipe_class(name.split()[0], "CartPole-v1" if "control" in name else None)
    recipe = found(seed=5, steps=7)
    assert recipes.from_config(json.loads(json.dumps(recipe.config()))) == recipe


def test_the_config_that_is_kept_holds_the_numbers_that_were_used(tmp_path):
    pytest.importorskip("gymnasium")
    _, run = begin(recipes.PPOControl(world="Pendulum-v1", steps=1, envs=4, horizon=8), tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert (config["gamma"], config["minibatches"], config["value_coef"]) == (
        0.9,
        4,
        1.0,
    ) and run.config == config
    assert [name for name, value in config.items() if value is None] == [
        "value_clip",
        "target_kl",
        "kl_target",
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"algorithm": "ppp"}, "unknown algorithm 'ppp'; known: pretrain, sft, reward, dpo"),
        ({"clip_range": 0.1}, "clip_range is not a setting of dpo; known: "),
        ({"steps": "ten"}, "steps must be a whole number ≥ 1, got 'ten'"),
        ({"world": "mars"}, "unknown world 'mars'; use micro, reviews, an existing file"),
    ],
)
def test_what_a_config_may_not_hold_is_one_line(change, says):
    with pytest.raises(ValueError) as raised:
        recipes.from_config({**recipes.DPO().config(), **change})
    assert str(raised.value).startswith(says) and "\n" not in str(raised.value)


def test_a_variant_trains_with_its_own_class_and_not_with_trls():
    class Variant(recipes.DPO):
        training = list

    assert Variant().trained_by(dict) is list and recipes.DPO().trained_by(dict) is dict
    with pytest.raises(ValueError, match="engine must be lab with a training of its own, got 'trl'"):
        Variant(engine="trl").trained_by(dict)
