"""Tokenizers that are missing, damaged, or not their model's."""

import json
import shutil

import pytest

from rlhflab.boundary import Fault
from rlhflab.models.tokens import load_tokenizer


@pytest.fixture
def folder(model_folder, tmp_path):
    shutil.copytree(model_folder("llama"), tmp_path / "m")
    return tmp_path / "m"


def _change(path, change):
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))


def test_its_own_is_loaded(folder):
    assert len(load_tokenizer(str(folder), 400, "'m'")) == 400


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("tokenizer.json", lambda whole: whole.pop("model"), "the tokenizer of 'm': .*Model missing"),
        ("tokenizer.json", lambda whole: whole["model"].update(vocab={}, merges=[]), "has no vocabulary"),
        ("tokenizer_config.json", lambda whole: whole.update(eos_token=5), "the tokenizer of 'm': TypeError"),
        ("tokenizer_config.json", lambda whole: whole.update(eos_token="<new>"), "has 401 tokens, its model only 400"),
        ("tokenizer_config.json", lambda whole: whole.update(model_max_length="big"), "TypeError"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(folder, file, change, says):
    _change(folder / file, change)
    with pytest.raises(Fault, match=says) as refused:
        load_tokenizer(str(folder), 400, "'m'")
    assert "\n" not in str(refused.value)


def test_an_id_beyond_the_embedding_is_named_though_there_are_few_tokens(folder):
    def change(whole):
        whole["model"]["vocab"]["zzz"] = 450
        del whole["model"]["vocab"][next(word for word in reversed(whole["model"]["vocab"]) if word != "zzz")]
        whole["model"]["merges"] = []

    _change(folder / "tokenizer.json", change)
    with pytest.raises(Fault, match="gives 'zzz' the id 450, its model has only 400 tokens"):
        load_tokenizer(str(folder), 400, "'m'")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])  # transformers makes an empty one of GPT-2's class
def test_without_files_there_is_none(model_folder, tmp_path, kind):
    shutil.copytree(model_folder(kind), tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "m" / name).unlink()
    with pytest.raises(Fault, match=r"tokenizer of 'm'.*has no vocabulary"):
        load_tokenizer(str(tmp_path / "m"), 400, "'m'")
