"""Models that are no causal language models with a cache are refused before anything is trained."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhflab.boundary import Fault
from rlhflab.models.causal import require_causal, require_decoder
from rlhflab.models.loading import LoadSettings, load_policy

SHAPE = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
GPT = {"n_embd": 32, "n_layer": 1, "n_head": 4}


def _model(kind, make=AutoModelForCausalLM, **own):
    torch.manual_seed(0)
    return make.from_config(AutoConfig.for_model(kind, **{**SHAPE, **own})).eval()


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("gpt2", GPT),
        ("llama", {}),
        ("bloom", {"n_layer": 1, "n_head": 4}),
        ("gpt_neox", {}),
        ("mixtral", {"num_key_value_heads": 2}),
    ],
)
def test_decoders_pass(kind, own):
    model = _model(kind, **own)
    require_decoder(model.config, "m")
    require_causal(model, "m", reward=False)
    require_causal(_model(kind, AutoModelForSequenceClassification, **own), "m", reward=True)


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("rwkv", {"attention_hidden_size": 32, "num_hidden_layers": 2}),
        ("bert", {}),
        ("openai-gpt", GPT),
        ("mamba", {"state_size": 4}),
    ],
)
def test_what_has_no_cache_is_refused(kind, own):
    with pytest.raises(
        Fault, match="m does not work as a causal language model with a key–value cache"
    ) as refused:
        require_causal(_model(kind, **own), "m", reward=False)
    assert "\n" not in str(refused.value) and "GPT-2" in str(refused.value)


def test_a_token_that_sees_later_ones_is_noticed():
    bert = _model("bert", AutoModel)
    bert.base_model_prefix = ""  # then it is its own trunk
    with pytest.raises(Fault, match="m is not a causal language model: a token in it sees later ones"):
        require_causal(bert, "m", reward=True)


def test_a_cache_that_changes_something_is_noticed(monkeypatch):
    model = _model("gpt2", **GPT)
    plain = model.forward

    def forget(*arguments, past_key_values=None, **named):
        return plain(*arguments, **named)

    monkeypatch.setattr(model, "forward", forget)
    with pytest.raises(Fault, match="m gives different results with and without its key–value cache"):
        require_causal(model, "m", reward=False)


def test_weights_that_give_nan_are_noticed():
    model = _model("llama")
    model.model.norm.weight.data[3] = float("nan")
    with pytest.raises(Fault, match="m computes NaN or infinity: its weights are damaged"):
        require_causal(model, "m", reward=False)


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("t5", {"num_heads": 4, "d_model": 32}, r"m is an encoder–decoder \(t5\), which is not trained here"),
        ("mamba", {"num_attention_heads": None}, "m has no num_attention_heads in its config.json: arch.* 'mamba'"),
        ("llama", {"num_hidden_layers": 0}, "num_hidden_layers in its config.json must be a whole number ≥ 1, got 0"),
        ("llama", {"num_hidden_layers": -1}, "must be a whole number ≥ 1, got -1"),
    ],
)  # fmt: skip
def test_a_configuration_can_be_enough(kind, changes, says):
    with pytest.raises(Fault, match=says):
        require_decoder(AutoConfig.for_model(kind, **{**SHAPE, **changes}), "m")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_size": "32"}, "cannot load model .*'hidden_size' expected int, got str"),
        ({"num_attention_heads": 5}, "not a multiple of the number of attention heads"),
        ({"hidden_act": "nope"}, "as its config.json describes it .*KeyError: 'nope'"),
        ({"model_type": "nope"}, "model type `nope`"),
        ({"model_type": None}, "cannot load model"),
    ],
)
def test_hand_edited_configurations_are_one_line(model_folder, tmp_path, changes, says):
    import json
    import shutil

    shutil.copytree(model_folder("llama"), tmp_path / "m")
    whole = json.loads((tmp_path / "m" / "config.json").read_text()) | changes
    (tmp_path / "m" / "config.json").write_text(json.dumps(whole))
    with pytest.raises(Fault, match=says) as refused:
        load_policy(str(tmp_path / "m"), LoadSettings(device="cpu"))
    assert "\n" not in str(refused.value)
