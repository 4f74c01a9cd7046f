"""Adapters: where they go, what they leave alone, and the reference that they spare."""

import copy
import json
from pathlib import Path

import pytest
import torch

from rlhflab.boundary import Fault
from rlhflab.models.loading import (
    LoadSettings,
    in_training,
    load_policy,
    load_reference,
    load_reward_model,
    save_model,
)
from rlhflab.models.logps import frozen_sequence_logps, join_answers, sequence_logps
from rlhflab.models.lora import (
    AdaptersOff,
    linear_layers,
    load_trained_state,
    lora_targets,
    trained_state,
)
from rlhflab.models.memory import empty_model
from rlhflab.models.quantised import is_four_bit
from rlhflab.models.reward import answer_scores
from tests.real_models import KINDS

SHAPE = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 50,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
OF_THEIR_OWN = {
    "bloom": {"n_layer": 1, "n_head": 4}, "opt": {"word_embed_proj_dim": 32, "ffn_dim": 64},
    "gpt_neo": {"num_layers": 1, "num_heads": 4, "attention_types": [[["global"], 1]]},
    "gpt2": {"n_embd": 32, "n_layer": 1, "n_head": 4},
    "gptj": {"n_embd": 32, "n_layer": 1, "n_head": 4, "rotary_dim": 8},
    **{kind: {"num_key_value_heads": 2, "head_dim": 8} for kind in ("gemma", "gemma2", "gemma3_text")},
}  # fmt: skip
LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NEOX = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
EXPECTED = {
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt_neo": ("q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"),
    "gptj": ("q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "phi": ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    **dict.fromkeys(("bloom", "falcon", "gpt_neox"), NEOX),
    **dict.fromkeys(
        (
            "gemma", "gemma2", "gemma3_text", "granite", "llama", "mistral", "olmo", "olmo2", "qwen2", "qwen3",
            "smollm3", "stablelm",
        ),
        LLAMA,
    ),
}  # fmt: skip
BATCH = join_answers([[5, 6, 7], [8, 9]], [[10, 11, 2], [12, 2]])
FOUR_BIT = LoadSettings(lora=True, four_bit=True, device="cpu")


@pytest.fixture(params=KINDS)
def folder(request, model_folder):
    return str(model_folder(request.param))


@pytest.mark.parametrize("kind", EXPECTED)
def test_every_linear_layer_of_the_blocks_is_named_and_no_other(kind):
    from transformers import AutoConfig

    config = AutoConfig.for_model(kind, **{**SHAPE, **OF_THEIR_OWN.get(kind, {})})
    model = empty_model(config)
    assert set(lora_targets(model)) == set(EXPECTED[kind])


def test_what_stands_outside_the_blocks_gets_none():
    from transformers import AutoConfig

    narrow = {**SHAPE, "word_embed_proj_dim": 16, "ffn_dim": 64}  # as OPT-350m: projected in and out
    model = empty_model(AutoConfig.for_model("opt", **narrow))
    outside = {"model.decoder.project_in", "model.decoder.project_out"}
    assert outside < {name for name, _, _ in linear_layers(model)}
    assert set(lora_targets(model)) == set(EXPECTED["opt"])


def test_any_architecture_has_its_own_layers_and_an_unknown_layer_is_told(model_folder):
    from transformers import AutoConfig

    model = empty_model(
        AutoConfig.for_model("codegen", n_embd=32, n_layer=1, n_head=4, vocab_size=50, rotary_dim=8)
    )
    assert set(lora_targets(model)) == {"qkv_proj", "out_proj", "fc_in", "fc_out"}  # nobody has listed them
    assert lora_targets(model, ["qkv_proj"]) == ("qkv_proj",)
    with pytest.raises(ValueError, match=r"no linear layer is called 'query'; this codegen has .*qkv_proj"):
        lora_targets(model, ["query"])


@pytest.mark.parametrize("four_bit", [False, True])
def test_with_adapters_off_the_policy_is_its_base(folder, four_bit):
    settings = LoadSettings(lora=True, four_bit=four_bit, device="cpu", gradient_checkpointing=True)
    policy = load_policy(folder, settings).model
    assert is_four_bit(policy) is four_bit
    base = frozen_sequence_logps(policy.get_base_model(), BATCH)  # adapters are at 0 here
    if not four_bit:
        plain = load_policy(folder, LoadSettings(device="cpu")).model
        torch.testing.assert_close(frozen_sequence_logps(plain, BATCH), base, rtol=0, atol=1e-5)
    ref_policy = load_reference(policy)
    assert isinstance(ref_policy, AdaptersOff) and torch.equal(frozen_sequence_logps(ref_policy, BATCH), base)
    _train_a_little(policy)
    assert (frozen_sequence_logps(policy, BATCH) - base).abs().max() > 0.01
    assert torch.equal(frozen_sequence_logps(ref_policy, BATCH), base)
    assert all(weight.requires_grad == ("lora_" in name) for name, weight in policy.named_parameters())


def _train_a_little(policy):
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    adam = torch.optim.AdamW(weights, lr=0.05)
    for _ in range(2):
        adam.zero_grad()
        (-sequence_logps(policy, BATCH)).sum().backward()
        adam.step()


def test_four_bit_weights_are_nf4_quantised_twice_and_change_the_model_a_little(folder):
    plain, four = (load_policy(folder, settings).model for settings in (LoadSettings(device="cpu"), FOUR_BIT))
    apart = (frozen_sequence_logps(plain, BATCH) - frozen_sequence_logps(four, BATCH)).abs().max()
    assert 1e-4 < apart < 0.5
    quantised = [weight for weight in four.parameters() if type(weight).__name__ == "Params4bit"]
    weights = sum(inputs * outputs for _, inputs, outputs in linear_layers(plain))
    assert sum(2 * weight.numel() for weight in quantised) == weights  # two a byte, and none left out
    assert all(weight.quant_state.quant_type == "nf4" and weight.quant_state.nested for weight in quantised)


def test_gradients_survive_an_evaluation_in_four_bits(folder):
    """On CPUs with AVX512-BF16 bitsandbytes would lose them."""
    policy = load_policy(folder, FOUR_BIT).model
    frozen_sequence_logps(policy, BATCH)
    in_training(policy)
    sequence_logps(policy, BATCH).sum().backward()
    grads = [weight.grad for name, weight in policy.named_parameters() if "lora_B" in name]
    assert grads and all(grad is not None and grad.abs().max() > 0 for grad in grads)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_adapters_and_head_are_float32_on_a_base_in_16_bits(model_folder, dtype):
    settings = LoadSettings(lora=True, dtype=dtype, device="cpu")
    for load, run in ((load_policy, sequence_logps), (load_reward_model, answer_scores)):
        model = load(str(model_folder("llama")), settings).model
        found = run(model, BATCH)
        found.sum().backward()
        assert found.dtype == torch.float32 and str(model.dtype) == f"torch.{dtype}"
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                assert weight.dtype == torch.float32 and ("score" in name or weight.grad is not None)


def test_the_state_holds_what_is_trained_and_nothing_else(model_folder):
    settings = LoadSettings(lora=True, four_bit=True, lora_rank=4, device="cpu")
    first, second = (load_reward_model(str(model_folder("opt")), settings).model for _ in range(2))
    for weight in first.parameters():
        if weight.requires_grad:
            weight.data.normal_(generator=torch.Generator().manual_seed(1))
    state = copy.deepcopy(trained_state(first))
    assert {name.rsplit(".", 3)[-1] for name in state} == {"weight", "bias"}
    assert all("lora_" in name or "score" in name for name in state) and any(
        "score" in name for name in state
    )
    load_trained_state(second, state)
    with torch.no_grad():
        assert torch.equal(answer_scores(first, BATCH), answer_scores(second, BATCH))
    third = load_reward_model(
        str(model_folder("opt")), LoadSettings(lora=True, lora_rank=8, device="cpu")
    ).model
    with pytest.raises(ValueError, match="rank or layers differ"):
        load_trained_state(third, state)


def test_adapters_depend_on_the_seed_alone(model_folder):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    states = [
        trained_state(
            load_policy(str(model_folder("gpt2")), LoadSettings(lora=True, device="cpu", seed=seed)).model
        )
        for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    name = next(name for name in states[0] if "lora_A" in name)
    assert torch.equal(states[0][name], states[1][name]) and not torch.equal(states[0][name], states[2][name])


def test_dropout_acts_on_adapters_in_training_alone(model_folder):
    policy = load_policy(
        str(model_folder("opt")), LoadSettings(lora=True, lora_dropout=0.5, device="cpu")
    ).model
    _train_a_little(policy)  # OPT's own dropout of 0.1 is gone
    with torch.no_grad():
        in_training(policy)
        assert not torch.equal(sequence_logps(policy, BATCH), sequence_logps(policy, BATCH))
        in_training(policy, dropout=False)
        assert torch.equal(sequence_logps(policy, BATCH), sequence_logps(policy, BATCH))


# ---- adapters of another model -------------------------------------------------------------------------------------


@pytest.fixture
def adapters(model_folder, tmp_path):
    """A call: adapters trained on one model, in a folder that says that they belong to another."""

    def make(on=None, **config):
        policy = load_policy(str(model_folder("llama")), LoadSettings(lora=True, lora_rank=4, device="cpu"))
        save_model(policy.model, policy.tokenizer, tmp_path / "a")
        whole = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
        base = {} if on is None else {"base_model_name_or_path": str(on)}
        (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(whole | base | config))
        return str(tmp_path / "a")

    return make


@pytest.mark.parametrize(
    ("kind", "shape", "says"),
    [
        (
            "llama",
            {"hidden_size": 64},
            r"lora_A.default.weight is \[4, 32\], expected \[4, 64\]; .*another model",
        ),
        (
            "llama",
            {"num_hidden_layers": 3},
            r"14 are missing \(.*layers.2.*they were trained on another model",
        ),
        ("llama", {"num_hidden_layers": 1}, r"14 are not the model's \(.*layers.1.*trained on another model"),
        ("qwen2", {}, "do not fit Qwen2ForCausalLM .*they were trained on LlamaForCausalLM"),
        ("gpt2", {}, "cannot load the adapters in .*Target modules"),
    ],
)
def test_adapters_of_another_model_are_refused(adapters, model_folder, kind, shape, says):
    with pytest.raises(Fault, match=says) as refused:
        load_policy(adapters(on=model_folder(kind, **shape)), LoadSettings(device="cpu"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("on", "config", "says"),
    [
        ("/no/such", {}, "belong to /no/such, which is not there; correct base_model_name_or_path in"),
        ("", {}, "do not say which model they belong to"),
        (None, {"r": 8}, r"is \[4, 32\], expected \[8, 32\]; they were trained on another model, or .* rank"),
        (None, {"r": "4"}, "cannot load the adapters in .*TypeError"),
        (None, {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3}, "change no weights; give adapters such as"),
    ],
)  # fmt: skip
def test_damaged_settings_of_adapters_are_one_line(adapters, on, config, says):
    with pytest.raises(Fault, match=says) as refused:
        load_policy(adapters(on, **config), LoadSettings(device="cpu"))
    assert "\n" not in str(refused.value)


def test_a_policy_with_adapters_in_it_is_trained_whole_without_lora(adapters):
    model = load_policy(adapters(), LoadSettings(device="cpu")).model
    assert all(weight.requires_grad for weight in model.parameters())


def test_adapters_without_a_tokenizer_have_their_models(adapters):
    folder = Path(adapters())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert len(load_policy(str(folder), LoadSettings(device="cpu")).tokenizer) == 400


def test_a_state_of_another_model_is_one_line(model_folder):
    two, three = (
        load_policy(str(model_folder("llama", num_hidden_layers=layers)), LoadSettings(device="cpu")).model
        for layers in (2, 3)
    )
    with pytest.raises(ValueError, match=r"not this model's: 9 are missing .*.*folder changed") as error:
        load_trained_state(three, trained_state(two))
    assert "\n" not in str(error.value)


def test_adapters_find_their_base_from_any_folder(model_folder, tmp_path, monkeypatch):
    base, settings = model_folder("gpt2"), LoadSettings(lora=True, device="cpu")
    monkeypatch.chdir(base.parent)
    loaded = load_policy(base.name, settings)
    _train_a_little(loaded.model)
    save_model(loaded.model, loaded.tokenizer, tmp_path / "adapters")
    monkeypatch.chdir(tmp_path)
    merged = load_policy("adapters", LoadSettings(device="cpu")).model
    found = frozen_sequence_logps(merged, BATCH)
    torch.testing.assert_close(found, frozen_sequence_logps(loaded.model, BATCH), atol=1e-4, rtol=1e-4)


def test_a_reward_model_has_one_output_and_says_so(model_folder):
    model = load_reward_model(str(model_folder("opt")), LoadSettings(device="cpu")).model
    assert model.config.num_labels == 1
    assert model.score.weight.shape == (1, model.config.word_embed_proj_dim)
