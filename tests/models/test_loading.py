"""Loading models and the rule for device and precision."""

import json
import shutil
from contextlib import nullcontext

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoTokenizer

from rlhflab.models.devices import choose_device
from rlhflab.models.loading import (
    LoadSettings,
    choose_dtype,
    frozen_copy,
    load_policy,
    load_reward_model,
    save_model,
)
from rlhflab.models.logps import LOGITS_AT_ONCE, frozen_sequence_logps, join_answers
from rlhflab.models.lora import add_lora, lora_targets
from rlhflab.models.memory import (
    Workload,
    device_words,
    empty_model,
    estimate,
    forget_peak,
    free_memory,
    peak_memory,
)
from rlhflab.models.tiny import TinyConfig, new_tiny_model
from rlhflab.oom import amounts, is_out_of_memory
from tests.memory import short


def test_device_and_precision(monkeypatch):
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_dtype(torch.device("cpu")) == torch.float32
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))  # a T4 has no real bf16
    assert choose_dtype(torch.device("cuda")) == torch.float16
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert choose_dtype(torch.device("cuda")) == torch.bfloat16
    with pytest.raises(ValueError, match="device must be one of auto, cpu, cuda, mps, got 'tpu'"):
        choose_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch sees no CUDA device"):
        choose_device("cuda")


def test_a_saved_folder_gives_the_same_model(world, tmp_path):
    model = new_tiny_model(world.tokenizer)
    model.save_pretrained(tmp_path)
    world.tokenizer.save_pretrained(tmp_path)
    found = load_policy(str(tmp_path))
    loaded, tokenizer = found.model, found.tokenizer
    assert tokenizer("not very good")["input_ids"] == world.encode_answer("not very good")[:-1]
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name])


def test_a_folder_that_holds_no_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        load_policy(str(tmp_path))


def test_a_frozen_copy_is_apart(world):
    model = new_tiny_model(world.tokenizer)
    copy = frozen_copy(model)
    assert not any(p.requires_grad for p in copy.parameters())
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert not torch.equal(next(model.parameters()), next(copy.parameters()))


def test_tiny_models_are_reproducible_and_leave_the_random_state_alone(world):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second, other = (new_tiny_model(world.tokenizer, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    with pytest.raises(ValueError, match="hidden_size must be a multiple of heads, got 30 and 4"):
        TinyConfig(hidden_size=30)


# ---- real models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"four_bit": True}, "4-bit weights cannot be trained: give --lora with --four-bit"),
        ({"lora": True, "lora_rank": 0}, "lora_rank must be from 1 to 1024, got 0"),
        ({"lora": True, "lora_alpha": 0.0}, "lora_alpha must be > 0, got 0.0"),
        ({"lora": True, "lora_dropout": 1.0}, r"lora_dropout must be in \[0, 1\), got 1.0"),
        ({"lora_targets": ("fc1",)}, "give --lora with it"),
        ({"dtype": "int8"}, "dtype must be one of auto, float32, bfloat16, float16, got 'int8'"),
        ({"dtype": "bfloat16"}, "weights that are trained are float32: bfloat16 needs --lora"),
        ({"rows": 0}, "rows must be ≥ 1, got 0"),
        ({"max_length": 0}, "max_length must be ≥ 1, got 0"),
        ({"twice": 1.5}, r"twice must be in \[0, 1\], got 1.5"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(settings, says):
    with pytest.raises(ValueError, match=says):
        LoadSettings(**settings)


@pytest.mark.parametrize("kind", ["opt", "gpt2", "llama", "qwen2"])
def test_the_note_says_what_was_loaded(model_folder, kind):
    loaded = load_policy(
        str(model_folder(kind)), LoadSettings(lora=True, four_bit=True, lora_rank=4, device="cpu")
    )
    trained = sum(weight.numel() for weight in loaded.model.parameters() if weight.requires_grad)
    assert "on cpu in NF4 computing in float32; LoRA of rank 4 on " in loaded.note
    assert f"{trained / 1e6:.3g}M trained; at most about 0." in loaded.note
    assert ("c_attn, c_proj, c_fc" in loaded.note) is (kind == "gpt2")
    reward = load_reward_model(str(model_folder(kind)), LoadSettings(lora=True, device="cpu")).model
    assert reward.score.weight.abs().max() == 0 and reward.score.weight.requires_grad


def test_gpt2_with_its_fused_gelu_is_the_same_model(model_folder):
    from transformers import AutoModelForCausalLM

    folder = str(model_folder("gpt2"))
    batch = join_answers([[5, 6, 7]], [[8, 9]])
    ours, theirs = load_policy(folder).model, AutoModelForCausalLM.from_pretrained(folder).eval()
    assert ours.config.activation_function != theirs.config.activation_function
    torch.testing.assert_close(frozen_sequence_logps(ours, batch), frozen_sequence_logps(theirs, batch))


def test_weights_that_could_hold_code_are_not_read(model_folder, tmp_path):
    shutil.copytree(model_folder("opt"), tmp_path / "m")
    torch.save(load_policy(str(tmp_path / "m")).model.state_dict(), tmp_path / "m" / "pytorch_model.bin")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="it has no weights in safetensors") as error:
        load_policy(str(tmp_path / "m"))
    assert "\n" not in str(error.value)


def test_code_that_comes_with_a_model_is_not_run(model_folder, tmp_path):
    shutil.copytree(model_folder("opt"), tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"},
    }
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="code of its own, which is not run; give --trust-remote-code"):
        load_policy(str(tmp_path / "m"))
    assert not (tmp_path / "ran").exists()


def test_tokens_that_the_model_does_not_have_are_refused(model_folder, tmp_path):
    shutil.copytree(model_folder("opt"), tmp_path / "m")
    words = AutoTokenizer.from_pretrained(tmp_path / "m")
    words.add_tokens(["<one>", "<two>"])
    words.save_pretrained(tmp_path / "m")
    with pytest.raises(ValueError, match="has 402 tokens, its model only 400"):
        load_policy(str(tmp_path / "m"))


def test_trained_adapters_are_what_further_training_starts_from(model_folder, tmp_path):
    policy = load_policy(str(model_folder("llama")), LoadSettings(lora=True, device="cpu"))
    for weight in policy.model.parameters():
        if weight.requires_grad:
            weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    save_model(policy.model, policy.tokenizer, tmp_path / "m")
    assert not (tmp_path / "m" / "model.safetensors").exists()
    batch = join_answers([[5, 6, 7]], [[8, 9]])
    again = load_policy(str(tmp_path / "m")).model
    torch.testing.assert_close(
        frozen_sequence_logps(again, batch), frozen_sequence_logps(policy.model, batch), rtol=0, atol=1e-4
    )
    further = load_policy(str(tmp_path / "m"), LoadSettings(lora=True, device="cpu"))
    torch.testing.assert_close(
        frozen_sequence_logps(further.model, batch), frozen_sequence_logps(again, batch)
    )
    for weight in further.model.parameters():
        if weight.requires_grad:
            weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    save_model(further.model, further.tokenizer, tmp_path / "n")  # adapters on adapters
    last = load_policy(str(tmp_path / "n")).model
    expected = frozen_sequence_logps(further.model, batch)
    torch.testing.assert_close(frozen_sequence_logps(last, batch), expected, rtol=0, atol=1e-4)
    assert (expected - frozen_sequence_logps(again, batch)).abs() > 0.01
    with pytest.raises(ValueError, match="adapters, which cannot be added to 4-bit weights"):
        load_policy(str(tmp_path / "m"), LoadSettings(lora=True, four_bit=True))


# ---- what is missing -----------------------------------------------------------------------------------------------


def test_missing_and_old_packages_are_one_line_with_the_fix(model_folder, monkeypatch):
    from importlib import metadata

    versions = {}
    real = metadata.version

    def version(name):
        found = versions.get(name, "as it is")
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return real(name) if found == "as it is" else found

    monkeypatch.setattr(metadata, "version", version)
    folder, settings = str(model_folder("opt")), LoadSettings(lora=True, four_bit=True, device="cpu")
    for package, found, says in (
        ("bitsandbytes", None, "4-bit weights need bitsandbytes: python -m pip install bitsandbytes"),
        ("bitsandbytes", "0.45.0", "need bitsandbytes 0.48 or newer, found 0.45.0: python -m pip install -U"),
        (
            "torchao",
            "0.10.0+cu128",
            "torchao 0.10.0.* is installed, .* older than 0.16: python -m pip uninstall -y torchao",
        ),
    ):
        versions.clear()
        versions[package] = found
        with pytest.raises(ValueError, match=says):
            load_policy(folder, settings)
    versions.clear()
    versions["torchao"] = "0.16.0"
    load_policy(folder, settings)


def _hub_error(kind):
    """What huggingface_hub raises, made as it makes it."""
    import httpx2
    from huggingface_hub import errors

    response = httpx2.Response(403, request=httpx2.Request("GET", "http://hub"))
    made = {
        "gated": lambda: errors.GatedRepoError(
            "403 Client Error. Cannot access gated repo", response=response
        ),
        "unknown": lambda: errors.RepositoryNotFoundError("404 Client Error", response=response),
        "no network": lambda: httpx2.ConnectError("[Errno -2] Name or service not known"),
        "offline": lambda: errors.OfflineModeIsEnabled("Cannot reach http://hub: offline mode is enabled."),
    }
    return made[kind]()


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (
            "gated",
            "it is gated: accept its terms on its hub page, then give a token by `hf auth login` or HF_TOKEN",
        ),
        ("unknown", "the hub has no such name, or it is private; .*HF_TOKEN"),
        (
            "no network",
            "it is not in the cache and the hub cannot be reached; check the network and HF_HUB_OFFLINE",
        ),
        (
            "offline",
            "it is not in the cache and the hub cannot be reached; check the network and HF_HUB_OFFLINE",
        ),
    ],
)
def test_what_a_hub_answers_is_one_line_with_the_fix(monkeypatch, kind, says):
    """The error is raised where transformers calls the hub, so all that it makes of it is gone through."""
    from transformers.utils import hub

    def ask(*_, **__):
        raise _hub_error(kind)

    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(hub, name, ask)
    monkeypatch.setattr(hub, "is_offline_mode", lambda: kind == "offline")
    with pytest.raises(ValueError, match=says) as error:
        load_policy("someone/some-model")
    assert str(error.value).startswith(
        "cannot load model 'someone/some-model' (expected tiny, a folder or a hub id): "
    )
    assert "\n" not in str(error.value)


# ---- memory --------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_with_what_would_help(model_folder, monkeypatch):
    folder = str(model_folder("opt"))
    monkeypatch.setattr("rlhflab.models.loading.free_memory", lambda device: 1e5)

    def refusal(**settings):
        with pytest.raises(
            ValueError, match=r"would need about .* GB .*0\.0001 GB are free on cpu; what"
        ) as error:
            load_policy(folder, LoadSettings(device="cpu", **settings))
        return str(error.value)

    small, large = refusal(rows=4, max_length=8), refusal(rows=64)
    assert (
        "--lora (0.0" in small
        and "--lora --four-bit (0.0" in small
        and "--gradient-checkpointing" not in small
    )
    for way in ("--gradient-checkpointing (", "half the --batch-size (", "half the --max-length ("):
        assert way in large
    assert "--gradient-checkpointing" not in refusal(rows=64, gradient_checkpointing=True)


@pytest.mark.parametrize("four_bit", [True, False])
def test_memory_that_runs_out_while_weights_are_loaded_is_no_riddle(model_folder, monkeypatch, four_bit):
    """transformers 5 would say "issues during automatic conversion" and nothing of memory."""
    folder = str(model_folder("llama"))

    def fail(*_, **__):
        raise short()

    if four_bit:
        bnb = pytest.importorskip("bitsandbytes")
        monkeypatch.setattr(bnb.functional, "quantize_4bit", fail)
    else:
        monkeypatch.setattr("transformers.core_model_loading._materialize_copy", fail)
    with pytest.raises((MemoryError, RuntimeError)) as raised:
        load_policy(folder, LoadSettings(device="cpu", lora=True, four_bit=four_bit))
    error = raised.value
    assert is_out_of_memory(error)
    assert amounts(error).startswith("2.00 GiB asked for, 1.06 GiB free of 14.74 GiB on GPU 0")


def test_the_estimate_is_near_what_stays_for_the_backward_pass():
    from transformers import AutoConfig, AutoModelForCausalLM

    for kind, shape in (
        ("gpt2", {"n_embd": 128, "n_layer": 3, "n_head": 4, "activation_function": "gelu_pytorch_tanh"}),
        ("opt", {"hidden_size": 128, "word_embed_proj_dim": 128, "ffn_dim": 512, "num_hidden_layers": 3,
                 "num_attention_heads": 4}),
        ("llama", {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 3, "num_attention_heads": 4}),
    ):  # fmt: skip
        config = AutoConfig.for_model(kind, vocab_size=100, bos_token_id=1, eos_token_id=2, **shape)
        for rank, dtype in ((0, torch.float32), (8, torch.float32), (8, torch.bfloat16)):
            model = AutoModelForCausalLM.from_config(config).to(dtype).eval()
            model = add_lora(model, rank, 16, 0.0, lora_targets(model)) if rank else model
            own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
            kept = {}

            def keep(tensor, own=own, kept=kept):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in own:
                    kept[storage.data_ptr()] = (storage.nbytes(), tensor)
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                trunk = model.get_base_model().base_model if rank else model.base_model
                trunk(input_ids=torch.randint(0, 100, (4, 128)), use_cache=False)
            found = estimate(empty_model(config), Workload(4, 128, dtype, rank, logits=False))
            ratio = found.activations / sum(size for size, _ in kept.values())
            assert 0.8 < ratio < 1.6, (kind, rank, dtype, ratio)


@pytest.mark.parametrize(
    ("kind", "own", "fused"),
    [
        ("llama", {}, False),
        ("gpt_neo", {"attention_types": [[["global"], 2]]}, True),
        ("gemma2", {"head_dim": 8}, True),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimate_counts_matrices_of_attention_that_is_not_fused(kind, own, fused, dtype):
    """A llama on the mathematical path, and two that have their own attention anywhere."""
    from transformers import AutoConfig, AutoModelForCausalLM

    rows, time, heads = 4, 256, 8
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_layers" if kind == "gpt_neo" else "num_hidden_layers": 2,
             "num_heads" if kind == "gpt_neo" else "num_attention_heads": heads}  # fmt: skip
    config = AutoConfig.for_model(kind, vocab_size=50, bos_token_id=1, eos_token_id=2, **shape, **own)
    model, kept = AutoModelForCausalLM.from_config(config).to(dtype).eval(), {}

    def keep(tensor):
        if tensor.numel() >= rows * heads * time * time:
            kept[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    math = sdpa_kernel(SDPBackend.MATH) if not fused else nullcontext()
    with math, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(input_ids=torch.randint(0, 50, (rows, time)), use_cache=False)
    empty = empty_model(config)
    found = estimate(empty, Workload(rows, time, dtype, 4, logits=False, fused=fused)).activations
    empty.config._attn_implementation = "sdpa"
    without = estimate(empty, Workload(rows, time, dtype, 4, logits=False)).activations
    ratio = (found - without) / sum(size for size, _ in kept.values())
    assert 0.7 < ratio < 1.6, ratio


def test_a_policys_logits_are_counted_all_at_once():
    from transformers import AutoConfig

    empty = empty_model(AutoConfig.for_model("gpt2", n_embd=64, n_layer=1, n_head=2))
    small, large = (estimate(empty, Workload(16, 1024, answer_tokens=n)).activations for n in (100, 1000))
    assert large - small == pytest.approx(24 * 16 * 900 * 50257)
    parts = estimate(empty, Workload(16, 1024)).activations  # where they are made in parts
    assert large > 2 * parts
    assert (
        parts - estimate(empty, Workload(16, 1024, logits=False)).activations == (3 * 4 + 4) * LOGITS_AT_ONCE
    )


def test_the_peak_is_counted_from_where_it_was_forgotten():
    device = torch.device("cpu")
    large = torch.ones(30_000_000)
    with_it = peak_memory(device)
    del large
    forget_peak(device)
    without = peak_memory(device)
    assert without < with_it - 100e6
    large = torch.ones(30_000_000)
    assert peak_memory(device) > without + 90e6 and len(large)
    assert device_words(device).startswith("cpu (") and free_memory(device) > 1e8


def test_what_torch_keeps_for_its_next_tensors_is_free(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (3_000, 16_000))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 9_000)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 2_000)
    assert free_memory(torch.device("cuda")) == 10_000


def test_the_estimate_counts_weights_copies_and_moments():
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        "opt", hidden_size=1024, word_embed_proj_dim=512, ffn_dim=4096, num_hidden_layers=24, num_attention_heads=16,
        do_layer_norm_before=False,
    )  # fmt: skip  # OPT-350m: 331 million parameters
    empty = empty_model(config)
    every = empty.num_parameters()
    assert 330e6 < every < 333e6
    whole = estimate(empty, Workload(8, 512, copies=2))
    assert (whole.weights, whole.optimiser, whole.adapters) == (2 * 4 * every, 12 * every, 0)
    small = estimate(empty, Workload(8, 512, torch.float16, lora_rank=16, four_bit=True))
    linear = (
        24 * (4 * 1024**2 + 2 * 1024 * 4096) + 2 * 512 * 1024
    )  # in 4 bits and their scales, the rest in 16
    assert small.weights == pytest.approx(linear * (0.5 + 1 / 64 + 1 / 4096) + (every - linear) * 2)
    targets = 24 * 16 * (4 * (1024 + 1024) + 2 * (1024 + 4096))
    assert small.adapters == 4 * targets and small.optimiser == 12 * targets
    assert (
        estimate(empty, Workload(8, 512, torch.float16, 16, four_bit=True, checkpointing=True)).total
        < small.total
        < 15e9
    )
