"""Runs in 16 bits: ratios that start at 1, references judged as they compute now, reward models read anywhere."""

import json
from itertools import accumulate

import pytest
import torch
from safetensors.torch import load_file
from torch.profiler import ProfilerActivity, profile

from rlhflab import recipes
from rlhflab.models import loading
from rlhflab.models.logps import frozen_sequence_logps, join_answers
from rlhflab.models.lora import AdaptersOff
from rlhflab.models.memory import estimate
from rlhflab.models.quantised import is_four_bit
from rlhflab.models.reward import answer_scores, read_reward_model
from rlhflab.runs.checkpoint import read_checkpoint, write_checkpoint
from rlhflab.tasks.rewards import ClassifierReward
from tests.real_models import write_classifier

QUIET = {"device": "cpu", "progress": False}
BATCH = join_answers([[5, 6, 7], [8]], [[9, 10], [11]])


@pytest.fixture
def texts(tmp_path):
    rows = [
        {"text": f"The film number {i} was {'good ' * (3 + i % 5)}in all its parts.", "label": i % 2}
        for i in range(20)
    ]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(tmp_path / "texts.jsonl")


def letters(prompts, answers):
    return [float(len(answer)) for answer in answers]


@pytest.mark.parametrize("words", [3, 4])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_ratios_start_at_1_and_the_kl_at_0(model_folder, texts, kind, dtype, words):
    """Prompts of one length and of several; before any update, in minibatches as an epoch takes them."""
    run = recipes.PPO(
        world=texts, model=str(model_folder(kind, initializer_range=0.5)), reward=letters, batch_size=16,
        max_new_tokens=12, prompt_words=words, max_length=200, lora=True, dtype=dtype, **QUIET,
    ).build()  # fmt: skip
    collected = run.task.collect(run.knobs.snapshot())
    rollout = collected.rollout
    assert collected.scalars["objective/kl"] == 0
    with torch.no_grad():
        for rows in torch.arange(16).chunk(2):
            part = rollout.rows(rows)
            logps = run.task.outputs(part).distribution.log_prob(part.actions)
            assert ((logps - part.logps) * part.mask).abs().max() < 1e-4
    assert not (rollout.logps * ~rollout.mask).any()


def test_a_reference_is_judged_again_in_another_precision_and_kept_in_the_same(model_folder, texts, tmp_path):
    def build(dtype):
        return recipes.DPO(
            world=texts, model=str(model_folder("llama", initializer_range=0.5)), steps=4, batch_size=4, pairs=8,
            lora=True, dtype=dtype, **QUIET,
        ).build()  # fmt: skip

    first = build("bfloat16")
    next(first)
    write_checkpoint(tmp_path / "c", first.state_dict(), 1)
    state = read_checkpoint(tmp_path / "c")[1]["pairs"]
    known = state["ref_logps"]
    seen = ~known.isnan().any(0)
    assert seen.any()
    same, other = build("bfloat16"), build("float16")
    for run in (same, other):
        run.pairs.load_state_dict(state)
    assert torch.equal(same.pairs.state_dict()["ref_logps"].nan_to_num(), known.nan_to_num())
    assert other.pairs.state_dict()["ref_logps"].isnan().all()
    rows = other.pairs.next()
    now = frozen_sequence_logps(AdaptersOff(other.policy), rows.answers)
    torch.testing.assert_close(rows.ref_logps, now, rtol=0, atol=0.02)
    before = frozen_sequence_logps(AdaptersOff(first.policy), rows.answers)
    assert (rows.ref_logps - before).abs().max() > 0.02  # what was kept would have been another model's


def test_what_an_older_run_kept_without_saying_how_is_judged_again(model_folder, texts):
    run = recipes.DPO(
        world=texts, model=str(model_folder("gpt2")), steps=2, batch_size=4, pairs=8, lora=True, **QUIET
    ).build()
    next(run)
    state = dict(run.pairs.state_dict())
    del state["ref_logps_in"]
    run.pairs.load_state_dict(state)
    assert run.pairs.state_dict()["ref_logps"].isnan().all()


def peak(step):
    """Most bytes that tensors take beyond those that are there, by the CPU's allocations one by one."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    events = seen.profiler.kineto_results.events()
    sizes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    return max(accumulate(size for _, size in sorted(sizes)))


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
@pytest.mark.parametrize("how", [{"lora": True, "gradient_checkpointing": True}, {}], ids=["lora", "whole"])
def test_trpo_takes_the_memory_that_is_expected(model_folder, texts, monkeypatch, kind, how):
    """Two derivatives through attention that is not fused; half as long it takes less than half."""
    wide = {"n_embd": 128, "n_layer": 3, "n_head": 4} if kind == "gpt2" else {
        "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3}  # fmt: skip
    seen = []
    monkeypatch.setattr(loading, "estimate", lambda *a, **k: seen.append(estimate(*a, **k)) or seen[-1])
    totals = []
    for new in (48, 96):
        run = recipes.TRPO(
            world=texts, model=str(model_folder(kind, **wide)), reward=letters, batch_size=16, max_new_tokens=new,
            max_length=new + 12, cg_iterations=2, evaluate_every=100, steps=3, **how, **QUIET,
        ).build()  # fmt: skip
        next(run)
        weights = sum(w.numel() * w.element_size() for w in run.policy.parameters()) * (1 if how else 2)
        ratio = seen[-1].total / (weights + peak(lambda run=run: next(run)))
        assert 1 <= ratio < 1.8, ratio
        totals.append(seen[-1].activations)
    assert totals[1] > 1.75 * totals[0]


@pytest.mark.parametrize("four_bit", [False, True])
@pytest.mark.parametrize("trained", ["bfloat16", "float16", "float32"])
def test_a_reward_model_is_read_as_this_device_computes(model_folder, texts, tmp_path, trained, four_bit):
    made = recipes.Reward(
        world=texts, model=str(model_folder("llama")), steps=3, batch_size=4, dtype=trained, lora=True,
        four_bit=four_bit, **QUIET,
    ).build()  # fmt: skip
    list(made)
    made.save_model(tmp_path / "rm")
    again = read_reward_model(tmp_path / "rm", torch.device("cpu"))
    assert is_four_bit(again) is four_bit
    saved = load_file(tmp_path / "rm" / "adapter_model.safetensors")
    found = {n.replace(".default", ""): w for n, w in again.named_parameters() if "lora_" in n}
    assert saved.keys() == found.keys() and all(torch.equal(saved[name], found[name]) for name in saved)
    for weight in again.parameters():
        assert weight.dtype == torch.float32 or type(weight).__name__ == "Params4bit"
    if four_bit:
        layer = again.get_base_model().model.layers[0].mlp.up_proj
        assert layer.base_layer.compute_dtype == torch.float32
    with torch.no_grad():
        scores, wanted = (answer_scores(model, BATCH) for model in (again, made.reward_model.eval()))
    assert scores.dtype == torch.float32
    exact = {} if trained == "float32" else {"rtol": 0.02, "atol": 2e-3}
    torch.testing.assert_close(scores, wanted, **exact)


def test_adapters_of_a_reward_model_read_in_16_bits_are_those_of_training(
    model_folder, texts, tmp_path, monkeypatch
):
    """As on a T4: what is read computes in float16, and nothing more is in float32 than when it was trained."""
    made = recipes.Reward(
        world=texts,
        model=str(model_folder("gpt2")),
        steps=3,
        batch_size=4,
        dtype="bfloat16",
        lora=True,
        **QUIET,
    ).build()
    list(made)
    made.save_model(tmp_path / "rm")
    monkeypatch.setattr("rlhflab.models.precision.choose_dtype", lambda *_: torch.float16)
    again = read_reward_model(tmp_path / "rm", torch.device("cpu"))
    kinds = {}
    for model in (again, made.reward_model):
        kinds[model] = {name: str(weight.dtype) for name, weight in model.named_parameters()}
    expected = {name: kind.replace("bfloat16", "float16") for name, kind in kinds[made.reward_model].items()}
    assert kinds[again] == expected and "torch.float16" in expected.values()
    seen = set()
    for module in again.modules():
        if hasattr(module, "lora_A"):
            module.register_forward_hook(lambda _, args, out: seen.update((args[0].dtype, out.dtype)))
    with torch.no_grad():
        assert answer_scores(again, BATCH).isfinite().all()
    assert seen == {torch.float16}


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_models_stored_whole_in_16_bits_are_read_in_float32_on_a_cpu(model_folder, tmp_path, stored):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from rlhflab.models.loading import load_policy
    from rlhflab.models.reward import reward_model_from, save_reward_model

    policy = AutoModelForCausalLM.from_pretrained(model_folder("gpt2"))
    save_reward_model(reward_model_from(policy).to(stored), tmp_path / "rm")
    assert read_reward_model(tmp_path / "rm", torch.device("cpu")).dtype == torch.float32
    folder = write_classifier(tmp_path / "c", model_folder("gpt2"))
    AutoModelForSequenceClassification.from_pretrained(folder).to(stored).save_pretrained(folder)
    reward = ClassifierReward(str(folder), ["a"], lambda tokens: "", torch.device("cpu"))
    assert reward.model.dtype == torch.float32
    loaded = load_policy(str(model_folder("gpt2")))
    loaded.model.to(stored).save_pretrained(tmp_path / "p")
    loaded.tokenizer.save_pretrained(tmp_path / "p")
    assert json.loads((tmp_path / "p" / "config.json").read_text())["dtype"] == str(stored)[6:]
    assert load_policy(str(tmp_path / "p")).model.dtype == torch.float32
