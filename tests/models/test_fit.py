"""Weights that are not the model's are refused in one line; those that are, under a wrapper's names, are read."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhflab.boundary import Fault
from rlhflab.models.fit import misfit, other_base
from rlhflab.models.loading import LoadSettings, load_policy, load_reward_model, save_model
from rlhflab.models.logps import frozen_sequence_logps, join_answers
from tests.real_models import write_classifier

BATCH = join_answers([[5, 6, 7], [8, 9]], [[10, 11, 0], [12, 0]])
PLAIN, FOUR_BIT = LoadSettings(device="cpu"), LoadSettings(device="cpu", lora=True, four_bit=True)


@pytest.fixture
def edited(model_folder, tmp_path):
    """A call: a copy of a model's folder in which names, weights or the configuration are others."""

    def edit(kind="llama", rename=None, add=None, drop="", shape=None, **config):
        folder = tmp_path / f"m{len(list(tmp_path.iterdir()))}"
        shutil.copytree(model_folder(kind, **(shape or {})), folder)
        weights = load_file(folder / "model.safetensors")
        weights = {name: value for name, value in weights.items() if not drop or drop not in name}
        weights = {(rename or str)(name): value for name, value in weights.items()} | (add or {})
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        whole = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(whole | config))
        return str(folder)

    return edit


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"num_hidden_layers": 4},
            r"18 are missing \(model.layers.2.*\); .* another depth: config.json says 4 layers, the weights have 2",
        ),
        (
            {"num_hidden_layers": 1},
            r"9 are not the model's \(model.layers.1.*\); .* depth: config.json says 1 layers, the weights have 2",
        ),
        ({"intermediate_size": 96}, r"6 have another shape \(.*down_proj.weight \[32, 64\], expected \[32, 96\]"),
        ({"hidden_size": 64}, r"lm_head.weight \[400, 32\], expected \[400, 64\]"),
        ({"vocab_size": 500}, r"embed_tokens.weight \[400, 32\], expected \[500, 32\]"),
        ({"model_type": "qwen2"}, r"do not fit Qwen2ForCausalLM: 6 are missing \(.*bias, .*different model"),
        ({"drop": "layers.1.mlp.up"}, r"1 is missing \(model.layers.1.mlp.up_proj.weight\)"),
        ({"drop": "lm_head"}, r"1 is missing \(lm_head.weight\); it looks like a model without its LM head"),
        ({"rename": "policy.{}".format}, r"21 are missing .*every weight's name in it begins with 'policy.'"),
        (
            {"add": {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(4, 32)}},
            r"1 is not the model's .*saved with its adapters",
        ),
        ({"kind": "qwen2", "model_type": "llama"}, r"6 are not the model's \(.*k_proj.bias, "),
    ],
)  # fmt: skip
def test_a_policy_whose_weights_do_not_fit_is_refused(edited, changes, says):
    with pytest.raises(Fault, match=says) as refused:
        load_policy(edited(**changes), PLAIN)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 4}, {"intermediate_size": 96}])
def test_nor_does_it_in_4_bits(edited, changes):
    """transformers sees no other shape there."""
    with pytest.raises(Fault, match=r"18 are missing|6 have another shape"):
        load_policy(edited(**changes), FOUR_BIT)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_a_classifier_is_no_policy_but_a_reward_models_trunk(model_folder, tmp_path, kind):
    """GPT-2's and OPT's LM head is the embedding, so that nothing is missing."""
    folder = str(write_classifier(tmp_path / "c", model_folder(kind)))
    with pytest.raises(Fault, match=r"\(score.weight\); it looks like a classifier or a reward model"):
        load_policy(folder, PLAIN)
    found = load_reward_model(folder, PLAIN)
    assert found.model.score.weight.shape[0] == 1 and found.model.score.weight.abs().max() == 0
    assert "its classifier's own head is left out" in found.note


def test_a_reward_models_trunk_must_be_whole(edited):
    with pytest.raises(
        Fault, match=r"do not fit LlamaForSequenceClassification: 18 are missing .*another depth"
    ):
        load_reward_model(edited(num_hidden_layers=4), PLAIN)
    assert "left out" not in load_reward_model(edited(drop="lm_head"), PLAIN).note  # it needs no LM head


@pytest.mark.parametrize(
    ("kind", "rename"),
    [
        ("llama", "_orig_mod.{}".format),
        ("llama", "module._orig_mod.{}".format),
        ("gpt2", "module.{}".format),
        ("llama", lambda name: name.replace("model.", "model._orig_mod.", 1)),
        (
            "opt",
            lambda name: (
                "_fsdp_wrapped_module." + name.replace("layers.0.", "layers.0._fsdp_wrapped_module.")
            ),
        ),
    ],
)
def test_a_wrappers_names_are_read_through(edited, model_folder, tmp_path, kind, rename):
    plain, wrapped = load_policy(str(model_folder(kind)), PLAIN), load_policy(edited(kind, rename), PLAIN)
    assert "wrapper" in wrapped.note and "wrapper" not in plain.note
    expected = frozen_sequence_logps(plain.model, BATCH)
    assert torch.equal(frozen_sequence_logps(wrapped.model, BATCH), expected)
    save_model(wrapped.model, wrapped.tokenizer, tmp_path / "again")
    names = load_file(tmp_path / "again" / "model.safetensors").keys()
    assert names == load_file(model_folder(kind) / "model.safetensors").keys()


def test_a_wrappers_names_are_read_through_in_4_bits(edited, model_folder):
    logps = [
        frozen_sequence_logps(load_policy(folder, FOUR_BIT).model, BATCH)
        for folder in (str(model_folder("llama")), edited(rename="_orig_mod.{}".format))
    ]
    assert torch.equal(*logps)


def test_a_wrapped_model_of_another_depth_is_still_refused(edited):
    with pytest.raises(Fault, match=r"18 are missing \(model\.layers\.2.*another depth"):
        load_policy(edited(rename="module.{}".format, num_hidden_layers=4), PLAIN)


def test_buffers_of_old_files_and_parts_beside_the_model_are_left_out(edited, model_folder):
    old = {
        f"transformer.h.{n}.attn.{name}": torch.ones(1) for n in (0, 1) for name in ("bias", "masked_bias")
    }
    plain = load_policy(str(model_folder("gpt2")), PLAIN)
    found = load_policy(edited("gpt2", add=old), PLAIN)
    assert torch.equal(frozen_sequence_logps(found.model, BATCH), frozen_sequence_logps(plain.model, BATCH))
    assert "left out" not in found.note
    assert (
        "left out of its file: v_head.summary.weight"
        in load_policy(edited(add={"v_head.summary.weight": torch.ones(1, 32)}), PLAIN).note
    )


def test_weights_that_are_whole_numbers_need_to_say_how_they_are_read(edited):
    folder = edited(add={"model.norm.weight": torch.ones(32, dtype=torch.int8)})
    with pytest.raises(
        Fault, match=r"holds whole numbers \(model.norm.weight is I8\), as quantised weights are"
    ):
        load_policy(folder, PLAIN)
    with pytest.raises(Fault, match="are quantised and cannot be trained: give --lora"):
        load_policy(edited(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), PLAIN)


def test_what_may_be_missing_depends_on_what_the_model_is_for():
    own = ("model.layers.0.a.weight", "score.weight", "lm_head.weight")
    assert misfit(own, ["score.weight"], ["lm_head.weight"], [], "reward") is None
    assert misfit(own, [], [], [("score.weight", (2, 4), (1, 4))], "reward") is None
    assert misfit(own, [], ["lm_head.weight"], [], "classifier") is None
    assert "without its classification head" in misfit(own, ["score.weight"], [], [], "classifier")
    assert "another shape" in misfit(own, [], [], [("score.weight", (2, 4), (1, 4))], "classifier")
    assert misfit(own, ["lm_head.weight"], [], [], "policy").startswith("1 is missing (lm_head.weight); ")
    assert other_base("Qwen2ForCausalLM", "LlamaForCausalLM", "policy")
    assert not other_base("LlamaForSequenceClassification", "LlamaForCausalLM", "reward")
