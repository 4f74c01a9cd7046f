"""Put maximum-likelihood runs together from plain settings: pre-training and supervised fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhflab.algorithms.build import (
    check_common,
    encoders_of,
    micro_world,
    pairs_that_fit,
    require_micro_language,
)
from rlhflab.algorithms.engines import engine_class
from rlhflab.algorithms.evaluators import ExactEvaluator, LanguageEvaluator
from rlhflab.algorithms.reference import ReferenceConfig, encode_texts, tiny_reference
from rlhflab.algorithms.supervised import Supervised, SupervisedConfig, SupervisedKnobs
from rlhflab.models.loading import choose_device, frozen_copy, load_model
from rlhflab.models.logps import join_answers
from rlhflab.models.tiny import new_tiny_model
from rlhflab.worlds.micro import MicroWorld, ReferencePoint
from rlhflab.worlds.preferences import read_pairs


def build_pretrain(
    world: str = "micro",
    texts: int = 20_000,
    p_noise: float = 0.3,
    beta: float = 1.0,
    learning_rate: float = 3e-3,
    steps: int = 400,
    batch_size: int = 128,
    evaluate_every: int = 25,
    seed: int = 0,
    device: str = "auto",
) -> Supervised:
    """Return step 0 of the course: the tiny model learns the language from unedited text, from random weights.

    Its exact block compares it with those random weights.

    Args:
        world: "micro".
        texts: how many (prompt, answer) texts are drawn from the grammar.
        p_noise: share in [0, 1] of texts with a fault: a word lost, doubled or wrong.
        beta: KL strength > 0 of the exact block.
        learning_rate: peak step size of AdamW.
        steps: updates.
        batch_size: texts an update.
        evaluate_every: updates between exact evaluations.
        seed: weights, texts and their order.
        device: "auto", "cpu" or "cuda".

    Raises:
        ValueError: a setting that makes no sense, in one line.
    """
    lab = _micro(world)
    _check(texts, p_noise, batch_size, seed)
    model = new_tiny_model(lab.tokenizer, ReferenceConfig().model, seed).to(choose_device(device))
    data = lab.corpus(texts, seed, p_noise)
    config = SupervisedConfig(steps=steps, batch_size=batch_size, seed=seed, evaluate_every=evaluate_every)
    knobs = SupervisedKnobs(learning_rate=learning_rate)
    return Supervised(
        model, encode_texts(lab, data), config, knobs, _evaluator(lab, model, seed, p_noise), beta
    )


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
    progress: bool = True,
) -> Supervised:
    """Return step 1 of the course: supervised fine-tuning of the pre-trained model on good text.

    Its exact block compares it with the pre-trained model.

    Args:
        world: "micro" for clean text from the grammar, or a file of preference pairs, whose chosen answers are learnt.
        model: "tiny", a folder written by save_pretrained, or a hub id.
        texts: how many texts are drawn, or at most read.
        p_noise: share in [0, 1] of drawn texts with a fault.
        learning_rate: peak step size; by default 1e-3 for the tiny model and 1e-5 for others.
        batch_size: texts an update; by default 128 for the tiny model and 8 for others.
        engine: "lab" for our own loop, or "trl" for TRL's SFTTrainer.
        skip_bad: leave bad lines of a file out, with a warning that counts them.
        progress: show a bar while the tiny model is pre-trained on first use.

    The other arguments and the errors are those of `build_pretrain`.
    """
    if world != "micro" and not Path(world).is_file():
        raise ValueError(f"unknown world {world!r}; use micro or an existing file of preference pairs")
    if world == "micro" and model != "tiny":
        raise ValueError(
            "the micro world needs --model tiny; other models need --world FILE with their pairs"
        )
    make = engine_class(engine, Supervised)
    tiny = model == "tiny"
    learning_rate = learning_rate or (1e-3 if tiny else 1e-5)
    batch_size = batch_size or (128 if tiny else 8)
    _check(texts, p_noise, batch_size, seed)
    target, lab = choose_device(device), micro_world()
    evaluator = None
    if tiny:
        policy = tiny_reference(lab, "pretrained", progress=progress).to(target)
        evaluator = _evaluator(lab, policy, seed, p_noise if world == "micro" else None)
    if world == "micro":
        data = encode_texts(lab, lab.corpus(texts, seed + 1, p_noise))
    else:
        pairs = read_pairs(world, skip_bad)[:texts]
        if tiny:
            require_micro_language(lab, pairs, world)
            data = encode_texts(lab, [(pair.prompt, pair.chosen) for pair in pairs])
        else:
            policy, tokenizer = load_model(model, target)
            encode, encode_answer = encoders_of(tokenizer)
            pairs = pairs_that_fit(pairs, encode, encode_answer, policy)
            data = join_answers([encode(p.prompt) for p in pairs], [encode_answer(p.chosen) for p in pairs])
    config = SupervisedConfig(steps=steps, batch_size=batch_size, seed=seed, evaluate_every=evaluate_every)
    return make(policy, data, config, SupervisedKnobs(learning_rate=learning_rate), evaluator, beta)


def _micro(world: str) -> MicroWorld:
    if world != "micro":
        raise ValueError(f"unknown world {world!r} for pre-training; use micro")
    return micro_world()


def _check(texts: int, p_noise: float, batch_size: int, seed: int) -> None:
    check_common(0.0, batch_size, seed)
    if texts < 1:
        raise ValueError(f"texts must be ≥ 1, got {texts}")
    if not 0 <= p_noise <= 1:
        raise ValueError(f"p_noise must be in [0, 1], got {p_noise!r}")


def _evaluator(world: MicroWorld, model: Any, seed: int, p_noise: float | None) -> ExactEvaluator:
    """Exact evaluation; the entropy of the texts is known where they are drawn from the grammar with `p_noise`."""
    reference = ReferencePoint(world, frozen_copy(model))
    return ExactEvaluator(reference, seed) if p_noise is None else LanguageEvaluator(reference, seed, p_noise)
