"""Files that are not what their names say."""

import json

import pytest
import torch
from safetensors.torch import save_file

from rlhflab.boundary import Fault
from rlhflab.models.intact import require_intact
from rlhflab.models.loading import LoadSettings, load_policy

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
SHARDS = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]


@pytest.fixture
def folder(tmp_path):
    """What a folder of a model in two shards holds."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    for name in SHARDS:
        save_file({name: torch.ones(3)}, tmp_path / name)
    index = {"weight_map": {name: name for name in SHARDS}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    require_intact(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (SHARDS[1], POINTER, "is a Git LFS pointer, not the file itself: run `git lfs pull`"),
        (SHARDS[1], b"", "is empty"),
        (SHARDS[1], b"<!DOCTYPE html><html>", "is a web page"),
        (SHARDS[1], b"nonsense" * 9, "is damaged, truncated or not a safetensors file"),
        (SHARDS[1], None, r"truncated .*incomplete metadata"),
        ("tokenizer.json", POINTER, "is a Git LFS pointer"),
        ("tokenizer.json", b'{"model": ', "is not readable JSON: JSONDecodeError"),
        ("tokenizer.model", POINTER, "is a Git LFS pointer"),
        ("config.json", b"[]", "must hold a JSON object, got a list"),
        ("config.json", b"\xef\xbb\xbf{}", "UTF-8 BOM"),
        ("config.json", b"\xff\xfe{\x00}\x00", "UnicodeDecodeError"),
        ("model.safetensors.index.json", POINTER, "is a Git LFS pointer"),
        ("model.safetensors.index.json", b'{"weight_map": 3}', "has no weight_map"),
        (
            "model.safetensors.index.json",
            b'{"weight_map": {"a": "no.safetensors"}}',
            "names files of weights that are not there: no.safetensors",
        ),
        ("adapter_config.json", b"{}", "there is no .*adapter_model.safetensors"),
        ("reward_head.safetensors", POINTER, "is a Git LFS pointer"),
    ],
)
def test_the_file_and_what_is_wrong_are_named(folder, name, content, says):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-4] if content is None else content)
    with pytest.raises(Fault, match=says) as refused:
        require_intact(folder)
    assert name in str(refused.value) or "adapter" in name
    assert "\n" not in str(refused.value)


def test_files_that_are_not_read_may_be_anything(folder):
    (folder / "pytorch_model.bin").write_bytes(POINTER)
    (folder / "trainer_state.json").write_bytes(b"{")
    (folder / "consolidated.safetensors").write_bytes(POINTER)
    require_intact(folder)


def test_a_models_folder_is_looked_at_before_it_is_loaded(model_folder, tmp_path):
    import shutil

    shutil.copytree(model_folder("llama"), tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(POINTER)
    with pytest.raises(Fault, match=r"m/model\.safetensors is a Git LFS pointer"):
        load_policy(str(tmp_path / "m"), LoadSettings(device="cpu"))
