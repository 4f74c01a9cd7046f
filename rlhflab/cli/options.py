"""The options of `rlhflab train`: a builder's keyword arguments, each with its words, as a typer command."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

# Type and words of every setting that a builder may have; None as the default means that the builder decides.
SETTINGS: dict[str, tuple[type, str]] = {
    "world": (
        str,
        "micro, reviews, or preference pairs: a file (JSONL, JSON, CSV, Parquet, Arrow), a folder, a hub data set",
    ),
    "model": (str, "tiny, a folder, or a Hugging Face id"),
    "start": (str, "what the training starts from: pretrained or random weights"),
    "reference": (str, "sft, or preferred: fine-tuned on the chosen answers"),
    "reward": (
        str,
        "true, model (fitted first), a reward-model run, a classifier, FILE.py:FUNCTION or MODULE:FUNCTION",
    ),
    "beta": (float, "KL strength β > 0"),
    "learning_rate": (float, "Step size of AdamW at its peak"),
    "gamma": (float, "Discount γ in [0, 1]"),
    "clip_range": (float, "How far a ratio may move before its gradient stops: ε > 0"),
    "gae_lambda": (float, "GAE's λ in [0, 1]"),
    "epochs": (int, "Passes over each rollout"),
    "minibatches": (int, "Parts of a rollout an epoch"),
    "value": (str, "shared: a value head on the policy's trunk; own: a trunk of its own"),
    "envs": (int, "Copies of the environment that act at the same time"),
    "horizon": (int, "Steps of every copy an iteration"),
    "max_kl": (float, "Radius δ > 0 of the trust region, nats per token or time step"),
    "damping": (float, "Added to the Fisher matrix's diagonal"),
    "cg_iterations": (int, "Fisher-vector products a step"),
    "texts": (int, "Texts to draw from the grammar"),
    "p_noise": (float, "Share of the drawn texts with a fault"),
    "pairs": (str, "Preference pairs to draw, or to read at most"),
    "ranked": (int, "Answers a ranking, 2–16; two make a pair"),
    "label_noise": (float, "Probability that a label is flipped"),
    "blind": (str, "What a reward model cannot see: film, negation, strength, conjunction; reviews: hype, …"),
    "steps": (int, "Updates to make"),
    "batch_size": (int, "Examples an update"),
    "evaluate_every": (int, "Updates between evaluations"),
    "engine": (str, "lab: our own loop; trl: TRL's trainer"),
    "skip_bad": (bool, "Leave bad lines of a file out"),
    "four_bit": (bool, "Real models: weights in 4 bits (NF4), with --lora only"),
    "lora": (bool, "Real models: train adapters, not the weights"),
    "lora_rank": (int, "Rank of the adapters, 1–1024, usually 8–64"),
    "lora_targets": (
        str,
        "Comma list of the layers with adapters; by itself all linear layers of known architectures",
    ),
    "max_length": (int, "Tokens of prompt and answer, ≥ 2; longer pairs are left out"),
    "max_new_tokens": (int, "Real models: tokens of a sampled answer, ≥ 1"),
    "prompt_words": (int, "Words of a text with a label that are its prompt, ≥ 1"),
    "gradient_checkpointing": (bool, "Real models: less memory for activations, a third more time"),
    "dtype": (str, "Real models with --lora: auto, float32, bfloat16 or float16"),
    "trust_remote_code": (bool, "Run code that comes with a model; only for authors you trust"),
    "seed": (int, "The same seed gives the same run"),
    "device": (str, "auto, cpu, cuda or mps"),
}
OR_CONTROL = (
    "micro, reviews, a file or hub data set of texts, or for control an environment such as CartPole-v1 "
    "or MODULE:ID"
)
NOT_OPTIONS = ("progress", "evaluate")
PATHS = ("world", "model", "reward")  # settings that may name a file or a folder


def path(text: str) -> Path:
    """A path with ~ as the home folder: shells leave it as it is in --out=~/x, and Windows everywhere."""
    return Path(text) if not text.startswith("~") else Path(os.path.expanduser(text))


OUT = typer.Option(parser=path, help="Folder of the run; default a new one in runs/.")
RESUME = typer.Option(
    parser=path, help="Continue the run in this folder with its settings (--device may change)."
)
TRACKER = typer.Option(
    metavar="NAME", help="Log every record to tensorboard (in the run's folder), trackio or wandb."
)
AS_JSON = typer.Option("--json", help="Print one JSON object as the last line.")


def command_from(
    builder: Callable[..., Any], run: Callable[..., None], control: Callable[..., Any] | None = None
) -> Callable[..., None]:
    """Return a function for `typer.Typer.command`: the settings as options; --out, --resume, --tracker and --json.

    Args:
        builder: makes an algorithm from keyword arguments.
        run: called with the settings that were given, and with out, resume, tracker, as_json.
        control: makes it where the world is one of gymnasium's.
    """
    here, there = (
        {} if build is None else dict(inspect.signature(build).parameters) for build in (builder, control)
    )
    parameters = [
        _option(name, here.get(name), there.get(name)) for name in here | there if name not in NOT_OPTIONS
    ]
    for name, kind, option, default in (
        ("out", Path | None, OUT, None), ("resume", Path | None, RESUME, None),
        ("tracker", str | None, TRACKER, None), ("as_json", bool, AS_JSON, False),
    ):  # fmt: skip
        parameters.append(_parameter(name, kind, option, default))

    def command(
        out: Path | None, resume: Path | None, tracker: str | None, as_json: bool, **settings: Any
    ) -> None:
        given = {name: value for name, value in settings.items() if value is not None}
        run(given, out, resume, tracker, as_json)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {}
    return command


def _option(
    name: str, parameter: inspect.Parameter | None, control: inspect.Parameter | None
) -> inspect.Parameter:
    kind, words = SETTINGS[name]
    metavar = "N" if name == "pairs" else None
    if parameter is not None and "Literal['fresh']" in str(parameter.annotation):
        metavar, words = "N|fresh", f"{words}, or fresh ones each step"
    if name == "world" and control is not None:
        words, control = OR_CONTROL, None
    if parameter is not None:
        shown = {None: "by model, data or world", "": "nothing"}.get(parameter.default, parameter.default)
        words += f"; default {shown}."
    if control is not None and (parameter is None or control.default != parameter.default):
        shown = "by world" if control.default is None else control.default
        words += f"; only in control, default {shown}." if parameter is None else f" In control: {shown}."
    flags = (f"--{name.replace('_', '-')}",) if kind is bool else ()
    option = typer.Option(*flags, help=words, metavar=metavar)
    return _parameter(name, kind | None, option, None)


def _parameter(name: str, kind: Any, option: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def absolute(value: str) -> str:
    """A path that exists, made absolute, so that a run can be continued from another folder; other words stay."""
    if value in ("micro", "reviews", "tiny", "true", "model"):
        return value
    file, colon, function = value.rpartition(":")
    if colon and file.endswith(".py"):
        return f"{absolute(file)}:{function}"
    folder, at, split = value.partition("@")
    if at and path(folder).is_dir():
        return f"{absolute(folder)}@{split}"
    return str(path(value).resolve()) if path(value).exists() else value


def whole(option: str, value: str, otherwise: str = "") -> int:
    """A whole number; ValueError names the option, and what else it may be."""
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{option} must be a whole number{otherwise}, got {value!r}") from None


def number(option: str, value: str) -> float:
    """A number; ValueError names the option."""
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{option} must be a number, got {value!r}") from None
