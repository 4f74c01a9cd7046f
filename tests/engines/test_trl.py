"""TRL's trainers as iterators: the same batches give the same records as our own engine, and they obey like it."""

from __future__ import annotations

import copy
import gc
import json
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch
from torch.nn.utils import parameters_to_vector

pytest.importorskip("trl", reason="TRL is not installed")

from rlhflab import recipes
from rlhflab.core.algorithm import TrainingDiverged
from rlhflab.engines import versions as engines
from rlhflab.runs.store import Run

SETTINGS = {
    recipes.DPO: {"pairs": 100, "beta": 0.5, "label_noise": 0.1, "evaluate_every": 100, "batch_size": 16},
    recipes.Reward: {
        "pairs": 20,
        "label_noise": 0.1,
        "evaluate": False,
        "batch_size": 16,
        "learning_rate": 2e-3,
    },
    recipes.SFT: {"texts": 300, "evaluate_every": 100, "batch_size": 16},
}
RECIPES = pytest.mark.parametrize("recipe", SETTINGS, ids=lambda recipe: recipe.algorithm)


def make(recipe, engine="trl", steps=20, **changes):
    settings = {**SETTINGS[recipe], **changes}
    return recipe(steps=steps, device="cpu", progress=False, engine=engine, **settings).build()


def numbers(record):
    """All that a record measures, under one name each.

    Scores of a reward model are taken from their mean: the gradient of its bias is rounding dust, of which Adam makes
    whole steps, and no difference of scores knows it.
    """
    scalars = dict(record.scalars)
    mean = scalars.pop("mean_reward", 0.0)
    for name in ("min_reward", "max_reward"):
        if name in scalars:
            scalars[name] -= mean
    found = {f"exact/{name}": value for name, value in (record.exact or {}).items()}
    if record.pairs:
        for name in ("chosen_rewards", "rejected_rewards"):
            found |= {f"{name}/{i}": value - mean for i, value in enumerate(getattr(record.pairs, name))}
        found |= {f"weights/{i}": value for i, value in enumerate(record.pairs.weights)}
    return {**scalars, **found}


@RECIPES
def test_both_engines_agree_on_every_step(recipe):
    lab, trl = (list(make(recipe, engine)) for engine in ("lab", "trl"))
    assert [record.step for record in trl] == [record.step for record in lab] == list(range(1, 21))
    assert lab[0].scalars["loss"] - lab[-1].scalars["loss"] > 0.02  # they learn, and so could come apart
    for ours, theirs in zip(lab, trl, strict=True):
        assert theirs.knobs == ours.knobs
        if ours.pairs:
            for name in ("ids", "prompts", "chosen", "rejected", "flipped"):
                assert getattr(theirs.pairs, name) == getattr(ours.pairs, name)
        found, expected = numbers(theirs), numbers(ours)
        expected = {
            k: v
            for k, v in expected.items()
            if not (ours.step == 1 and k.endswith(("accuracies", "accuracy")))
        }
        # rounding grows: reward models start from the same 0 and are trained at a higher rate
        late = recipe is recipes.Reward and ours.step > 12
        near = {"rel": 2e-3, "abs": 1e-4} if late else {"rel": 1e-4, "abs": 2e-5}
        assert {name: found[name] for name in expected} == pytest.approx(expected, **near)
    assert (lab[-1].exact is None) == (trl[-1].exact is None)
    assert [s.after for s in trl[-1].samples] == [s.after for s in lab[-1].samples]


def test_the_pairs_are_those_whose_means_trl_logs():
    for record in make(recipes.DPO, steps=5):
        pairs = record.pairs
        margins = [c - r for c, r in zip(pairs.chosen_rewards, pairs.rejected_rewards, strict=True)]
        assert record.scalars["rewards/margins"] == pytest.approx(sum(margins) / 16, abs=1e-6)
        assert record.scalars["entropy"] > 0.5  # only TRL has this
    assert "epoch" not in record.scalars


def test_it_makes_one_forward_a_step():
    algorithm = make(recipes.DPO, steps=4, evaluate_every=4)
    next(algorithm)
    calls = []
    algorithm.policy.base_model.register_forward_hook(lambda *_: calls.append(1))
    next(algorithm)
    next(algorithm)
    assert len(calls) == 2


def test_the_reference_is_the_one_trl_computes_itself(sft):
    from trl.trainer.utils import add_fused_lm_head

    from rlhflab.engines.trl import preference_rows

    algorithm = make(recipes.DPO)
    rows = copy.deepcopy(algorithm.pairs).next()
    next(algorithm)
    reference = copy.deepcopy(sft)  # TRL changes its forward for good
    add_fused_lm_head(reference)
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    batch = [{name: row[name] for name in columns} for row in preference_rows(rows)]
    theirs = torch.cat(
        algorithm.loop.trainer.compute_ref_log_probs(reference, algorithm.loop.trainer.data_collator(batch))
    )
    assert torch.allclose(theirs, rows.ref_logps, atol=1e-5)


def test_the_model_is_left_as_it_was():
    algorithm = make(recipes.DPO, steps=3)
    before = copy.deepcopy(algorithm.policy.config.to_dict())
    next(algorithm)
    assert not algorithm.policy.training  # answers are drawn and judged without dropout
    assert "forward" not in vars(algorithm.policy)
    assert algorithm.policy.config.to_dict() == before
    twin = copy.deepcopy(algorithm.policy)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.zero_()
    ids = torch.tensor([[1, 2, 3]])
    assert twin(ids).logits.abs().max() == 0  # with TRL's forward it would use the original's weights
    assert algorithm.policy(ids).logits.abs().max() > 0


@RECIPES
def test_the_learning_rate_is_live_under_the_schedule(recipe):
    algorithm, lab = make(recipe, steps=20), make(recipe, "lab", steps=20)
    weights = list(algorithm.loop.trainer.model.parameters())
    for step in range(1, 9):
        for engine in (algorithm, lab):
            if step == 4:
                engine.knobs.learning_rate = 1e-12
            if step == 6:
                engine.knobs.learning_rate = 5e-3
        before = parameters_to_vector(weights).detach().clone()
        record, other = next(algorithm), next(lab)
        moved = (parameters_to_vector(weights) - before).abs().max().item()
        assert record.scalars["learning_rate"] == other.scalars["learning_rate"]
        assert record.scalars["loss"] == pytest.approx(other.scalars["loss"], abs=2e-5)
        assert (moved > 1e-6) == (step not in (4, 5))


def test_it_rests_between_steps():
    algorithm = make(recipes.DPO)
    for step in (1, 2):
        next(algorithm)
        before = parameters_to_vector(algorithm.policy.parameters()).detach().clone()
        time.sleep(0.1)
        assert torch.equal(before, parameters_to_vector(algorithm.policy.parameters()))
        assert algorithm.step == step == algorithm.loop.trainer.state.global_step


def test_beta_is_live():
    algorithm, lab = make(recipes.DPO), make(recipes.DPO, "lab")
    for step in range(1, 8):
        if step == 5:
            algorithm.knobs.beta = lab.knobs.beta = 5.0
        record, other = next(algorithm), next(lab)
        assert record.knobs["beta"] == (5.0 if step >= 5 else 0.5)
        assert record.scalars["rewards/margins"] == pytest.approx(other.scalars["rewards/margins"], abs=2e-5)
        assert record.scalars["loss"] == pytest.approx(other.scalars["loss"], abs=2e-5)


@RECIPES
def test_a_run_goes_on_from_the_trainers_checkpoint(recipe, tmp_path):
    whole = list(make(recipe, steps=10))
    algorithm = make(recipe, steps=10)
    run = Run.create(tmp_path / "run", {})
    for _ in range(7):
        run.append(next(algorithm))
    run.save_checkpoint(algorithm)
    state = torch.get_rng_state()
    run.append(next(algorithm))  # lost: made after the checkpoint

    torch.manual_seed(77)
    again = make(recipe, steps=10)
    assert run.load_checkpoint(again) == 7 == again.step
    assert torch.equal(torch.get_rng_state(), state)
    rest = list(again)
    assert [numbers(r) for r in rest] == [pytest.approx(numbers(r), abs=1e-6) for r in whole[7:]]

    run.save_checkpoint(again)
    ended = make(recipe, steps=10)
    assert run.load_checkpoint(ended) == 10 and list(ended) == []
    for a, b in zip(
        ended.loop.trainer.model.parameters(), again.loop.trainer.model.parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_it_can_be_put_back_to_its_start():
    algorithm = make(recipes.DPO, steps=4)
    begin = algorithm.state_dict()
    first = list(algorithm)
    algorithm.load_state_dict(begin)
    assert [r.scalars for r in algorithm] == [pytest.approx(r.scalars, abs=1e-6) for r in first]


def test_a_checkpoint_holds_what_the_trainer_needs_and_no_more():
    algorithm = make(recipes.Reward, steps=3)
    next(algorithm)
    files = algorithm.state_dict()["trainer"]
    assert {
        "model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
    } <= set(files)
    assert not {"training_args.bin", "tokenizer.json", "README.md"} & set(files)


def test_divergence_is_named_with_step_and_knobs():
    algorithm = make(recipes.DPO)
    next(algorithm)
    algorithm.policy.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"loss.* NaN or infinite at step 2 with beta=0.5"):
        next(algorithm)


def test_what_fails_in_trl_is_raised_here():
    algorithm = make(recipes.DPO)
    next(algorithm)
    algorithm.loop.trainer.loss_types = ["nonsense"]
    with pytest.raises(ValueError, match="nonsense"):
        next(algorithm)


def test_a_dropped_algorithm_takes_thread_and_files_with_it():
    algorithm = make(recipes.DPO)
    next(algorithm)
    folder, gone = algorithm.loop.trainer.args.output_dir, weakref.ref(algorithm)
    threads = [t for t in threading.enumerate() if t.name == "rlhflab-trl"]
    del algorithm
    gc.collect()
    assert gone() is None
    threads[-1].join(5)
    assert not threads[-1].is_alive()
    assert not Path(folder).exists()


def test_it_tells_nobody(monkeypatch):
    from trl.trainer import base_trainer

    told = []
    monkeypatch.setattr(base_trainer, "send_telemetry", lambda **what: told.append(what))
    next(make(recipes.SFT))
    assert told == []


def test_several_answers_a_ranking_and_unknown_engines_are_refused():
    with pytest.raises(ValueError, match="takes pairs, so ranked must be 2, got 4"):
        make(recipes.Reward, ranked=4)
    with pytest.raises(ValueError, match="engine must be one of lab, trl, got 'tlr'"):
        make(recipes.DPO, "tlr")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "which is not installed"),
        ("0.24.0", "but 0.24.0 is installed"),
        ("2.0.0", "but 2.0.0 is installed"),
    ],
)
def test_a_missing_or_unsupported_trl_is_one_line_with_the_fix(monkeypatch, found, words):
    def version(name):
        if found is None:
            raise engines.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(engines.metadata, "version", version)
    with pytest.raises(ValueError) as raised:
        make(recipes.DPO)
    assert isinstance(raised.value, ImportError)
    message = str(raised.value)
    assert words in message and 'pip install "trl' in message and "\n" not in message


def test_the_extra_asks_for_the_supported_versions(root):
    import tomllib

    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["trl"] == [f"trl{engines.TRL_VERSIONS}"]
    assert f"trl{engines.TRL_VERSIONS}" in extras["test"]


def test_a_lora_adapter_is_trained_and_its_base_left_alone(world, sft):
    from peft import LoraConfig, get_peft_model

    from rlhflab.algorithms.dpo import DPO
    from rlhflab.data.pair_source import FixedPairs
    from rlhflab.engines.trl import TRLDPO
    from rlhflab.settings.dpo import DPOSettings
    from rlhflab.worlds.micro import ReferencePoint

    view = ReferencePoint(world, sft)
    pairs = view.texts(view.sample_pairs(50, 0.0, torch.Generator().manual_seed(0)))
    losses = {}
    for engine in (DPO, TRLDPO):
        torch.manual_seed(0)
        policy = get_peft_model(
            copy.deepcopy(sft), LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True)
        )
        source = FixedPairs(pairs, world.encode_prompt, world.encode_answer, sft, 16, 0)
        algorithm = engine(policy, source, DPOSettings(steps=12, warmup=0, learning_rate=1e-2))
        losses[engine] = [next(algorithm).scalars["loss"] for _ in range(8)]
        assert torch.equal(policy.base_model.model.transformer.wte.weight, sft.transformer.wte.weight)
        assert list(policy.peft_config) == ["default"]
        if engine is TRLDPO:
            state = algorithm.state_dict()
            expected = next(algorithm).scalars["loss"]
            algorithm.load_state_dict(state)
            assert next(algorithm).scalars["loss"] == pytest.approx(expected, abs=1e-6)
    assert losses[TRLDPO] == pytest.approx(losses[DPO], abs=2e-5)
    assert losses[DPO][0] - losses[DPO][-1] > 0.01


def test_the_command_line_keeps_a_run_of_this_engine_and_goes_on_with_it(rlhflab, tmp_path):
    code, out, err = rlhflab(
        "train",
        "dpo",
        "--engine",
        "trl",
        "--steps",
        4,
        "--pairs",
        50,
        "--out",
        "run",
        "--json",
        "--device",
        "cpu",
    )
    assert code == 0, err
    assert (json.loads(out)["engine"], json.loads(out)["exact"]["kl"] > 0) == ("trl", True)
    run = Run.open(tmp_path / "run")
    assert run.config["engine"] == "trl" and [record.step for record in run.records()] == [1, 2, 3, 4]
    code, out, err = rlhflab("train", "dpo", "--resume", "run", "--json")
    assert code == 0 and json.loads(out)["steps"] == 4, err


def test_adapters_on_a_4_bit_base_stay_as_precise_as_they_were(world, tmp_path):
    """TRL rounds them to bfloat16 at construction, where our own engine keeps float32."""
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, OPTConfig, OPTForCausalLM

    from rlhflab.algorithms.dpo import DPO
    from rlhflab.data.pair_source import FixedPairs
    from rlhflab.engines.trl import TRLDPO
    from rlhflab.settings.dpo import DPOSettings
    from rlhflab.worlds.preferences import PreferencePair

    shape = OPTConfig(
        vocab_size=len(world.tokenizer), hidden_size=32, word_embed_proj_dim=32, num_hidden_layers=1, ffn_dim=64,
        num_attention_heads=2, max_position_embeddings=16, dropout=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    OPTForCausalLM(shape).save_pretrained(tmp_path)
    pairs = [PreferencePair("the plot was", "good", "bad"), PreferencePair("the comedy was", "funny", "dull")]
    losses = {}
    for engine in (DPO, TRLDPO):
        quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        base = AutoModelForCausalLM.from_pretrained(
            tmp_path, quantization_config=quantised, dtype=torch.float32
        )
        for layer in base.modules():
            if isinstance(layer, bitsandbytes.nn.Linear4bit):
                layer.support_avx512bf16_for_cpu = False  # or an evaluation takes its gradients away for good
        torch.manual_seed(1)
        policy = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
        source = FixedPairs(pairs, world.encode_prompt, world.encode_answer, policy, 2, 0)
        adapters = [weight for weight in policy.parameters() if weight.requires_grad]
        before = parameters_to_vector(adapters).detach().clone()
        algorithm = engine(policy, source, DPOSettings(steps=9, warmup=0, learning_rate=1e-2))
        assert torch.equal(parameters_to_vector(adapters), before) and before.abs().max() > 0
        losses[engine] = [next(algorithm).scalars["loss"] for _ in range(6)]
    assert losses[TRLDPO] == pytest.approx(losses[DPO], abs=2e-5)
    assert losses[DPO][0] - losses[DPO][-1] > 0.01


@pytest.mark.parametrize("engine", ["lab", "trl"])
@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ({"num_hidden_layers": 3}, r"not this model's: 9 are missing \(model.layers.2"),
        ({"num_hidden_layers": 1}, r"not this model's: 9 are not the model's \(model.layers.1"),
        (
            {"hidden_size": 64},
            r"not this model's: 21 have another shape \(lm_head.weight \[400, 32\], expected",
        ),
    ],
)
def test_a_run_whose_models_folder_has_changed_is_not_continued(model_folder, tmp_path, engine, shape, says):
    """TRL's Trainer reads what fits and warns of the rest."""
    (tmp_path / "pairs.jsonl").write_text(
        "\n".join(json.dumps({"prompt": f"{n}?", "chosen": " Yes", "rejected": " No"}) for n in range(4))
    )
    given = {
        "world": str(tmp_path / "pairs.jsonl"),
        "steps": 2,
        "batch_size": 2,
        "engine": engine,
        "device": "cpu",
    }
    before = recipes.DPO(model=str(model_folder("llama")), progress=False, **given).build()
    next(before)
    after = recipes.DPO(model=str(model_folder("llama", **shape)), progress=False, **given).build()
    with pytest.raises(ValueError, match=says) as refused:
        after.load_state_dict(before.state_dict())
    assert "\n" not in str(refused.value)
