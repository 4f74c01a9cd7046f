"""Put policy-gradient runs together from plain settings: REINFORCE, TRPO and PPO on language models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from rlhflab import processes
from rlhflab.algorithms.ppo import PPO, PPOConfig, PPOKnobs
from rlhflab.algorithms.reinforce import Reinforce, ReinforceConfig, ReinforceKnobs
from rlhflab.algorithms.room import fits
from rlhflab.algorithms.trpo import TRPO, TRPOConfig, TRPOKnobs
from rlhflab.evaluation.reward_judge import reference_offsets
from rlhflab.models.devices import choose_device
from rlhflab.models.loading import above_float16, frozen_copy
from rlhflab.models.reward import read_reward_model
from rlhflab.recipes.build import check_common, evaluator_of, require_texts, view_from, world_named
from rlhflab.recipes.build_reward import build_reward
from rlhflab.recipes.build_text import load_settings
from rlhflab.recipes.build_text_policy import text_task
from rlhflab.recipes.reference import tiny_reference
from rlhflab.tasks.language import LanguageTask
from rlhflab.tasks.rewards import ModelReward, RewardFunction, TextReward, TrueReward
from rlhflab.worlds.world import World

Reward = str | Callable[[list[str], list[str]], Any]
LOADING = (
    "model", "four_bit", "lora", "lora_rank", "lora_targets", "max_length", "gradient_checkpointing", "dtype",
    "trust_remote_code", "device", "seed",
)  # fmt: skip
"""Settings that say how a model is loaded."""


@fits
def build_reinforce(
    world: str = "micro",
    model: str = "tiny",
    reward: Reward = "true",
    beta: float | None = None,
    learning_rate: float | None = None,
    pairs: int = 2000,
    prompt_words: int = 4,
    max_new_tokens: int = 24,
    label_noise: float = 0.0,
    blind: str = "",
    steps: int = 800,
    batch_size: int | None = None,
    evaluate_every: int = 25,
    seed: int = 0,
    device: str = "auto",
    skip_bad: bool = False,
    four_bit: bool = False,
    lora: bool = False,
    lora_rank: int = 16,
    lora_targets: str = "",
    max_length: int = 128,
    gradient_checkpointing: bool = False,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    progress: bool = True,
) -> Reinforce:
    """Return a REINFORCE run with a leave-one-out baseline, ready to iterate.

    Args:
        world: "micro", or "reviews" (longer answers; β of 0.1–1; evaluations are estimates); with a real model a file
            or data set of pairs, whose prompts are answered, or of texts with labels, whose beginnings are; see
            `data.hub`.
        model: "tiny", a folder written by save_pretrained, or a hub id.
        reward: "true"; "model" for a reward model fitted first to `pairs` preferences; the folder of a run of
            `rlhflab train reward`; or, from Python, a function (prompts, answers) → one number each. With a real model
            see `build_text_policy.REWARDS`.
        beta: KL strength > 0; by default 1, and 0.1 for real models.
        learning_rate: peak step size of AdamW; by default 3e-3 for the tiny model; see `default_rate` for real ones.
        pairs, label_noise, blind: what a reward model is fitted to, where reward is "model"; see `build_reward`. With a
            real model `pairs` is how many prompts are read, at most.
        prompt_words: words of a text with a label that are its prompt.
        max_new_tokens: a real model's longest answer.
        steps: iterations; each samples `batch_size` answers.
        batch_size: answers an iteration; by default 252, and 32 for real models. Of a real model REINFORCE takes four
            to a prompt.
        evaluate_every: iterations between exact evaluations.
        seed: prompts, answers and the reward model's data.
        device: "auto", "cpu", "cuda" or "mps"; see `models.devices`.
        skip_bad: leave bad lines of a file out, with a warning that counts them.
        four_bit, lora, lora_rank, lora_targets, gradient_checkpointing, dtype, trust_remote_code: how a real model is
            loaded; see `LoadSettings`. lora_targets is a comma list.
        max_length: prompts that leave no room for an answer within so many tokens are left out.
        progress: show bars while the tiny model or a reward model is trained.

    Raises:
        ValueError: a setting that makes no sense, in one line.
    """
    settings = _settings(locals())
    knobs = ReinforceKnobs(
        beta=settings["beta"], learning_rate=3e-3 if learning_rate is None else learning_rate
    )
    config = ReinforceConfig(
        steps=steps, warmup=min(20, steps // 10), evaluate_every=evaluate_every, seed=seed
    )
    task, usual_rate, tokenizer, notes = _task(settings, "none", settings["batch_size"])
    if learning_rate is None and usual_rate is not None:
        knobs.learning_rate = usual_rate
    return Reinforce(task, config, knobs, tokenizer, notes)


@fits
def build_ppo(
    world: str = "micro",
    model: str = "tiny",
    reward: Reward = "true",
    beta: float | None = None,
    learning_rate: float | None = None,
    clip_range: float = 0.2,
    gae_lambda: float = 0.95,
    epochs: int = 2,
    value: str = "shared",
    pairs: int = 2000,
    prompt_words: int = 4,
    max_new_tokens: int = 24,
    label_noise: float = 0.0,
    blind: str = "",
    steps: int = 400,
    batch_size: int | None = None,
    minibatches: int = 2,
    evaluate_every: int = 25,
    seed: int = 0,
    device: str = "auto",
    skip_bad: bool = False,
    four_bit: bool = False,
    lora: bool = False,
    lora_rank: int = 16,
    lora_targets: str = "",
    max_length: int = 128,
    gradient_checkpointing: bool = False,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    progress: bool = True,
) -> PPO:
    """Return a PPO run, ready to iterate; arguments as in `build_reinforce`, and:

    Args:
        learning_rate: by default 1e-3 for the tiny model.
        clip_range: ε > 0, how far a ratio may move before its gradient stops.
        gae_lambda: λ in [0, 1].
        epochs: passes over each rollout, ≥ 1.
        value: "shared" for a value head on the policy's trunk, "own" for a trunk of its own.
        minibatches: parts of a rollout an epoch.
    """
    settings = _settings(locals())
    knobs = PPOKnobs(
        beta=settings["beta"], learning_rate=1e-3 if learning_rate is None else learning_rate,
        clip_range=clip_range, gae_lambda=gae_lambda, epochs=epochs,
    )  # fmt: skip
    config = PPOConfig(
        steps=steps, warmup=min(20, steps // 10), minibatches=minibatches, value_coef=0.1,
        evaluate_every=evaluate_every, seed=seed,
    )  # fmt: skip
    if value == "none":
        raise ValueError("value must be shared or own for PPO, got 'none'")
    parts = torch.arange(settings["batch_size"]).chunk(minibatches)
    processes.require_rows(len(parts[-1]), "the last of a rollout's minibatches")
    task, usual_rate, tokenizer, notes = _task(settings, value, len(parts[0]))
    if learning_rate is None and usual_rate is not None:
        knobs.learning_rate = usual_rate
    return PPO(task, config, knobs, tokenizer, notes)


@fits
def build_trpo(
    world: str = "micro",
    model: str = "tiny",
    reward: Reward = "true",
    beta: float | None = None,
    max_kl: float = 0.01,
    gae_lambda: float = 0.95,
    damping: float = 1e-3,
    cg_iterations: int = 10,
    pairs: int = 2000,
    prompt_words: int = 4,
    max_new_tokens: int = 24,
    label_noise: float = 0.0,
    blind: str = "",
    steps: int = 160,
    batch_size: int | None = None,
    evaluate_every: int = 10,
    seed: int = 0,
    device: str = "auto",
    skip_bad: bool = False,
    four_bit: bool = False,
    lora: bool = False,
    lora_rank: int = 16,
    lora_targets: str = "",
    max_length: int = 128,
    gradient_checkpointing: bool = False,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    progress: bool = True,
) -> TRPO:
    """Return a TRPO run, ready to iterate; arguments as in `build_reinforce`, and:

    Args:
        max_kl: δ > 0, KL(π_old‖π_θ) that a step may cost, nats per token; its root falls linearly to 0.
        gae_lambda: λ in [0, 1].
        damping: added to the Fisher matrix's diagonal, ≥ 0.
        cg_iterations: Fisher-vector products a step.
        dtype: auto is float32 where others take float16, which is too coarse for these products.
        gradient_checkpointing: no help here: the Fisher matrix's graph, the largest, keeps its activations.
    """
    settings = _settings(locals())
    if model != "tiny":
        settings["dtype"] = above_float16(dtype, device)
    knobs = TRPOKnobs(beta=settings["beta"], max_kl=max_kl, gae_lambda=gae_lambda)
    config = TRPOConfig(
        steps=steps, damping=damping, cg_iterations=cg_iterations, evaluate_every=evaluate_every, seed=seed
    )
    value = "own" if model == "tiny" else "shared"  # a real model is there once
    task, _, tokenizer, notes = _task(settings, value, settings["batch_size"], config.fisher_share)
    return TRPO(task, config, knobs, tokenizer, notes)


def _settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A builder's arguments, checked, with β and batch size as they are by default for its model."""
    settings = dict(arguments)
    tiny = settings["model"] == "tiny"
    usual = {"beta": 1.0 if tiny else 0.1, "batch_size": 252 if tiny else 32}
    settings |= {name: value for name, value in usual.items() if settings[name] is None}
    check_common(settings["label_noise"], settings["batch_size"], settings["seed"])
    return settings


def _task(
    settings: Mapping[str, Any], value: str, rows: int, twice: float = 0.0
) -> tuple[LanguageTask, float | None, Any, dict[str, str]]:
    """The tiny model's task or a real one's; the usual step size of a real one, its tokenizer, and notes in words.

    Args:
        settings: of the builder; see `_settings`.
        value: the value model; see `LanguageTask`.
        rows: answers that a forward pass with gradient has at most, of all processes together.
        twice: share of them whose graph is differentiated twice.
    """
    named = {name: settings[name] for name in LOADING}
    loading = load_settings(
        **named, rows=processes.largest_share(rows), answer_tokens=settings["max_new_tokens"], twice=twice
    )
    if loading is None:
        names = (
            "world",
            "reward",
            "pairs",
            "label_noise",
            "blind",
            "batch_size",
            "seed",
            "device",
            "progress",
        )
        return _tiny_task(**{name: settings[name] for name in names}, value=value), None, None, {}
    require_texts(settings["world"])
    names = (
        "model",
        "world",
        "reward",
        "max_new_tokens",
        "prompt_words",
        "batch_size",
        "seed",
        "skip_bad",
        "progress",
    )
    return text_task(
        **{name: settings[name] for name in names}, loading=loading, most=settings["pairs"], value=value
    )


def _tiny_task(
    world: str, reward: Reward, pairs: int, label_noise: float, blind: str, batch_size: int, value: str, seed: int,
    device: str, progress: bool,
) -> LanguageTask:  # fmt: skip
    lab = world_named(world)
    if isinstance(reward, str) and reward not in ("true", "model") and not Path(reward).is_dir():
        raise ValueError(f"reward must be true, model or the folder of a reward model, got {reward!r}")
    policy = tiny_reference(lab, progress=progress).to(choose_device(device, "tiny"))
    ref_policy = frozen_copy(policy)
    fitting = {"pairs": pairs, "label_noise": label_noise, "blind": blind, "seed": seed, "device": device}
    scores = _reward(reward, lab, ref_policy, {**fitting, "progress": progress})
    return LanguageTask(
        policy, ref_policy, lab.prompt_ids, lab.stop_ids, lab.max_tokens, scores, batch_size, seed, value,
        evaluator=evaluator_of(view_from(lab, ref_policy), seed),
    )  # fmt: skip


def _reward(reward: Reward, world: World, ref_policy: Any, fitting: dict[str, Any]) -> RewardFunction:
    if not isinstance(reward, str):
        return TextReward(reward, world.prompts, world.decode_answer)
    if reward == "true":
        return TrueReward(world)
    if reward == "model":
        run = build_reward(world=world.name, evaluate=False, **fitting)
        for _ in tqdm(run, desc="fitting the reward model", leave=False, disable=not fitting["progress"]):
            pass
        reward_model = run.reward_model
    else:
        folder = Path(reward)
        folder = folder / "model" if (folder / "model").is_dir() else folder
        reward_model = read_reward_model(folder, ref_policy.device)
        if reward_model.config.vocab_size != len(world.tokenizer):
            raise ValueError(
                f"the reward model in {reward} has another vocabulary than the {world.name} world"
            )
    reward_model.requires_grad_(False)
    return ModelReward(reward_model, reference_offsets(world, ref_policy, reward_model, fitting["seed"]))
