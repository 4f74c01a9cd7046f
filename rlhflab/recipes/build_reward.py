"""Put a reward-model run together from plain settings."""

from __future__ import annotations

from rlhflab import processes
from rlhflab.algorithms.reward_modelling import RewardConfig, RewardKnobs, RewardModelling
from rlhflab.algorithms.room import fits
from rlhflab.core.record import Evaluator
from rlhflab.data.hub import read_data
from rlhflab.data.ranking_source import LongRankings, RankingSource, TextRankings, WorldRankings
from rlhflab.data.sampled import SampledReference
from rlhflab.engines.choice import engine_class, engine_dtype
from rlhflab.engines.versions import require_pairs
from rlhflab.evaluation.reward_judge import ExactRewardJudge, SampledRewardJudge
from rlhflab.models.devices import choose_device
from rlhflab.models.loading import load_reward_model
from rlhflab.models.reward import blindfold, reward_model_from
from rlhflab.recipes.build import (
    check_common,
    check_world_or_file,
    read_micro_pairs,
    require_texts,
    view_from,
    world_named,
)
from rlhflab.recipes.build_text import (
    default_pairs,
    default_rate,
    encoder_of,
    load_settings,
    prepare_pairs,
)
from rlhflab.recipes.builders import WORLDS
from rlhflab.recipes.reference import tiny_reference
from rlhflab.worlds.grammar import BLINDNESS
from rlhflab.worlds.micro import ReferencePoint
from rlhflab.worlds.reviews import ReviewsWorld
from rlhflab.worlds.reviews_grammar import FEATURES

HELD_OUT = 64  # pairs of real texts; each look at them costs as much as a few updates


@fits
def build_reward(
    world: str = "micro",
    model: str = "tiny",
    beta: float = 1.0,
    learning_rate: float | None = None,
    pairs: int | None = None,
    ranked: int = 2,
    label_noise: float = 0.0,
    blind: str = "",
    steps: int = 300,
    batch_size: int | None = None,
    evaluate_every: int = 100,
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
    evaluate: bool = True,
    progress: bool = True,
) -> RewardModelling:
    """Return a reward-model run, ready to iterate.

    Args:
        world: "micro", "reviews", or a file, folder or data set; see `data.rows`. "tiny" reads those in its own
            language only.
        model: "tiny", a folder written by save_pretrained, or a hub id: the trunk.
        beta: KL strength > 0 at which the policy that is optimal for the reward model is judged.
        learning_rate: peak step size; by default 1e-3 for the tiny model; see `default_rate` for real ones.
        pairs: how many rankings to train on (at most, for a file); by default 2000, and with real models as many as are
            seen three times.
        ranked: K, answers a ranking, 2–16; more than 2 in a built-in world only.
        label_noise: probability in [0, 0.5] that a ranking is turned round.
        blind: "" for nothing; in the micro world what the model cannot see: film, negation, strength or conjunction; in
            the reviews world the feature that the annotators do not see, of which hype is the one worth seeing.
        steps: updates.
        batch_size: rankings an update; by default 64, and 8 for real models.
        evaluate_every: updates between exact evaluations (three seconds each on two cores); of real models, between
            looks at pairs that are held out.
        seed: rankings and their order.
        device: "auto", "cpu", "cuda" or "mps"; see `models.devices`.
        engine: "lab" for our own loop, or "trl" for TRL's RewardTrainer, which takes pairs only.
        skip_bad: leave bad lines of a file out, with a warning that counts them.
        four_bit, lora, lora_rank, lora_targets, gradient_checkpointing, dtype, trust_remote_code: how a real model is
            loaded; see `LoadSettings`. lora_targets is a comma list.
        max_length: pairs longer than so many tokens are left out.
        evaluate: whether there are exact evaluations.
        progress: show a bar while the tiny model is trained on first use.

    Raises:
        ValueError: a setting that makes no sense, in one line.
    """
    check_world_or_file(world)
    if batch_size is None:
        batch_size = 64 if model == "tiny" else 8
    if pairs is None:
        pairs = 2000 if model == "tiny" else default_pairs(steps, batch_size)
    if not (isinstance(pairs, int) and pairs >= 1):
        raise ValueError(f"pairs must be a whole number ≥ 1, got {pairs!r}")
    if world not in WORLDS and (blind or ranked != 2):
        raise ValueError("blind and ranked need the micro or the reviews world")
    features = blindness_of(world)
    if blind and blind not in features:
        raise ValueError(f"blind must be one of {', '.join(features)} or nothing, got {blind!r}")
    if model != "tiny":
        require_texts(world)
    check_common(label_noise, batch_size, seed)
    make = engine_class(engine, RewardModelling)
    if engine == "trl":
        require_pairs(ranked)
    dtype = engine_dtype(engine, model, dtype, device)
    loading = load_settings(
        model, four_bit, lora, lora_rank, lora_targets, max_length, gradient_checkpointing, dtype, trust_remote_code,
        2 * processes.largest_share(batch_size), device, seed,
    )  # fmt: skip
    knobs = RewardKnobs(
        beta=beta, learning_rate=1e-3 if learning_rate is None else learning_rate, pairs=pairs, label_noise=label_noise
    )  # fmt: skip
    if loading is not None:
        texts = read_data(world, skip_bad, progress)  # before minutes of loading
        loaded = load_reward_model(model, loading)
        if learning_rate is None:
            knobs.learning_rate = default_rate(loaded.model, lora)
        encoder = encoder_of(loaded)
        found = prepare_pairs(
            texts, encoder, loaded.model, max_length, pairs, HELD_OUT, seed, skip_bad, progress
        )
        config = RewardConfig(
            steps=steps, batch_size=batch_size, warmup=min(10, steps // 10), held_out=found.held_out,
            test_every=evaluate_every, seed=seed,
        )  # fmt: skip
        source = LongRankings(found.pairs, found.tokens, loaded.model, seed)
        notes = {"model": loaded.note, **found.notes}
        return make(loaded.model, source, config, knobs, None, loaded.tokenizer, notes)
    target, lab = choose_device(device, "tiny"), world_named(world if world in WORLDS else "micro")
    policy = tiny_reference(lab, progress=progress).to(target)
    reward_model, held_out, judge, notes = reward_model_from(policy), 512, None, {}
    if world in WORLDS:
        annotators = ReviewsWorld(blind_to=[blind]) if world == "reviews" and blind else lab
        rankings: RankingSource = WorldRankings(lab, policy, pairs + held_out, ranked, seed, annotators)
        judge = _judge(view_from(lab, policy), seed) if evaluate else None
        if world == "micro" and blind:
            ids = lab.tokenizer.convert_tokens_to_ids
            blindfold(reward_model, {ids(word): ids(seen) for word, seen in BLINDNESS[blind].items()})
    else:
        data = read_micro_pairs(world, skip_bad, progress)
        notes["read"], some = data.note, list(data.pairs[: pairs + held_out])
        held_out = min(held_out, len(some) // 10)
        rankings = TextRankings(some, lab.encode_prompt, lab.encode_answer, target, seed)
    config = RewardConfig(
        steps=steps, batch_size=batch_size, evaluate_every=evaluate_every, held_out=held_out, seed=seed
    )
    return make(reward_model, rankings, config, knobs, judge, notes=notes)


def blindness_of(world: str) -> tuple[str, ...]:
    """What `blind` may be in a built-in world; nothing for a file."""
    return {"micro": tuple(BLINDNESS), "reviews": FEATURES}.get(world, ())


def _judge(view: ReferencePoint | SampledReference, seed: int) -> Evaluator:
    return (
        ExactRewardJudge(view, seed) if isinstance(view, ReferencePoint) else SampledRewardJudge(view, seed)
    )
