"""Lab 10's tasks: their settings are their recipes', and what is expected beforehand is what loading finds."""

import pytest

from rlhflab.recipes import LANGUAGE
from rlhflab.recipes.real_tasks import TASKS, expected, recipe_of
from rlhflab.recipes.recipe import WORLDS, is_text_source

HERE = {"progress": False, "device": "cpu"}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", ["short", "long"])
def test_every_size_is_a_whole_recipe(task, size):
    recipe = recipe_of(task, size)
    assert type(recipe) is LANGUAGE[TASKS[task].algorithm]
    assert recipe.world in WORLDS or is_text_source(recipe.world)
    assert recipe_of(task, size, steps=3, seed=7) == recipe.but(steps=3, seed=7)
    assert recipe_of(task, "short").steps < recipe_of(task, "long").steps
    assert {"beta", "learning_rate"} <= set(recipe.specs())


@pytest.mark.parametrize(("task", "kind"), [("reward", "opt"), ("sentiment", "gpt2"), ("chat", "qwen2")])
def test_what_is_expected_is_what_loading_finds(model_folder, hh_rlhf, tmp_path, task, kind):
    (tmp_path / "score.py").write_text(
        "def letters(prompts, answers):\n    return [len(a) for a in answers]\n"
    )
    reward = {"reward": f"{tmp_path}/score.py:letters"} if task == "sentiment" else {}
    names = {"model": str(model_folder(kind)), "world": str(hh_rlhf), **reward}
    recipe = recipe_of(task, steps=2, pairs=12, **names, **HERE)
    needed = expected(recipe).words()
    algorithm = recipe.build()
    assert f"at most about {needed} of memory" in algorithm.notes["model"]
    assert len(list(algorithm)) == 2


def test_a_title_names_what_is_trained_and_on_what(tmp_path):
    assert recipe_of("tiny").title == "DPO · tiny · micro"
    assert recipe_of("chat").title == "DPO · Qwen2.5-0.5B-Instruct · ultrafeedback_binarized"
    (tmp_path / "mine.jsonl").touch()
    given = {"model": "runs/a/model", "world": str(tmp_path / "mine.jsonl")}
    assert recipe_of("reward", **given).title == "Reward model · model · mine.jsonl"


def test_the_tiny_model_needs_next_to_nothing():
    assert 1e6 < expected(recipe_of("tiny")).total < 1e8


def test_what_does_not_fit_is_refused_before_anything_is_loaded(model_folder, monkeypatch):
    monkeypatch.setattr("rlhflab.models.loading.free_memory", lambda device: 1e5)
    recipe = recipe_of("chat", model=str(model_folder("qwen2")), **HERE)
    with pytest.raises(ValueError, match=r"would need about .* GB are free on cpu; what makes it smaller"):
        expected(recipe)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"task": "huge"}, "task must be one of tiny, reward, sentiment, chat, got 'huge'"),
        ({"task": "tiny", "size": "huge"}, "size must be one of short, long, got 'huge'"),
        ({"task": "tiny", "clip_range": 1}, "clip_range is not a setting of dpo; known: .*world, model, "),
    ],
)
def test_mistakes_are_one_line(given, says):
    with pytest.raises(ValueError, match=says):
        recipe_of(**given)
