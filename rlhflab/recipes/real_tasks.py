"""The tasks of lab 10: real models and real data for each algorithm, in two sizes, and the tiny model for comparison.

The names on the hub are only defaults; a folder or a file works as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlhflab.models.loading import expected_memory
from rlhflab.models.memory import Memory, Workload, estimate
from rlhflab.models.tiny import new_tiny_model
from rlhflab.recipes import from_config
from rlhflab.recipes.recipe import BuiltIn
from rlhflab.recipes.worlds import world_named


@dataclass(frozen=True)
class Task:
    """Something to train in lab 10.

    Attributes:
        label: a few words.
        algorithm: its name.
        names: settings that name models, data and rewards → the task's defaults.
        settings: other settings.
        sizes: the name of a size → settings; the first one is a short trial.
    """

    label: str
    algorithm: str
    names: Mapping[str, str]
    sizes: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)


QLORA = {"four_bit": True, "lora": True}
TASKS = {
    "tiny": Task(
        "DPO of the tiny model: no network, no GPU", "dpo",
        {"model": "tiny", "world": "micro"},
        {"short": {"steps": 200}, "long": {"steps": 600}},
    ),
    "reward": Task(
        "a reward model of OPT-350m in 4 bits, on HH-RLHF", "reward",
        {"model": "facebook/opt-350m", "world": "Anthropic/hh-rlhf@train[:20000]"},
        {
            "short": {"steps": 60, "pairs": 240, "batch_size": 4, "max_length": 256},
            "long": {"steps": 1000, "pairs": 4000, "batch_size": 4, "max_length": 512, "evaluate_every": 100},
        },
        {**QLORA, "evaluate_every": 20},
    ),
    "sentiment": Task(
        "PPO of GPT-2, towards positive film reviews", "ppo",
        {"model": "openai-community/gpt2", "world": "stanfordnlp/imdb", "reward": "lvwerra/distilbert-imdb"},
        {"short": {"steps": 30, "batch_size": 32}, "long": {"steps": 200, "batch_size": 64}},
        {"lora": True, "evaluate_every": 10},
    ),
    "chat": Task(
        "DPO of a 0.5B chat model in 4 bits", "dpo",
        {"model": "Qwen/Qwen2.5-0.5B-Instruct", "world": "trl-lib/ultrafeedback_binarized@train[:10000]"},
        {
            "short": {"steps": 40, "pairs": 160, "batch_size": 4, "max_length": 256},
            "long": {"steps": 500, "pairs": 2000, "batch_size": 4, "max_length": 512},
        },
        {**QLORA, "evaluate_every": 20},
    ),
}  # fmt: skip


def recipe_of(task: str, size: str = "short", **changes: Any) -> BuiltIn:
    """The recipe of a task in one of its sizes.

    Args:
        task: a key of TASKS.
        size: one of the task's.
        changes: settings that override the task's.

    Raises:
        ValueError: unknown task, size or setting, or a value that is not allowed, in one line.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    found = TASKS[task]
    if size not in found.sizes:
        raise ValueError(f"size must be one of {', '.join(found.sizes)}, got {size!r}")
    return from_config(
        {"algorithm": found.algorithm, **found.names, **found.settings, **found.sizes[size], **changes}
    )


def expected(recipe: Any) -> Memory:
    """The most memory that a recipe's training will take, from the model's configuration alone.

    Args:
        recipe: a task's recipe.

    Raises:
        ValueError: it will not fit, with what would help; or any error that loading the model would give, in one line.
    """
    if not recipe.real:
        model = new_tiny_model(world_named("micro").tokenizer)
        return estimate(model, Workload(2 * recipe.batch_size, model.config.n_positions, copies=2))
    ppo = recipe.algorithm == "ppo"
    rows = -(-recipe.batch_size // recipe.minibatches) if ppo else 2 * recipe.batch_size
    return expected_memory(recipe.model, recipe.loading(rows), recipe.algorithm == "reward")
