"""Put maximum-likelihood runs together from plain settings: pre-training and supervised fine-tuning."""

from __future__ import annotations

from typing import Any

from rlhflab.algorithms.room import fits
from rlhflab.algorithms.supervised import Supervised, SupervisedConfig, SupervisedKnobs
from rlhflab.core.record import Evaluator
from rlhflab.data.hub import read_data
from rlhflab.engines.choice import engine_class, engine_dtype
from rlhflab.evaluation.evaluators import HeldOutEvaluator, LanguageEvaluator
from rlhflab.models.devices import choose_device
from rlhflab.models.loading import frozen_copy, load_policy
from rlhflab.models.logps import join_answers
from rlhflab.models.tiny import new_tiny_model
from rlhflab.recipes.build import (
    check_common,
    check_world_or_file,
    evaluator_of,
    read_micro_pairs,
    require_texts,
    view_from,
    world_named,
)
from rlhflab.recipes.build_text import (
    SHOWN_TOKENS,
    default_rate,
    encoder_of,
    load_settings,
    prepare_pairs,
    sample_evaluator,
)
from rlhflab.recipes.builders import WORLDS
from rlhflab.recipes.reference import REFERENCE_OF, encode_texts, tiny_reference
from rlhflab.worlds.micro import MicroWorld, ReferencePoint
from rlhflab.worlds.reviews import ReviewsWorld

HELD_OUT = 512  # texts


@fits
def build_pretrain(
    world: str = "micro",
    texts: int = 20_000,
    p_noise: float = 0.3,
    beta: float = 1.0,
    learning_rate: float | None = None,
    steps: int = 400,
    batch_size: int = 128,
    evaluate_every: int = 25,
    seed: int = 0,
    device: str = "auto",
) -> Supervised:
    """Return step 0 of the course: the tiny model learns the language from unedited text, from random weights.

    Its evaluations, exact or estimated, compare it with those random weights.

    Args:
        world: "micro" or "reviews".
        texts: how many (prompt, answer) texts are drawn from the grammar.
        p_noise: share in [0, 1] of texts with a fault: a word lost, doubled or wrong.
        beta: KL strength > 0 of the evaluations.
        learning_rate: peak step size of AdamW; by default that of the world's tiny model.
        steps: updates.
        batch_size: texts an update.
        evaluate_every: updates between evaluations.
        seed: weights, texts and their order.
        device: "auto", "cpu", "cuda" or "mps"; see `models.devices`.

    Raises:
        ValueError: a setting that makes no sense, in one line.
    """
    lab, made = world_named(world), REFERENCE_OF[world]
    _check(texts, p_noise, batch_size, seed)
    model = new_tiny_model(lab.tokenizer, made.model, seed).to(choose_device(device, "tiny"))
    data = lab.corpus(texts, seed, p_noise)
    config = SupervisedConfig(steps=steps, batch_size=batch_size, seed=seed, evaluate_every=evaluate_every)
    knobs = SupervisedKnobs(learning_rate=learning_rate or made.pretrain_lr)
    return Supervised(
        model, encode_texts(lab, data), config, knobs, _evaluator(lab, model, seed, p_noise), beta
    )


@fits
def build_sft(
    world: str = "micro",
    model: str = "tiny",
    texts: int = 10_000,
    p_noise: float = 0.0,
    beta: float = 1.0,
    learning_rate: float | None = None,
    steps: int = 200,
    batch_size: int | None = None,
    evaluate_every: int = 20,
    seed: int = 0,
    device: str = "auto",
    engine: str = "lab",
    skip_bad: bool = False,
    four_bit: bool = False,
    lora: bool = False,
    lora_rank: int = 16,
    lora_targets: str = "",
    max_length: int = 512,
    gradient_checkpointing: bool = False,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Supervised:
    """Return step 1 of the course: supervised fine-tuning of the pre-trained model on good text.

    Its evaluations, exact or estimated, compare it with the pre-trained model.

    Args:
        world: "micro" or "reviews" for clean text from the grammar, or a file, folder or data set of preference pairs,
            whose chosen answers are learnt; see `data.rows`.
        model: "tiny", a folder written by save_pretrained, or a hub id.
        texts: how many texts are drawn, or at most read.
        p_noise: share in [0, 1] of drawn texts with a fault.
        learning_rate: peak step size; by default that of the world's tiny model; see `default_rate` for real ones.
        batch_size: texts an update; by default 128 for the tiny model and 8 for others.
        engine: "lab" for our own loop, or "trl" for TRL's SFTTrainer.
        skip_bad: leave bad lines of a file out, with a warning that counts them.
        four_bit, lora, lora_rank, lora_targets, gradient_checkpointing, dtype, trust_remote_code: how a real model is
            loaded; see `LoadSettings`. lora_targets is a comma list.
        max_length: texts longer than so many tokens are left out.
        progress: show a bar while the tiny model is pre-trained on first use.

    The other arguments and the errors are those of `build_pretrain`.
    """
    check_world_or_file(world)
    built_in = world in WORLDS
    if model != "tiny":
        require_texts(world)
    make = engine_class(engine, Supervised)
    if batch_size is None:
        batch_size = 128 if model == "tiny" else 8
    _check(texts, p_noise, batch_size, seed)
    dtype = engine_dtype(engine, model, dtype, device)
    loading = load_settings(
        model, four_bit, lora, lora_rank, lora_targets, max_length, gradient_checkpointing, dtype, trust_remote_code,
        batch_size, device, seed,
    )  # fmt: skip
    config = SupervisedConfig(steps=steps, batch_size=batch_size, seed=seed, evaluate_every=evaluate_every)
    knobs = SupervisedKnobs() if learning_rate is None else SupervisedKnobs(learning_rate=learning_rate)
    if loading is not None:
        pairs = read_data(world, skip_bad, progress)  # before minutes of loading
        loaded = load_policy(model, loading)
        if learning_rate is None:
            knobs.learning_rate = default_rate(loaded.model, lora)
        policy, encoder = loaded.model, encoder_of(loaded)
        found = prepare_pairs(pairs, encoder, policy, max_length, texts, 0, seed, skip_bad, progress)
        data = join_answers(found.tokens.prompts, found.tokens.chosen)
        samples = sample_evaluator(policy, [pair.prompt for pair in found.pairs], encoder, SHOWN_TOKENS, seed)
        notes = {"model": loaded.note, **found.notes}
        return make(policy, data, config, knobs, samples, beta, loaded.tokenizer, notes)
    target, lab, notes = choose_device(device, "tiny"), world_named(world if built_in else "micro"), {}
    if learning_rate is None:
        knobs.learning_rate = REFERENCE_OF[lab.name].sft_lr
    policy = tiny_reference(lab, "pretrained", progress=progress).to(target)
    if built_in:
        data = encode_texts(lab, lab.corpus(texts, seed + 1, p_noise))
    else:
        read = read_micro_pairs(world, skip_bad, progress)
        notes["read"] = read.note
        data = encode_texts(lab, [(pair.prompt, pair.chosen) for pair in read.pairs[:texts]])
    evaluator = _evaluator(lab, policy, seed, p_noise if built_in else None)
    return make(policy, data, config, knobs, evaluator, beta, notes=notes)


def _check(texts: int, p_noise: float, batch_size: int, seed: int) -> None:
    check_common(0.0, batch_size, seed)
    if texts < 1:
        raise ValueError(f"texts must be ≥ 1, got {texts}")
    if not 0 <= p_noise <= 1:
        raise ValueError(f"p_noise must be in [0, 1], got {p_noise!r}")


def _evaluator(world: MicroWorld | ReviewsWorld, model: Any, seed: int, p_noise: float | None) -> Evaluator:
    """What fits the world; the language of the texts is known where they are drawn from the grammar with `p_noise`."""
    view = view_from(world, frozen_copy(model))
    if p_noise is None:
        return evaluator_of(view, seed)
    if isinstance(view, ReferencePoint):
        return LanguageEvaluator(view, seed, p_noise)
    return HeldOutEvaluator(view, seed, encode_texts(world, world.corpus(HELD_OUT, seed + 2, p_noise)))
