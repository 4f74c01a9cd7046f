"""Text classifiers as rewards: which label, padding, and what is refused."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from rlhflab.boundary import Fault
from rlhflab.tasks.rewards import ClassifierReward
from tests.real_models import write_classifier


def _classifier(model_folder, tmp_path, kind="gpt2", **changes):
    folder = write_classifier(tmp_path / "c", model_folder(kind))
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder, lambda weights: save_file(
        weights(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"}
    )


def _rewards(folder):
    return ClassifierReward(str(folder), [], str, torch.device("cpu"))


def test_a_classifier_without_a_pad_token_scores_a_batch_as_it_scores_one_text(model_folder, tmp_path):
    """GPT-2's has none, and would refuse a batch; the token that fills up ends no row, or it would be read past."""
    folder, _ = _classifier(model_folder, tmp_path, pad_token_id=None)
    AutoTokenizer.from_pretrained(model_folder("gpt2")).save_pretrained(folder)
    reward = _rewards(folder)
    assert reward.tokenizer.pad_token is None
    answers = [" good", " a very good film indeed", "", " bad!"]
    together = reward.function(["This film is"] * 4, answers)
    singly = torch.cat([reward.function(["This film is"], [answer]) for answer in answers])
    torch.testing.assert_close(together, singly)
    assert together.unique().numel() == 4
    passes = []
    reward.model.register_forward_pre_hook(lambda model, inputs: passes.append(1))
    reward.function(["This film is"] * 4, answers)
    assert len(passes) == 1  # a batch is read as one
    assert reward.note == f"{folder} rewards its label 'POSITIVE', against 'NEGATIVE'"


def test_a_classifier_that_padding_would_change_reads_texts_one_by_one(model_folder, tmp_path, monkeypatch):
    folder, _ = _classifier(model_folder, tmp_path, "llama")
    monkeypatch.setattr(  # what comes out depends on how long the batch is
        "transformers.LlamaForSequenceClassification.forward",
        lambda self, input_ids, **_: SimpleNamespace(
            logits=input_ids.shape[1] * torch.tensor([0.0, 1.0]).expand(len(input_ids), 2)
        ),
    )
    reward = _rewards(folder)
    texts = ["a", "a b c d"]
    lengths = [len(reward.tokenizer(text)["input_ids"]) for text in texts]
    assert reward.function(["", ""], texts).tolist() == lengths and lengths[0] != lengths[1]


def test_labels_that_do_not_exclude_each_other_are_rewarded_by_themselves(model_folder, tmp_path):
    folder, _ = _classifier(model_folder, tmp_path, "llama", problem_type="multi_label_classification")
    reward = _rewards(folder)
    assert reward.note.endswith("rewards its label 'POSITIVE', by itself")
    with torch.no_grad():
        logits = reward.model(**reward.tokenizer("A good film", return_tensors="pt")).logits
    torch.testing.assert_close(reward.function(["A good"], [" film"]), logits[:, 1])
    assert logits[0, 0].abs() > 0.1  # the other label's would be seen in a difference


@pytest.mark.parametrize(
    ("changes", "weights", "says"),
    [
        (
            {},
            lambda weights: {name: value for name, value in weights.items() if "score" not in name},
            r"weights of reward .* 1 is missing \(score.weight\); it looks .* without its classification head",
        ),
        ({"num_hidden_layers": 3}, dict, "another depth: config.json says 3 layers, the weights have 2"),
        (
            {},
            lambda weights: {name: value * float("nan") for name, value in weights.items()},
            "gives NaN or infinity: its weights are damaged",
        ),
        ({"id2label": {"0": "SCORE"}}, dict, r"is not a classifier with two labels: it gives 1 number"),
        ({"problem_type": "regression"}, dict, "is not a classifier with two labels: it gives 2 number"),
        ({"id2label": {"0": "A", "1": "B", "2": "C"}}, dict, r"score.weight \[2, 32\], expected \[3, 32\]"),
    ],
)
def test_a_classifier_that_is_none_is_one_line(model_folder, tmp_path, changes, weights, says):
    folder, change = _classifier(model_folder, tmp_path, "llama", **changes)
    change(weights)
    with pytest.raises(Fault, match=says) as refused:
        _rewards(folder)
    assert "\n" not in str(refused.value)
