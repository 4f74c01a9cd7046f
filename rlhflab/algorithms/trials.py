"""A small training of every kind, as the settings that build it: what is tried on a device before it is trusted."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlhflab.models.random_models import write_model

STEPS = 4
ANSWERS = (
    ("Feed them well, and let them sleep.", "I would not know."),
    ("Play with them.", "Ask somebody else, please."),
)


def trials(folder: Path) -> dict[str, dict[str, Any]]:
    """Write what the trainings read, and return their settings by name.

    They are of STEPS updates: every algorithm on the tiny model and on a small random Llama with adapters; with what is
    installed also on CartPole, with TRL's trainers, and in 4 bits.

    Args:
        folder: for a model of 100 kB and a file of pairs; it must exist.

    Returns:
        name → arguments of `runs.drive.build_from`, all but `device` and `dtype`.
    """
    always = {"steps": STEPS, "evaluate_every": 2, "seed": 0}
    tiny = {**always, "world": "micro"}
    few = {"pairs": 32, "batch_size": 8, "progress": False}
    texts = {"texts": 64, "batch_size": 8}
    found: dict[str, dict[str, Any]] = {
        "pretrain": {"algorithm": "pretrain", **tiny, **texts},
        "sft": {"algorithm": "sft", **tiny, **texts, "progress": False},
        "reward": {"algorithm": "reward", **tiny, **few, "evaluate": False},
        "dpo": {"algorithm": "dpo", **tiny, **few},
        "dpo, fresh pairs": {"algorithm": "dpo", **tiny, **few, "pairs": "fresh"},
    }
    for name in ("reinforce", "trpo", "ppo"):
        found[name] = {"algorithm": name, **tiny, "batch_size": 18, "progress": False}
        if find_spec("gymnasium") is not None:
            found[f"{name}, CartPole"] = {"algorithm": name, **always, "world": "CartPole-v1", "envs": 2}

    real = {
        **always, "evaluate_every": STEPS,
        "model": str(write_model(folder / "model", "llama")), "world": str(_write_pairs(folder / "pairs.jsonl")),
        "lora": True, "lora_rank": 4, "max_length": 64, "batch_size": 4, "progress": False,
    }  # fmt: skip
    for name in ("sft", "reward", "dpo"):
        found[f"{name}, LoRA"] = {"algorithm": name, **real}
        if find_spec("trl") is not None:
            found[f"{name}, LoRA, TRL"] = {"algorithm": name, **real, "engine": "trl"}
    scored = {"reward": f"{__name__}:length", "max_new_tokens": 6, "batch_size": 8}
    for name in ("reinforce", "trpo", "ppo"):
        found[f"{name}, LoRA"] = {"algorithm": name, **real, **scored}
    if find_spec("bitsandbytes") is not None:
        found["dpo, 4 bits"] = {"algorithm": "dpo", **real, "four_bit": True}
    return found


def length(prompts: list[str], answers: list[str]) -> list[float]:
    """A reward for tests: the number of letters of each answer."""
    return [float(len(answer)) for answer in answers]


def _write_pairs(path: Path) -> Path:
    pairs = [
        {"prompt": f"How do I keep {count} cats happy? ", "chosen": good, "rejected": bad}
        for count, (good, bad) in enumerate(ANSWERS * 16, start=2)
    ]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path
