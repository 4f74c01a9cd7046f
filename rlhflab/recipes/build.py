"""Put a whole run together from plain settings: what the command line, the labs and the benchmarks call."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch

from rlhflab import processes
from rlhflab.algorithms.dpo import DPO, DPOConfig, DPOKnobs
from rlhflab.algorithms.room import fits
from rlhflab.core.record import Evaluator
from rlhflab.data.hub import Data, read_data
from rlhflab.data.pair_source import FixedPairs, FreshPairs, LongPairs, PairSource
from rlhflab.data.sampled import SampledReference
from rlhflab.engines.choice import engine_class, engine_dtype
from rlhflab.evaluation.evaluators import EstimatingEvaluator, ExactEvaluator
from rlhflab.models.devices import choose_device
from rlhflab.models.loading import LoadSettings, frozen_copy, load_policy, load_reference
from rlhflab.recipes.build_text import (
    SHOWN_TOKENS,
    default_pairs,
    default_rate,
    encoder_of,
    load_settings,
    prepare_pairs,
    sample_evaluator,
)
from rlhflab.recipes.builders import WORLDS, is_text_source
from rlhflab.recipes.reference import preferred_finetune, tiny_reference
from rlhflab.seeds import require_seed
from rlhflab.worlds.micro import MicroWorld, ReferencePoint
from rlhflab.worlds.reviews import ReviewsWorld

REFERENCES = ("sft", "preferred")


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


@fits
def build_dpo(
    world: str = "micro",
    model: str = "tiny",
    reference: str = "sft",
    beta: float | None = None,
    learning_rate: float | None = None,
    pairs: int | Literal["fresh"] | None = None,
    label_noise: float = 0.0,
    steps: int = 600,
    batch_size: int | None = None,
    evaluate_every: int = 25,
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
) -> DPO:
    """Return a DPO run, ready to iterate. All arguments are plain data, so they are also the run's configuration.

    Args:
        world: "micro", "reviews", or a file, folder or data set; see `data.rows`. "tiny" reads those in its own
            language only.
        model: "tiny", a folder written by save_pretrained, or a hub id.
        reference: "sft", or "preferred" to fine-tune the pre-trained tiny model on the chosen answers first.
        beta: KL strength > 0; by default 1, and 0.1 for real models, which 0.05–0.5 suits.
        learning_rate: peak step size; by default 1e-3 for the tiny model; see `default_rate` for real ones.
        pairs: how many pairs to draw (or at most to read), or "fresh" for new ones at every step; by default 2000, and
            with real models as many as are seen three times.
        label_noise: probability in [0, 0.5] that a drawn pair's label is swapped.
        steps: updates.
        batch_size: pairs an update; by default 32, 256 of fresh pairs, and 8 for real models.
        evaluate_every: updates between exact evaluations.
        seed: pairs, their order and the samples.
        device: "auto", "cpu", "cuda" or "mps"; see `models.devices`.
        engine: "lab" for our own loop, or "trl" for TRL's DPOTrainer; both train on the same batches,
            trl never in float16, for it does not scale its loss: "auto" is float32 there.
        skip_bad: leave bad lines of a file out, with a warning that counts them, instead of refusing the file.
        four_bit, lora, lora_rank, lora_targets, gradient_checkpointing, dtype, trust_remote_code: how a real model is
            loaded; see `LoadSettings`. lora_targets is a comma list.
        max_length: pairs longer than so many tokens are left out.
        progress: show a bar while the tiny model is trained on first use.

    Raises:
        ValueError: a setting that makes no sense, in one line.
    """
    tiny = model == "tiny"
    if batch_size is None:
        batch_size = 8 if not tiny else 256 if pairs == "fresh" else 32
    if pairs is None:
        pairs = 2000 if tiny else default_pairs(steps, batch_size)
    _validate(world, reference, pairs, label_noise, batch_size, seed)
    dtype = engine_dtype(engine, model, dtype, device)
    loading = load_settings(
        model, four_bit, lora, lora_rank, lora_targets, max_length, gradient_checkpointing, dtype, trust_remote_code,
        2 * processes.largest_share(batch_size), device, seed,
    )  # fmt: skip
    make = engine_class(engine, DPO)
    config = DPOConfig(
        steps=steps, warmup=10 if tiny else min(10, steps // 10), evaluate_every=evaluate_every
    )
    knobs = DPOKnobs(
        beta=(1.0 if tiny else 0.1) if beta is None else beta,
        learning_rate=1e-3 if learning_rate is None else learning_rate,
    )
    if loading is not None:
        require_texts(world)
        if reference != "sft":
            raise ValueError(f"reference must be sft with a real model: it is its own, got {reference!r}")
        return _build_on_text(
            model, world, loading, int(pairs), knobs, learning_rate is None, config, batch_size, seed, skip_bad,
            progress, make,
        )  # fmt: skip
    target = choose_device(device, "tiny")
    given = None if world in WORLDS else read_micro_pairs(world, skip_bad, progress)
    data = None if given is None else list(given.pairs[: int(pairs)])
    lab, notes = (
        world_named(world if data is None else "micro"),
        {} if given is None else {"read": given.note},
    )
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
        source: PairSource = FreshPairs(view, label_noise, batch_size, seed, target)
    else:
        data = data or view.pair_texts(int(pairs), label_noise, generator)
        source = FixedPairs(data, lab.encode_prompt, lab.encode_answer, ref_policy, batch_size, seed)
    return make(start, source, config, knobs, evaluator_of(view, seed), notes=notes)


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
    """Raise ValueError in one line unless `world` is a built-in world, a file that exists or a hub's data set."""
    if world not in WORLDS and not is_text_source(world):
        known = ", ".join(WORLDS)
        raise ValueError(
            f"unknown world {world!r}; use {known}, an existing file of preference pairs, or owner/name on the hub"
        )


def check_common(label_noise: float, batch_size: int, seed: int) -> None:
    """Raise ValueError in one line where a setting that every run has makes no sense."""
    if not 0 <= label_noise <= 0.5:
        raise ValueError(f"label_noise must be in [0, 0.5], got {label_noise!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be ≥ 1, got {batch_size}")
    processes.require_rows(batch_size)
    require_seed(seed)


def read_micro_pairs(path: str, skip_bad: bool, progress: bool) -> Data:
    """Pairs in the micro world's language; ValueError with the place of the first text that is not in it."""
    lab, data = micro_world(), read_data(path, skip_bad, progress)
    if not data.pairs:
        raise ValueError(
            f"{path} holds texts with labels, which need a real model: give --model a folder or a hub id"
        )
    for pair in data.pairs:
        try:
            lab.encode_prompt(pair.prompt)
            lab.encode_answer(pair.chosen)
            lab.encode_answer(pair.rejected)
        except ValueError as error:
            raise ValueError(
                f"{path}, {pair.place}: {error}; for other texts give --model a folder or a hub id"
            ) from None
    return data


def require_texts(world: str) -> None:
    """Raise ValueError in one line where a real model is asked for in a built-in world."""
    if world in WORLDS:
        raise ValueError(
            f"the {world} world needs --model tiny; other models need --world with a file or data set of their texts"
        )


def _build_on_text(
    name: str, world: str, loading: LoadSettings, most: int, knobs: DPOKnobs, usual_rate: bool,
    config: DPOConfig, batch_size: int, seed: int, skip_bad: bool, progress: bool, make: type[DPO],
) -> DPO:  # fmt: skip
    data = read_data(world, skip_bad, progress)  # before minutes of loading
    loaded = load_policy(name, loading)
    if usual_rate:
        knobs.learning_rate = default_rate(loaded.model, loading.lora)
    policy, encoder = loaded.model, encoder_of(loaded)
    found = prepare_pairs(data, encoder, policy, loading.max_length, most, 0, seed, skip_bad, progress)
    ref_policy = load_reference(policy)
    source = LongPairs(found.pairs, found.tokens, ref_policy, batch_size, seed)
    prompts = [pair.prompt for pair in found.pairs]
    samples = sample_evaluator(ref_policy, prompts, encoder, SHOWN_TOKENS, seed)
    notes = {"model": loaded.note, **found.notes}
    return make(policy, source, config, knobs, samples, loaded.tokenizer, notes)
