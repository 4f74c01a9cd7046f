"""Put a whole run together from plain settings: what the command line, the labs and the benchmarks call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from rlhflab.algorithms.builders import WORLDS
from rlhflab.algorithms.dpo import DPO, DPOConfig, DPOKnobs
from rlhflab.algorithms.engines import engine_class
from rlhflab.algorithms.evaluators import EstimatingEvaluator, Evaluator, ExactEvaluator, SampleEvaluator
from rlhflab.algorithms.pair_source import FixedPairs, FreshPairs, PairSource
from rlhflab.algorithms.reference import preferred_finetune, tiny_reference
from rlhflab.algorithms.sampled import SampledReference
from rlhflab.models.loading import choose_device, frozen_copy, load_model
from rlhflab.worlds.micro import MicroWorld, ReferencePoint
from rlhflab.worlds.preferences import PreferencePair, read_pairs
from rlhflab.worlds.reviews import ReviewsWorld
from rlhflab.worlds.world import World

REFERENCES = ("sft", "preferred")
Encoder = Callable[[str], list[int]]


@cache
def micro_world() -> MicroWorld:
    """The micro world, made once a process."""
    return MicroWorld()


@cache
def reviews_world() -> ReviewsWorld:
    """The reviews world, made once a process."""
    return ReviewsWorld()


def world_named(name: str) -> MicroWorld | ReviewsWorld:
    """Return a built-in world by name.

    Raises:
        ValueError: unknown name, in one line.
    """
    if name not in WORLDS:
        raise ValueError(f"unknown world {name!r}; use {' or '.join(WORLDS)}")
    return micro_world() if name == "micro" else reviews_world()


def view_from(world: MicroWorld | ReviewsWorld, ref_policy: Any) -> ReferencePoint | SampledReference:
    """A world seen from π_ref: exactly where it can be enumerated, through samples elsewhere."""
    if isinstance(world, MicroWorld):
        return ReferencePoint(world, ref_policy)
    return SampledReference(world, ref_policy)


def evaluator_of(view: ReferencePoint | SampledReference, seed: int) -> Evaluator:
    """The evaluator that fits a view: exact or estimating."""
    return ExactEvaluator(view, seed) if isinstance(view, ReferencePoint) else EstimatingEvaluator(view, seed)


def build_dpo(
    world: str = "micro",
    model: str = "tiny",
    reference: str = "sft",
    beta: float = 1.0,
    learning_rate: float | None = None,
    pairs: int | Literal["fresh"] = 2000,
    label_noise: float = 0.0,
    steps: int = 600,
    batch_size: int | None = None,
    evaluate_every: int = 25,
    seed: int = 0,
    device: str = "auto",
    engine: str = "lab",
    skip_bad: bool = False,
    progress: bool = True,
) -> DPO:
    """Return a DPO run, ready to iterate. All arguments are plain data, so they are also the run's configuration.

    Args:
        world: "micro", "reviews", or a file of preference pairs (JSONL, may be gzipped).
        model: "tiny", a folder written by save_pretrained, or a hub id. "tiny" reads files in its own language only.
        reference: "sft", or "preferred" to fine-tune the pre-trained tiny model on the chosen answers first.
        beta: KL strength > 0; 1 suits the micro world, 0.05–0.5 real models.
        learning_rate: peak step size; by default 1e-3 for the tiny model and 1e-5 for others.
        pairs: how many pairs to draw (or at most to read), or "fresh" for new ones at every step.
        label_noise: probability in [0, 0.5] that a drawn pair's label is swapped.
        steps: updates.
        batch_size: pairs an update; by default 32, and 256 of fresh pairs.
        evaluate_every: updates between exact evaluations.
        seed: pairs, their order and the samples.
        device: "auto", "cpu" or "cuda".
        engine: "lab" for our own loop, or "trl" for TRL's DPOTrainer; both train on the same batches.
        skip_bad: leave bad lines of a file out, with a warning that counts them, instead of refusing the file.
        progress: show a bar while the tiny model is trained on first use.

    Raises:
        ValueError: a setting that makes no sense, in one line.
    """
    if batch_size is None:
        batch_size = 256 if pairs == "fresh" else 32
    _validate(world, reference, pairs, label_noise, batch_size, seed)
    make = engine_class(engine, DPO)
    default_rate = 1e-3 if model == "tiny" else 1e-5
    knobs = DPOKnobs(beta=beta, learning_rate=default_rate if learning_rate is None else learning_rate)
    config = DPOConfig(steps=steps, evaluate_every=evaluate_every)
    target = choose_device(device)
    data = None if world in WORLDS else read_pairs(world, skip_bad)[: int(pairs)]
    if model != "tiny":
        if data is None:
            raise ValueError(
                f"the {world} world needs --model tiny; other models need --world FILE with their pairs"
            )
        return _build_on_text(model, data, knobs, config, batch_size, seed, target, make)

    lab = world_named(world if data is None else "micro")
    if data is not None:
        require_micro_language(micro_world(), data, world)
    start, generator = tiny_reference(lab, progress=progress).to(target), torch.Generator().manual_seed(seed)
    if reference == "preferred":
        chosen = data or view_from(lab, start).pair_texts(int(pairs), label_noise, generator)
        start = tiny_reference(lab, "pretrained", progress=progress).to(target)
        for _ in preferred_finetune(lab, start, [(pair.prompt, pair.chosen) for pair in chosen], seed):
            pass
        data = chosen
    ref_policy = frozen_copy(start)
    view = view_from(lab, ref_policy)
    if pairs == "fresh" and isinstance(view, ReferencePoint):
        source: PairSource = FreshPairs(view, label_noise, batch_size, seed)
    else:
        data = data or view.pair_texts(int(pairs), label_noise, generator)
        source = FixedPairs(data, lab.encode_prompt, lab.encode_answer, ref_policy, batch_size, seed)
    return make(start, source, config, knobs, evaluator_of(view, seed))


def _validate(
    world: str, reference: str, pairs: int | str, label_noise: float, batch_size: int, seed: int
) -> None:
    check_world_or_file(world)
    if reference not in REFERENCES:
        raise ValueError(f"reference must be one of {', '.join(REFERENCES)}, got {reference!r}")
    if pairs != "fresh" and not (isinstance(pairs, int) and pairs >= 1):
        raise ValueError(f"pairs must be a whole number ≥ 1 or fresh, got {pairs!r}")
    if pairs == "fresh" and (world != "micro" or reference != "sft"):
        raise ValueError("fresh pairs need the micro world and the SFT reference")
    check_common(label_noise, batch_size, seed)


def check_world_or_file(world: str) -> None:
    """Raise ValueError in one line unless `world` is a built-in world or a file that exists."""
    if world not in WORLDS and not Path(world).is_file():
        known = ", ".join(WORLDS)
        raise ValueError(f"unknown world {world!r}; use {known} or an existing file of preference pairs")


def check_common(label_noise: float, batch_size: int, seed: int) -> None:
    """Raise ValueError in one line where a setting that every run has makes no sense."""
    if not 0 <= label_noise <= 0.5:
        raise ValueError(f"label_noise must be in [0, 0.5], got {label_noise!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be ≥ 1, got {batch_size}")
    if seed < 0:
        raise ValueError(f"seed must be ≥ 0, got {seed}")


def encoders_of(tokenizer: Any) -> tuple[Encoder, Encoder]:
    """Text → token ids of a prompt, and of an answer with its EOS."""

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode_answer(text: str) -> list[int]:
        return [*encode(text), int(tokenizer.eos_token_id)]

    return encode, encode_answer


def pairs_that_fit(
    data: Sequence[PreferencePair], encode_prompt: Encoder, encode_answer: Encoder, model: Any
) -> list[PreferencePair]:
    """The pairs whose dialogues fit into the model's positions; ValueError where none does."""
    longest = positions_of(model)
    fits = []
    for pair in data:
        answers = max(len(encode_answer(pair.chosen)), len(encode_answer(pair.rejected)))
        if len(encode_prompt(pair.prompt)) + answers <= longest:
            fits.append(pair)
    if not fits:
        raise ValueError(f"no pair fits into the model's {longest} positions")
    return fits


def positions_of(model: Any) -> int:
    """Longest sequence a model takes; 1024 where it does not say."""
    return int(getattr(model.config, "max_position_embeddings", 1024) or 1024)


def require_micro_language(lab: World, data: Sequence[PreferencePair], path: str) -> None:
    """Raise ValueError with the pair's number where a text is not of the micro world."""
    for number, pair in enumerate(data, start=1):
        try:
            lab.encode_prompt(pair.prompt)
            lab.encode_answer(pair.chosen)
            lab.encode_answer(pair.rejected)
        except ValueError as error:
            raise ValueError(
                f"{path}, pair {number}: {error}; for other texts give --model a folder or a hub id"
            ) from None


def _build_on_text(
    name: str,
    data: list[PreferencePair],
    knobs: DPOKnobs,
    config: DPOConfig,
    batch_size: int,
    seed: int,
    device: torch.device,
    make: type[DPO],
) -> DPO:
    policy, tokenizer = load_model(name, device)
    encode, encode_answer = encoders_of(tokenizer)
    fits = pairs_that_fit(data, encode, encode_answer, policy)
    ref_policy = frozen_copy(policy)
    source = FixedPairs(fits, encode, encode_answer, ref_policy, batch_size, seed)

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True))

    prompts = list(dict.fromkeys(pair.prompt for pair in fits))[:3]
    room = positions_of(policy) - max(len(encode(prompt)) for prompt in prompts)
    stop = [int(tokenizer.eos_token_id)]
    samples: Any = SampleEvaluator(ref_policy, prompts, encode, decode, stop, min(48, room), seed)
    return make(policy, source, config, knobs, samples)
