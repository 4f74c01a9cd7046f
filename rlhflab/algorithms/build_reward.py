"""Put a reward-model run together from plain settings."""

from __future__ import annotations

from rlhflab.algorithms.build import (
    check_common,
    check_world_or_file,
    encoders_of,
    micro_world,
    pairs_that_fit,
    require_micro_language,
    view_from,
    world_named,
)
from rlhflab.algorithms.builders import WORLDS
from rlhflab.algorithms.engines import engine_class, require_pairs
from rlhflab.algorithms.ranking_source import RankingSource, TextRankings, WorldRankings
from rlhflab.algorithms.reference import tiny_reference
from rlhflab.algorithms.reward_judge import ExactRewardJudge, RewardJudge, SampledRewardJudge
from rlhflab.algorithms.reward_modelling import RewardConfig, RewardKnobs, RewardModelling
from rlhflab.algorithms.sampled import SampledReference
from rlhflab.models.loading import choose_device, load_model
from rlhflab.models.reward import blindfold, reward_model_from
from rlhflab.worlds.grammar import BLINDNESS
from rlhflab.worlds.micro import ReferencePoint
from rlhflab.worlds.preferences import read_pairs
from rlhflab.worlds.reviews import ReviewsWorld
from rlhflab.worlds.reviews_grammar import FEATURES


def build_reward(
    world: str = "micro",
    model: str = "tiny",
    beta: float = 1.0,
    learning_rate: float | None = None,
    pairs: int = 2000,
    ranked: int = 2,
    label_noise: float = 0.0,
    blind: str = "",
    steps: int = 300,
    batch_size: int = 64,
    evaluate_every: int = 100,
    seed: int = 0,
    device: str = "auto",
    engine: str = "lab",
    skip_bad: bool = False,
    evaluate: bool = True,
    progress: bool = True,
) -> RewardModelling:
    """Return a reward-model run, ready to iterate.

    Args:
        world: "micro", "reviews", or a file of preference pairs (JSONL, may be gzipped).
        model: "tiny", a folder written by save_pretrained, or a hub id: the trunk.
        beta: KL strength > 0 at which the policy that is optimal for the reward model is judged.
        learning_rate: peak step size; by default 1e-3 for the tiny model and 1e-5 for others.
        pairs: how many rankings to train on (at most, for a file).
        ranked: K, answers a ranking, 2–16; more than 2 in a built-in world only.
        label_noise: probability in [0, 0.5] that a ranking is turned round.
        blind: "" for nothing; in the micro world what the model cannot see: film, negation, strength or conjunction; in
            the reviews world the feature that the annotators do not see, of which hype is the one worth seeing.
        steps: updates.
        batch_size: rankings an update.
        evaluate_every: updates between exact evaluations (three seconds each on two cores).
        seed: rankings and their order.
        device: "auto", "cpu" or "cuda".
        engine: "lab" for our own loop, or "trl" for TRL's RewardTrainer, which takes pairs only.
        skip_bad: leave bad lines of a file out, with a warning that counts them.
        evaluate: whether there are exact evaluations.
        progress: show a bar while the tiny model is trained on first use.

    Raises:
        ValueError: a setting that makes no sense, in one line.
    """
    check_world_or_file(world)
    if not (isinstance(pairs, int) and pairs >= 1):
        raise ValueError(f"pairs must be a whole number ≥ 1, got {pairs!r}")
    if world not in WORLDS and (blind or ranked != 2):
        raise ValueError("blind and ranked need the micro or the reviews world")
    features = blindness_of(world)
    if blind and blind not in features:
        raise ValueError(f"blind must be one of {', '.join(features)} or nothing, got {blind!r}")
    if world in WORLDS and model != "tiny":
        raise ValueError(
            f"the {world} world needs --model tiny; other models need --world FILE with their pairs"
        )
    check_common(label_noise, batch_size, seed)
    make = engine_class(engine, RewardModelling)
    if engine == "trl":
        require_pairs(ranked)
    target, lab = choose_device(device), world_named(world if world in WORLDS else "micro")
    if learning_rate is None:
        learning_rate = 1e-3 if model == "tiny" else 1e-5
    knobs = RewardKnobs(beta=beta, learning_rate=learning_rate, pairs=pairs, label_noise=label_noise)
    if model == "tiny":
        policy, tokenizer = tiny_reference(lab, progress=progress).to(target), lab.tokenizer
    else:
        policy, tokenizer = load_model(model, target)
    reward_model, held_out, judge = reward_model_from(policy), 512, None
    if world in WORLDS:
        annotators = ReviewsWorld(blind_to=[blind]) if world == "reviews" and blind else lab
        rankings: RankingSource = WorldRankings(lab, policy, pairs + held_out, ranked, seed, annotators)
        judge = _judge(view_from(lab, policy), seed) if evaluate else None
        if world == "micro" and blind:
            ids = lab.tokenizer.convert_tokens_to_ids
            blindfold(reward_model, {ids(word): ids(seen) for word, seen in BLINDNESS[blind].items()})
    else:
        data, encoders = read_pairs(world, skip_bad), encoders_of(tokenizer)
        if model == "tiny":
            require_micro_language(micro_world(), data, world)
            encoders = (lab.encode_prompt, lab.encode_answer)
        data = pairs_that_fit(data[: pairs + held_out], *encoders, policy)
        held_out = min(held_out, len(data) // 10)
        rankings = TextRankings(data, *encoders, target, seed)
    config = RewardConfig(
        steps=steps, batch_size=batch_size, evaluate_every=evaluate_every, held_out=held_out, seed=seed
    )
    return make(reward_model, rankings, config, knobs, judge)


def blindness_of(world: str) -> tuple[str, ...]:
    """What `blind` may be in a built-in world; nothing for a file."""
    return {"micro": tuple(BLINDNESS), "reviews": FEATURES}.get(world, ())


def _judge(view: ReferencePoint | SampledReference, seed: int) -> RewardJudge:
    return (
        ExactRewardJudge(view, seed) if isinstance(view, ReferencePoint) else SampledRewardJudge(view, seed)
    )
