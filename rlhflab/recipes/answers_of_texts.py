"""A real model's answers to the prompts of real texts as a task, and the sources of their scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlhflab.data.encoding import TextEncoder
from rlhflab.data.hub import beginnings, read_data, split
from rlhflab.models.loading import LoadSettings, load_policy, load_reference, positions_of
from rlhflab.models.reward import HEAD_FILE, read_reward_model
from rlhflab.models.tokens import load_tokenizer
from rlhflab.models.weights import is_adapters
from rlhflab.recipes.texts import (
    REFUSED,
    default_rate,
    encoder_of,
    left_out,
    refused_line,
    sample_evaluator,
)
from rlhflab.tasks.language import LanguageTask, Prompts
from rlhflab.tasks.named_reward import named_function, names_function, require_reward
from rlhflab.tasks.rewards import ClassifierReward, ModelReward, RewardFunction, TextReward

REWARDS = "the folder of a reward-model run, a text classifier's folder or hub id, FILE.py:FUNCTION or MODULE:FUNCTION"


def text_task(
    recipe: Any, loading: LoadSettings, value: str, each: int
) -> tuple[LanguageTask, float, Any, dict[str, str]]:
    """Load a model and build the task for policy optimisation.

    Args:
        recipe: an `Answers` of a real model: its prompts are those of pairs, or the first words of labelled texts.
        loading: how the model is loaded.
        value: "shared" or "none"; "own" only without adapters.
        each: answers per prompt, in consecutive rows.

    Returns:
        the task, the default peak step size, the tokenizer, and notes for the reader.
    """
    world, reward, most, seed = recipe.world, recipe.reward, recipe.pairs, recipe.seed
    max_new_tokens, skip_bad = recipe.max_new_tokens, recipe.skip_bad
    function = named_function(reward) if isinstance(reward, str) and names_function(reward) else reward
    if not isinstance(function, str):
        require_reward(
            function, repr(reward) if isinstance(reward, str) else getattr(reward, "__name__", "given")
        )
    if isinstance(function, str) and function in ("true", "model"):
        raise ValueError(f"reward must be {REWARDS} with a real model, got {function!r}")
    data = read_data(world, skip_bad, recipe.progress)  # before the model, which takes minutes
    found = beginnings(data, recipe.prompt_words)
    loaded = load_policy(recipe.model, loading)
    policy, encoder = loaded.model, encoder_of(loaded)
    ref_policy = load_reference(policy)
    mixed, _ = split(list(found), 0, seed)
    longest = min(loading.max_length, positions_of(policy))
    ids = encoder.encode_prompts(mixed[: 2 * most])
    bad = {prompt for prompt, row in zip(mixed, ids, strict=False) if not row}
    refused = [f"{place}: {encoder.complaint(prompt)}" for prompt, place in found.items() if prompt in bad]
    if refused and not skip_bad:
        raise ValueError(f"{world}, {refused_line(refused[0])}")
    kept = [place for place, row in enumerate(ids) if row and len(row) + max_new_tokens <= longest][:most]
    if not kept and len(refused) == len(ids):
        raise ValueError(f"no prompt of {world} can be used: {left_out({REFUSED: len(refused)}, refused[0])}")
    if not kept:
        raise ValueError(
            f"no prompt of {world} leaves {max_new_tokens} of {longest} tokens for an answer; "
            "raise --max-length or lower --max-new-tokens"
        )
    prompts = [mixed[place] for place in kept]
    task = LanguageTask(
        policy,
        ref_policy,
        Prompts([ids[place] for place in kept], encoder.stop_ids, max_new_tokens),
        _scores(function, prompts, encoder, policy),
        recipe.batch_size,
        seed,
        value,
        evaluator=sample_evaluator(ref_policy, prompts, encoder, seed, max_new_tokens),
        each=each,
    )
    note = f"{len(prompts)} prompts of {world}, of {len(found)} read; those with room for {max_new_tokens} tokens"
    if refused:
        note += f"; left out: {left_out({REFUSED: len(refused)}, refused[0])}"
    notes = {"model": loaded.note, "read": data.note, "dialogues": encoder.note_on(prompts), "data": note}
    if isinstance(task.reward, ClassifierReward):
        notes["reward"] = task.reward.note
    return task, default_rate(policy, loading.lora), loaded.tokenizer, notes


def _scores(
    reward: str | Callable[..., Any], prompts: Sequence[str], encoder: TextEncoder, policy: Any
) -> RewardFunction:
    if not isinstance(reward, str):
        return TextReward(reward, prompts, encoder.decode)
    folder = Path(reward)
    folder = folder / "model" if (folder / "model").is_dir() else folder
    ours = folder != Path(reward) or is_adapters(
        reward
    )  # a run's folder, or adapters, which only our own reward models have
    if not ours and not (folder / HEAD_FILE).is_file():
        return ClassifierReward(reward, prompts, encoder.decode, policy.device)
    reward_model = read_reward_model(folder, policy.device).requires_grad_(False)
    _require_same_words(folder, encoder, reward_model)
    return ModelReward(reward_model)


def _require_same_words(folder: Path, encoder: TextEncoder, reward_model: Any) -> None:
    """Check that a reward model has the policy's vocabulary, as it reads the policy's tokens."""
    size = reward_model.config.get_text_config().vocab_size
    words = load_tokenizer(str(folder), size, f"the reward model in {folder}").get_vocab()
    if words != encoder.tokenizer.get_vocab():
        raise ValueError(f"the reward model in {folder} has a different vocabulary than the policy")
