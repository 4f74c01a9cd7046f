"""The tasks of lab 10: real models and real data for each algorithm, in two sizes, and the tiny model beside them.

What a task names on the hub is only its default; a folder or a file does as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from rlhflab.core.knobs import Knobs
from rlhflab.models.loading import expected_memory
from rlhflab.models.memory import Memory, estimate
from rlhflab.models.tiny import new_tiny_model
from rlhflab.recipes.build import micro_world
from rlhflab.recipes.build_text import load_settings
from rlhflab.recipes.builders import builder

KNOBS = {
    "dpo": ("rlhflab.algorithms.dpo", "DPOKnobs"),
    "reward": ("rlhflab.algorithms.reward_modelling", "RewardKnobs"),
    "ppo": ("rlhflab.algorithms.ppo", "PPOKnobs"),
}
LOADING = (
    "four_bit", "lora", "lora_rank", "lora_targets", "max_length", "gradient_checkpointing", "dtype",
    "trust_remote_code", "device", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What a person may train in lab 10.

    Attributes:
        label: in a few words.
        algorithm: its builder's name.
        names: those of the builder's settings that are names of models, data and rewards, with the task's own.
        settings: other settings of the builder.
        sizes: the name of a size → settings of the builder; the first one is a short look.
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


def configuration(task: str, size: str = "short", **changes: Any) -> dict[str, Any]:
    """The settings of a run: the builder's defaults, the task's, those of its size, and changes.

    Args:
        task: a key of TASKS.
        size: one of the task's.
        changes: settings of the builder, in place of the task's.

    Returns:
        the algorithm's name as `algorithm`, and every keyword argument of its builder; see `runs.drive`.

    Raises:
        ValueError: unknown task, size or setting, in one line.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    found = TASKS[task]
    if size not in found.sizes:
        raise ValueError(f"size must be one of {', '.join(found.sizes)}, got {size!r}")
    parameters = inspect.signature(builder(found.algorithm)).parameters
    for name in changes:
        if name not in parameters:
            raise ValueError(f"{name} is no setting of {found.algorithm}; known: {', '.join(parameters)}")
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    own = {**found.names, **found.settings, **found.sizes[size]}
    return {"algorithm": found.algorithm, **defaults, **own, **changes}


def expected(config: Mapping[str, Any]) -> Memory:
    """What a run with these settings will take at most, before anything but the model's configuration is loaded.

    Raises:
        ValueError: it will not fit, with what would help; or what loading the model would say, in one line.
    """
    reward = config["algorithm"] == "reward"
    if config["model"] == "tiny":
        model = new_tiny_model(micro_world().tokenizer)
        return estimate(model, 2 * (config["batch_size"] or 32), model.config.n_positions, copies=2)
    batch_size = config["batch_size"] or (32 if config["algorithm"] == "ppo" else 8)
    rows = -(-batch_size // config["minibatches"]) if config["algorithm"] == "ppo" else 2 * batch_size
    given = {name: config[name] for name in LOADING} | {"answer_tokens": config.get("max_new_tokens", 0)}
    settings = load_settings(config["model"], rows=rows, **given)
    return expected_memory(config["model"], settings, reward)


def title(config: Mapping[str, Any]) -> str:
    """What a run with these settings trains, in a few words."""
    model, world = (Path(config[name].split("@")[0]).name for name in ("model", "world"))
    what = {"dpo": "DPO", "ppo": "PPO", "reward": "Reward model"}[config["algorithm"]]
    return f"{what} · {model} · {world}"


def knobs_class(algorithm: str) -> type[Knobs]:
    """The knobs of a task's algorithm, for a board that shows them before it is built."""
    module, name = KNOBS[algorithm]
    found: type[Knobs] = getattr(import_module(module), name)
    return found
