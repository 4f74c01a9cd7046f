"""DPO, reward modelling and policy optimisation on small models of real architectures: LoRA, 4 bits, exact resume."""

import copy
import json

import pytest
import torch
from torch.distributions import kl_divergence

from rlhflab import recipes
from rlhflab.algorithms.optimiser import Optimiser
from rlhflab.algorithms.trpo import put
from rlhflab.data.encoding import TextEncoder
from rlhflab.models.logps import frozen_sequence_logps, join_answers
from rlhflab.models.lora import AdaptersOff, trained_state
from rlhflab.models.quantised import is_four_bit
from rlhflab.models.reward import answer_scores, read_reward_model
from rlhflab.objectives.policy_gradient import masked_mean
from rlhflab.objectives.trust_region import flatten
from rlhflab.recipes.recipe import enough_pairs
from rlhflab.recipes.texts import default_rate
from rlhflab.runs.checkpoint import read_checkpoint, write_checkpoint

LORA, FOUR_BIT = {"lora": True}, {"lora": True, "four_bit": True}
QUIET = {"device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory):
    """Pairs of many lengths whose chosen answer says yes."""
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = []
    for n in range(24):
        before = "".join(f"\n\nHuman: Is it so ({k})?\n\nAssistant: Maybe." for k in range(n % 3))
        prompt = f"{before}\n\nHuman: Is {n} a number?{' Really?' * (n % 4)}\n\nAssistant:"
        rows.append({"prompt": prompt, "chosen": f" Yes, {n} is.", "rejected": f" No{', no' * (n % 5)}."})
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.fixture(scope="module")
def reviews_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    lines = ["text,label"]
    for n in range(20):
        kind = ("dull", "clever")[n % 2]
        lines.append(f"The film number {n} was {kind} and its {kind} plot too,{n % 2}")
    path.write_text("\n".join(lines))
    return str(path)


def count_letters(prompts, answers):
    return [sum(map(answer.count, "aeiou")) / 4 for answer in answers]


RECIPES = {"dpo": recipes.DPO, "reward": recipes.Reward}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    ("kind", "how"), [("opt", FOUR_BIT), ("gpt2", FOUR_BIT), ("llama", LORA), ("qwen2", {})],
    ids=["opt-4bit", "gpt2-4bit", "llama-lora", "qwen2-whole"],
)  # fmt: skip
def test_the_loss_falls(model_folder, dialogues, name, kind, how):
    rate = {} if how else {"learning_rate": 1e-3}
    algorithm = RECIPES[name](
        world=dialogues,
        model=str(model_folder(kind)),
        steps=20,
        batch_size=6,
        evaluate_every=20,
        **how,
        **rate,
        **QUIET,
    ).build()
    model = algorithm.policy if name == "dpo" else algorithm.reward_model
    assert is_four_bit(model) is ("four_bit" in how)
    losses = [record.scalars["loss"] for record in algorithm]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)  # π_θ = π_ref, r_φ = 0
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.003


@pytest.mark.parametrize(
    ("kind", "how"),
    [("opt", FOUR_BIT), ("gpt2", LORA), ("qwen2", {})],
    ids=["opt-4bit", "gpt2-lora", "whole"],
)
def test_sft_learns_the_chosen_answers(model_folder, dialogues, tmp_path, kind, how):
    """Loss over answers alone; what is written is where DPO starts."""
    rate = {} if how else {"learning_rate": 1e-3}
    spread = {"init_std": 0.2} if kind == "opt" else {}  # adapters do not reach the LM head
    run = recipes.SFT(
        world=dialogues, model=str(model_folder(kind, **spread)), texts=24, steps=30, batch_size=6,
        evaluate_every=30, **how, **rate, **QUIET,
    ).build()  # fmt: skip
    policy = run.policy
    with torch.no_grad():
        first = -frozen_sequence_logps(policy, run.data).sum() / run.data.mask.sum()
    records = list(run)
    losses = [record.scalars["loss"] for record in records]
    assert losses[0] == pytest.approx(float(first), rel=0.1) and losses[-1] < losses[0] - 0.1
    assert records[-1].samples and " to train on and 0 held out, of 24 in it" in run.notes["data"]
    run.save_model(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").exists() is bool(how)
    if "four_bit" not in how:  # to these no adapters can be added for good
        dpo = recipes.DPO(
            world=dialogues, model=str(tmp_path), pairs=24, batch_size=4, **how, **QUIET
        ).build()
        found, wanted = (frozen_sequence_logps(model, run.data) for model in (dpo.policy, policy))
        assert torch.allclose(found, wanted, rtol=1e-3)


def test_sft_continues_exactly_with_adapters_in_four_bits(model_folder, dialogues, tmp_path):
    def build():
        return recipes.SFT(
            world=dialogues, model=str(model_folder("opt")), steps=4, batch_size=4, evaluate_every=3, **FOUR_BIT,
            **QUIET,
        ).build()  # fmt: skip

    whole, first, second = list(build()), build(), build()
    next(first), next(first)
    write_checkpoint(tmp_path / "c", first.state_dict(), 2)
    assert (tmp_path / "c").stat().st_size < 500_000
    second.load_state_dict(read_checkpoint(tmp_path / "c")[1])
    assert list(second) == whole[2:]


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_continues_exactly_where_it_was_left(model_folder, dialogues, tmp_path, name):
    def build():
        return RECIPES[name](
            world=dialogues, model=str(model_folder("opt")), steps=8, batch_size=4, pairs=8, evaluate_every=3,
            **FOUR_BIT, **QUIET,
        ).build()  # fmt: skip

    whole = list(build())
    first = build()
    for _ in range(4):
        next(first)
    write_checkpoint(tmp_path / "c", first.state_dict(), 4)
    assert (tmp_path / "c").stat().st_size < 500_000  # adapters, no weights in 4 bits
    second = build()
    second.load_state_dict(read_checkpoint(tmp_path / "c")[1])
    assert list(second) == whole[4:]


@pytest.mark.parametrize("name", RECIPES)
def test_gradient_checkpointing_is_on_and_changes_no_number(model_folder, dialogues, monkeypatch, name):
    from transformers import modeling_utils

    calls = []
    once = modeling_utils.checkpoint
    monkeypatch.setattr(modeling_utils, "checkpoint", lambda *a, **k: calls.append(1) or once(*a, **k))
    losses = []
    for on in (False, True):
        calls.clear()
        algorithm = RECIPES[name](
            world=dialogues, model=str(model_folder("llama")), steps=3, batch_size=4, evaluate_every=3,
            gradient_checkpointing=on, **FOUR_BIT, **QUIET,
        ).build()  # fmt: skip
        losses.append([record.scalars["loss"] for record in algorithm])
        assert len(calls) == (
            2 * 3 if on else 0
        )  # layers × steps: not while looking at held-out pairs or sampling
    assert losses[0] == losses[1]


def test_implicit_rewards_are_taken_from_the_quantised_base(model_folder, dialogues):
    """π_ref is the policy with adapters off, judged pair by pair as they come."""
    algorithm = recipes.DPO(
        world=dialogues, model=str(model_folder("opt")), steps=6, batch_size=4, **FOUR_BIT, **QUIET
    ).build()
    source, policy = algorithm.pairs, algorithm.policy
    encoder = TextEncoder(algorithm.tokenizer)
    for record in algorithm:
        pairs = record.pairs
    tokens = encoder.encode_pairs(source.pairs, progress=False).take(list(pairs.ids))
    batch = join_answers(tokens.prompts * 2, tokens.chosen + tokens.rejected)
    base = frozen_sequence_logps(AdaptersOff(policy), batch)
    known = source.state_dict()["ref_logps"][:, list(pairs.ids)]
    torch.testing.assert_close(known.flatten(), base, rtol=0, atol=1e-4)
    rows = source.next()
    assert rows.reads is not None and rows.reads.inputs["input_ids"].shape[0] == 4  # prompts shared
    assert torch.equal(source.state_dict()["ref_logps"][:, list(rows.ids)].flatten(), rows.ref_logps)


def test_each_pair_is_judged_by_the_reference_once(model_folder, dialogues, monkeypatch):
    calls = []
    judge = AdaptersOff.__call__
    monkeypatch.setattr(
        AdaptersOff, "__call__", lambda self, **inputs: calls.append(1) or judge(self, **inputs)
    )
    algorithm = recipes.DPO(
        world=dialogues, model=str(model_folder("gpt2")), pairs=4, batch_size=4, steps=5, **LORA, **QUIET
    ).build()
    algorithm.evaluator = None
    calls.clear()
    list(algorithm)
    assert len(calls) == 1


def test_what_is_too_long_is_left_out_and_counted(model_folder, dialogues):
    algorithm = recipes.Reward(
        world=dialogues, model=str(model_folder("opt")), max_length=60, pairs=24, **QUIET
    ).build()
    encoder = TextEncoder(algorithm.tokenizer)
    lengths = encoder.encode_pairs(algorithm.rankings.pairs, progress=False).lengths()
    assert max(lengths) <= 60
    assert f"{24 - len(lengths)} longer than 60 tokens" in algorithm.notes["data"]
    with pytest.raises(ValueError, match=r"no pair of .* has at most 2 tokens; raise --max-length"):
        recipes.Reward(world=dialogues, model=str(model_folder("opt")), max_length=2, **QUIET).build()


@pytest.mark.parametrize("how", [{}, LORA, FOUR_BIT], ids=["whole", "lora", "4bit"])
def test_a_reward_model_is_written_and_read(model_folder, dialogues, tmp_path, how):
    algorithm = recipes.Reward(
        world=dialogues, model=str(model_folder("gpt2")), steps=3, batch_size=4, **how, **QUIET
    ).build()
    list(algorithm)
    algorithm.save_model(tmp_path)
    batch = join_answers([[5, 6, 7], [8]], [[9, 10], [11]])
    again = read_reward_model(tmp_path, torch.device("cpu"))
    assert is_four_bit(again) is ("four_bit" in how)
    with torch.no_grad():
        torch.testing.assert_close(
            answer_scores(again, batch), answer_scores(algorithm.reward_model.eval(), batch)
        )
    assert (tmp_path / "adapter_model.safetensors").exists() is bool(how)


def test_texts_with_labels_make_a_reward_model_that_ppo_takes(model_folder, reviews_file, tmp_path):
    algorithm = recipes.Reward(
        world=reviews_file,
        model=str(model_folder("gpt2")),
        steps=12,
        batch_size=6,
        evaluate_every=100,
        **LORA,
        **QUIET,
    ).build()
    losses = [record.scalars["loss"] for record in algorithm]
    assert losses[-1] < losses[0]
    algorithm.save_model(tmp_path / "rm" / "model")
    run = recipes.PPO(
        world=reviews_file, model=str(model_folder("gpt2")), reward=str(tmp_path / "rm"), steps=2, batch_size=8,
        max_new_tokens=6, **LORA, **QUIET,
    ).build()  # fmt: skip
    assert "20 prompts of" in run.notes["data"]
    batch = join_answers([[5, 6, 7], [8]], [[9, 10], [11]])
    with torch.no_grad():
        scores, trained = (
            answer_scores(model.eval(), batch)
            for model in (run.task.reward.reward_model, algorithm.reward_model)
        )
    torch.testing.assert_close(scores, trained)
    assert trained.abs().min() > 1e-3  # it began at 0
    record = next(run)
    assert record.samples[0].prompt.startswith("The film number ")
    with pytest.raises(ValueError, match="has a different vocabulary than the policy"):
        recipes.PPO(
            world=reviews_file, model=str(model_folder("opt")), reward=str(tmp_path / "rm"), **LORA, **QUIET
        ).build()


@pytest.mark.parametrize(("kind", "how"), [("gpt2", LORA), ("opt", FOUR_BIT), ("llama", {})])
def test_ppo_raises_the_reward_of_a_function(model_folder, dialogues, reviews_file, kind, how):
    """With prompts of one length and of many. Weights as large as trained ones: adapters do not reach the LM head."""
    spread = {"init_std": 0.5} if kind == "opt" else {"initializer_range": 0.5}
    run = recipes.PPO(
        world=dialogues if kind == "opt" else reviews_file, model=str(model_folder(kind, **spread)),
        reward=count_letters, steps=8, batch_size=32, max_new_tokens=12, learning_rate=2e-2, beta=0.02,
        evaluate_every=100, max_length=200, epochs=4, **how, **QUIET,
    ).build()  # fmt: skip
    records = list(run)
    scores = [record.scalars["objective/scores"] for record in records]
    assert sum(scores[-2:]) / 2 > scores[0] + 0.5
    assert abs(records[0].scalars["objective/kl"]) < 1e-3 < records[-1].scalars["objective/kl"]


def test_ppo_continues_exactly_too(model_folder, dialogues, tmp_path):
    def build():
        return recipes.PPO(
            world=dialogues, model=str(model_folder("gpt2")), reward=count_letters, steps=4, batch_size=8,
            max_new_tokens=6, **FOUR_BIT, **QUIET,
        ).build()  # fmt: skip

    whole = list(build())
    first = build()
    next(first), next(first)
    write_checkpoint(tmp_path / "c", first.state_dict(), 2)
    second = build()
    second.load_state_dict(read_checkpoint(tmp_path / "c")[1])
    assert list(second) == whole[2:]


@pytest.mark.parametrize(
    ("recipe", "kind", "how"),
    [
        (recipes.Reinforce, "gpt2", LORA), (recipes.Reinforce, "opt", FOUR_BIT), (recipes.TRPO, "gpt2", LORA),
        (recipes.TRPO, "opt", FOUR_BIT), (recipes.TRPO, "gpt2", {}),
    ],
    ids=["reinforce-lora", "reinforce-4bit", "trpo-lora", "trpo-4bit", "trpo-whole"],
)  # fmt: skip
def test_reinforce_and_trpo_raise_the_reward_of_a_function(
    model_folder, dialogues, reviews_file, recipe, kind, how
):
    """As above for PPO; of a model with adapters nothing else is changed."""
    spread = {"init_std": 0.5} if kind == "opt" else {"initializer_range": 0.5}
    rate = {"max_kl": 0.5} if recipe is recipes.TRPO else {"learning_rate": 2e-2}
    run = recipe(
        world=dialogues if (recipe, kind) == (recipes.Reinforce, "opt") else reviews_file,
        model=str(model_folder(kind, **spread)), reward=count_letters, steps=10, batch_size=64, max_new_tokens=12,
        beta=0.02, evaluate_every=100, max_length=200, **rate, **how, **QUIET,
    ).build()  # fmt: skip
    frozen = {n: w.detach().clone() for n, w in run.policy.named_parameters() if not w.requires_grad}
    assert bool(frozen) is bool(how)
    records = list(run)
    scores = [record.scalars["objective/scores"] for record in records]
    assert sum(scores[-3:]) / 3 > sum(scores[:2]) / 2 + 0.3, scores
    assert abs(records[0].scalars["objective/kl"]) < 1e-3 < records[-1].scalars["objective/kl"]
    assert all(torch.equal(w, frozen[n]) for n, w in run.policy.named_parameters() if n in frozen)
    if recipe is recipes.TRPO:
        assert all(record.scalars["trpo/kl_old"] <= record.scalars["trpo/max_kl"] for record in records)


def test_products_with_the_fisher_matrix_of_adapters_on_four_bit_weights(model_folder, reviews_file):
    """Against differences of the gradient of the KL: through weights in 4 bits, to the adapters alone."""
    run = recipes.TRPO(
        world=reviews_file, model=str(model_folder("opt", init_std=0.2)), reward=count_letters, batch_size=8,
        max_new_tokens=4, damping=0.0, **FOUR_BIT, **QUIET,
    ).build()  # fmt: skip
    rollout = run.task.collect(run.knobs.snapshot()).rollout
    parameters = run.task.policy_parameters()
    start = flatten([p.detach() for p in parameters])
    generator = torch.Generator().manual_seed(0)
    start = start + 0.05 * torch.randn(
        start.shape, generator=generator
    )  # B ≠ 0, so that A has a gradient too
    put(parameters, start)
    vector = torch.randn(start.shape, generator=generator)
    found = run._fisher(rollout)(vector)
    with torch.no_grad():
        old = run.task.distribution(rollout)

    def gradient(at):
        put(parameters, at)
        kl = masked_mean(kl_divergence(old, run.task.distribution(rollout)), rollout.mask)
        return flatten(torch.autograd.grad(kl, parameters))

    step = 1e-4  # OPT's ReLUs have kinks
    wanted = (gradient(start + step * vector) - gradient(start - step * vector)) / (2 * step)
    assert float(found.norm()) > 0
    assert float((found - wanted).norm() / wanted.norm()) < 0.02


def test_reinforce_learns_from_more_prompts_than_a_batch_has(model_folder, tmp_path):
    """An answer that is alone with its prompt has no baseline, and its advantage is 0."""
    rows = [{"prompt": f"Is it {n}?", "chosen": "Yes.", "rejected": "No."} for n in range(200)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = recipes.Reinforce(
        world=str(tmp_path / "pairs.jsonl"), model=str(model_folder("gpt2", initializer_range=0.5)),
        reward=count_letters, steps=2, batch_size=18, max_new_tokens=6, **LORA, **QUIET,
    ).build()  # fmt: skip
    groups = run.task.collect(run.knobs.snapshot()).rollout.groups
    assert groups.unique(return_counts=True)[1].sort().values.tolist() == [2, 4, 4, 4, 4]
    assert all(record.scalars["grad_norm"] > 0 for record in run)


def test_trpo_continues_exactly_with_adapters_and_is_read_again(model_folder, reviews_file, tmp_path):
    def build(model):
        return recipes.TRPO(
            world=reviews_file, model=str(model), reward=count_letters, steps=3, batch_size=8, max_new_tokens=4,
            **LORA, **QUIET,
        ).build()  # fmt: skip

    folder = model_folder("gpt2", initializer_range=0.5)
    whole, first, second = (build(folder) for _ in range(3))
    records = list(whole)
    next(first)
    write_checkpoint(tmp_path / "c", first.state_dict(), 1)
    second.load_state_dict(read_checkpoint(tmp_path / "c")[1])
    assert list(second) == records[1:]
    whole.save_model(tmp_path / "model")
    batch = join_answers([[5, 6, 7], [8]], [[9, 10], [11]])
    found, wanted, before = (
        frozen_sequence_logps(run.policy, batch) for run in (build(tmp_path / "model"), whole, build(folder))
    )
    assert torch.allclose(found, wanted, atol=1e-5) and not torch.allclose(found, before, atol=1e-3)
    with pytest.raises(ValueError, match="float16 is too coarse"):
        recipes.TRPO(
            world=reviews_file, model=str(model_folder("gpt2")), reward=count_letters, dtype="float16", **LORA,
            **QUIET,
        ).build()  # fmt: skip


def test_trpo_computes_in_float32_where_others_take_float16(model_folder, reviews_file, monkeypatch):
    monkeypatch.setattr("rlhflab.models.loading.choose_dtype", lambda *_: torch.float16)
    given = {
        "world": reviews_file,
        "model": str(model_folder("gpt2")),
        "reward": count_letters,
        **LORA,
        **QUIET,
    }
    assert recipes.TRPO(**given).build().policy.dtype == torch.float32
    assert recipes.Reinforce(**given).build().policy.dtype == torch.float16


def test_engine_trl_computes_in_float32_where_ours_takes_float16(model_folder, dialogues, monkeypatch):
    pytest.importorskip("trl", reason="trl is not installed")
    monkeypatch.setattr("rlhflab.models.loading.choose_dtype", lambda *_: torch.float16)
    given = {"world": dialogues, "model": str(model_folder("gpt2")), **LORA, **QUIET}
    for recipe in (recipes.DPO, recipes.Reward, recipes.SFT):
        made = recipe(**given, engine="trl").build()
        trained = made.reward_model if recipe is recipes.Reward else made.policy
        assert trained.dtype == torch.float32
        with pytest.raises(ValueError, match="engine trl does not scale its loss for float16"):
            recipe(**given, engine="trl", dtype="float16").build()
    assert recipes.DPO(**given).build().policy.dtype == torch.float16


def test_a_classifier_is_a_reward(model_folder, reviews_file, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = model_folder("llama")
    classifier = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, id2label={0: "POSITIVE", 1: "NEGATIVE"}, label2id={"POSITIVE": 0, "NEGATIVE": 1}
    )
    torch.nn.init.normal_(classifier.score.weight)
    classifier.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    run = recipes.PPO(
        world=reviews_file, model=str(model_folder("gpt2")), reward=str(tmp_path), steps=1, batch_size=8,
        max_new_tokens=4, **LORA, **QUIET,
    ).build()  # fmt: skip
    reward = run.task.reward
    found = reward.function(["A "], ["good film"])
    ids = reward.tokenizer(["A good film"], return_tensors="pt")
    logits = classifier.eval()(**ids).logits[0]
    torch.testing.assert_close(found[0], logits[0] - logits[1])
    next(run)
    with pytest.raises(ValueError, match=r"cannot load reward .*it is not a classifier with two labels"):
        recipes.PPO(world=reviews_file, model=str(folder), reward=str(folder), **LORA, **QUIET).build()


@pytest.mark.parametrize("name", [*RECIPES, "sft"])
def test_trl_trains_the_same_real_model(model_folder, dialogues, name):
    pytest.importorskip("trl", reason="TRL is not installed")
    losses = [
        [
            record.scalars["loss"]
            for record in {**RECIPES, "sft": recipes.SFT}[name](
                world=dialogues, model=str(model_folder("opt")), steps=4, batch_size=4, evaluate_every=100,
                learning_rate=5e-3, engine=engine, **FOUR_BIT, **QUIET,
            ).build()
        ]
        for engine in ("lab", "trl")
    ]  # fmt: skip
    assert losses[1] == pytest.approx(losses[0], abs=2e-4) and losses[0][-1] != pytest.approx(
        losses[0][0], abs=1e-4
    )


def test_defaults_of_rate_and_pairs(model_folder):
    from rlhflab.models.loading import load_policy

    model = load_policy(str(model_folder("opt"))).model
    assert default_rate(model, lora=True) == 0.2 / 32 and default_rate(model, lora=False) == 1e-5
    assert [enough_pairs(*run) for run in ((20, 8), (600, 8), (10_000, 8), (1, 1))] == [53, 1600, 2000, 16]


def test_a_scaled_loss_gives_the_same_update_and_leaves_out_what_overflows():
    """GradScaler as on a T4, here on the CPU."""
    weights = [torch.nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(2)]
    plain, scaled = (
        Optimiser([weight], scaled=scaled) for weight, scaled in zip(weights, (False, True), strict=True)
    )
    norms = [
        optimiser.step((weight**2).sum(), 0.1)
        for optimiser, weight in ((plain, weights[0]), (scaled, weights[1]))
    ]
    assert float(norms[0]) == pytest.approx(float(norms[1])) and torch.allclose(*weights)
    scale = scaled.state_dict()["scaler"]["scale"]
    before = weights[1].detach().clone()
    assert float(scaled.step((weights[1] * float("inf")).sum(), 0.1)) == 0
    assert torch.equal(weights[1], before) and scaled.state_dict()["scaler"]["scale"] == scale / 2
    again = Optimiser([torch.nn.Parameter(before)], scaled=True)
    again.load_state_dict(copy.deepcopy(scaled.state_dict()))
    assert again.state_dict()["scaler"]["scale"] == scale / 2


def test_a_float16_base_is_trained_with_a_scaled_loss(model_folder, dialogues):
    algorithm = recipes.DPO(
        world=dialogues,
        model=str(model_folder("llama")),
        steps=12,
        batch_size=6,
        dtype="float16",
        **LORA,
        **QUIET,
    ).build()
    losses = [record.scalars["loss"] for record in algorithm]
    assert "scaler" in algorithm.state_dict()["optimiser"]
    assert sum(losses[-4:]) < sum(losses[:4]) - 0.01
    assert all(weight.dtype == torch.float32 for weight in trained_state(algorithm.policy).values())
