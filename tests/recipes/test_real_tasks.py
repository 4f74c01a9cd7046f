"""Lab 10's tasks: their settings are their builders', and what is expected beforehand is what loading finds."""

import pytest

from rlhflab.recipes.builders import WORLDS, is_text_source
from rlhflab.recipes.real_tasks import TASKS, configuration, expected, knobs_class, title

HERE = {"progress": False, "device": "cpu"}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", ["short", "long"])
def test_every_size_is_a_whole_configuration(task, size):
    config = configuration(task, size)
    assert config["algorithm"] == TASKS[task].algorithm
    assert config["world"] in WORLDS or is_text_source(config["world"])
    assert configuration(task, size, steps=3, seed=7) == {**config, "steps": 3, "seed": 7}
    assert configuration(task, "short")["steps"] < configuration(task, "long")["steps"]
    assert builder(config["algorithm"], config["world"]) is builder(config["algorithm"])  # no control problem
    assert knobs_class(config["algorithm"]).specs


@pytest.mark.parametrize(("task", "kind"), [("reward", "opt"), ("sentiment", "gpt2"), ("chat", "qwen2")])
def test_what_is_expected_is_what_loading_finds(model_folder, hh_rlhf, tmp_path, task, kind):
    (tmp_path / "score.py").write_text(
        "def letters(prompts, answers):\n    return [len(a) for a in answers]\n"
    )
    reward = {"reward": f"{tmp_path}/score.py:letters"} if task == "sentiment" else {}
    names = {"model": str(model_folder(kind)), "world": str(hh_rlhf), **reward}
    config = configuration(task, steps=2, pairs=12, **names, **HERE)
    needed = expected(config).words()
    algorithm = build_from(builder, config)
    assert f"at most about {needed} of memory" in algorithm.notes["model"]
    assert len(list(algorithm)) == 2


def test_a_title_names_what_is_trained_and_on_what():
    assert title(configuration("tiny")) == "DPO · tiny · micro"
    assert title(configuration("chat")) == "DPO · Qwen2.5-0.5B-Instruct · ultrafeedback_binarized"
    given = {"model": "runs/a/model", "world": "data/mine.jsonl"}
    assert title(configuration("reward", **given)) == "Reward model · model · mine.jsonl"


def test_the_tiny_model_needs_next_to_nothing():
    assert 1e6 < expected(configuration("tiny")).total < 1e8


def test_what_does_not_fit_is_refused_before_anything_is_loaded(model_folder, monkeypatch):
    monkeypatch.setattr("rlhflab.models.loading.free_memory", lambda device: 1e5)
    config = configuration("chat", model=str(model_folder("qwen2")), **HERE)
    with pytest.raises(ValueError, match=r"would need about .* GB are free on cpu; what makes it smaller"):
        expected(config)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"task": "huge"}, "task must be one of tiny, reward, sentiment, chat, got 'huge'"),
        ({"task": "tiny", "size": "huge"}, "size must be one of short, long, got 'huge'"),
        ({"task": "tiny", "clip_range": 1}, "clip_range is no setting of dpo; known: world, model"),
    ],
)
def test_mistakes_are_one_line(given, says):
    with pytest.raises(ValueError, match=says):
        configuration(**given)
