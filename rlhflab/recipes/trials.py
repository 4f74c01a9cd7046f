"""A small training of every kind, as the settings that build it: a test of a device before it is trusted."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

from rlhflab.models.devices import remember_speed
from rlhflab.models.random_models import write_model
from rlhflab.recipes import from_config

STEPS = 4
ANSWERS = (
    ("Feed them well, and let them sleep.", "I would not know."),
    ("Play with them.", "Ask somebody else, please."),
)


def trials(folder: Path) -> dict[str, dict[str, Any]]:
    """Write the files that the trial trainings read, and return their settings by name.

    Each makes STEPS updates: every algorithm on the tiny model and, as far as the packages are installed, on CartPole
    and on a small random Llama with adapters, with TRL's trainers, and in 4 bits.

    Args:
        folder: where a model of 100 kB and a file of pairs are written; it must exist.

    Returns:
        name → config: `algorithm` and all its settings except `device`.
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
    sampled = {"batch_size": 18, "best_of": 2, "progress": False}
    found["rejection"] = {"algorithm": "rejection", **tiny, **sampled, "draws": 1, "updates": 2}
    for name in ("reinforce", "trpo", "ppo"):
        found[name] = {"algorithm": name, **tiny, "batch_size": 18, "progress": False}
        if find_spec("gymnasium") is not None:
            found[f"{name}, CartPole"] = {"algorithm": name, **always, "world": "CartPole-v1", "envs": 2}

    if not all(map(find_spec, ("peft", "accelerate"))):
        return found
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
    for name in ("rejection", "reinforce", "trpo", "ppo"):
        found[f"{name}, LoRA"] = {"algorithm": name, **real, **scored}
    if find_spec("bitsandbytes") is not None:
        found["dpo, 4 bits"] = {"algorithm": "dpo", **real, "four_bit": True}
    return found


def length(prompts: list[str], answers: list[str]) -> list[float]:
    """A reward for tests: the number of characters of each answer."""
    return [float(len(answer)) for answer in answers]


def _write_pairs(path: Path) -> Path:
    pairs = [
        {"prompt": f"How do I keep {count} cats happy? ", "chosen": good, "rejected": bad}
        for count, (good, bad) in enumerate(ANSWERS * 16, start=2)
    ]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return path


class Outcome(NamedTuple):
    """How a trial ended.

    Attributes:
        name: the trial's.
        seconds: how long it took.
        error: what stopped it, and where; empty if it succeeded.
    """

    name: str
    seconds: float
    error: str = ""


def try_on(device: str, updates: int = 1) -> Iterator[Outcome]:
    """Make the first updates of every trial on a device.

    Args:
        device: "cpu", "cuda" or "mps".
        updates: how many of each, from 1 to STEPS.
    """
    with TemporaryDirectory(prefix="rlhflab-trials-") as folder:
        for name, config in trials(Path(folder)).items():
            started = time.perf_counter()
            try:
                algorithm = built(config, device)
                for _ in range(updates):
                    next(algorithm)
            except Exception as error:  # finding failures is the purpose
                yield Outcome(name, time.perf_counter() - started, _told(error))
            else:
                yield Outcome(name, time.perf_counter() - started)


def built(config: Mapping[str, Any], device: str) -> Any:
    """The algorithm of a trial on a device."""
    return from_config({**config, "device": device}).build()


def measure_speed(device: torch.device, steps: int = 25) -> float:
    """How many times faster than the CPU a GPU trains the tiny model; the result is kept for `choose_device`.

    Measured on DPO as the labs run it: some updates, with one exact evaluation among them.

    Args:
        device: a GPU.
        steps: timed updates, after one to warm up.
    """
    seconds = []
    for where in ("cpu", device.type):
        settings = {"steps": 10 * steps, "pairs": 500, "evaluate_every": steps, "progress": where == "cpu"}
        training = built({"algorithm": "dpo", "world": "micro", **settings}, where)
        next(training)
        started = time.perf_counter()
        while training.step < steps:
            next(training)
        seconds.append(time.perf_counter() - started)
    speed = seconds[0] / seconds[1]
    remember_speed(device, speed)
    return speed


def compared(device: torch.device) -> str:
    """`measure_speed` in one line, for the set-up cell and the doctor."""
    speed = measure_speed(device)
    chosen = "auto trains the tiny model there" if speed > 1 else "auto trains the tiny model on the CPU"
    return f"{device.type}, {speed:.2g} times the CPU: {chosen}"


def _told(error: Exception) -> str:
    """An error in one line, with the innermost line of this package in its traceback."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "rlhflab" in Path(frame.filename).parts
    ]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{where}"
