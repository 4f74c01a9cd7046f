"""The options of `rlhflab train`: a recipe's settings, each with its help, as a typer command."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rlhflab.core.recipe import Recipe
from rlhflab.core.settings import Declared

YES_NO = {"true": True, "false": False}
FIRST = (
    "world", "model", "reward", "reference", "pairs", "texts", "beta", "learning_rate", "steps", "batch_size"
)  # fmt: skip


def path(text: str) -> Path:
    """A path with ~ expanded: shells do not expand it in --out=~/x, and Windows never does."""
    return Path(text) if not text.startswith("~") else Path(os.path.expanduser(text))


OUT = typer.Option(parser=path, help="Folder of the run; default: a new one in runs/.")
RESUME = typer.Option(
    parser=path, help="Continue the run in this folder with its settings (--device may change)."
)
TRACKER = typer.Option(
    metavar="NAME", help="Log every record to tensorboard (in the run's folder), trackio or wandb."
)
AS_JSON = typer.Option("--json", help="Print one JSON object as the last line.")


def command_from(
    recipe: type[Recipe], run: Callable[..., None], control: type[Recipe] | None = None
) -> Callable[..., None]:
    """Return a function for `typer.Typer.command` with the settings as options, and --out, --resume, --tracker, --json.

    Args:
        recipe: declares the settings.
        run: called with the given settings, and with out, resume, tracker, as_json.
        control: declares the settings if the world is one of gymnasium's.
    """
    here, there = dict(recipe.declared()), {} if control is None else dict(control.declared())
    parameters = [
        _option(name, here.get(name), there.get(name))
        for name in sorted(here | there, key=_rank)
        if (here.get(name) or there[name]).option
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


def _rank(name: str) -> int:
    """Position of an option in the help: the model and the data come first."""
    return FIRST.index(name) if name in FIRST else len(FIRST)


def _option(name: str, here: Declared | None, there: Declared | None) -> inspect.Parameter:
    declared = here or there
    assert declared is not None
    words = declared.spec.help.rstrip(".")
    if limits := declared.spec.allowed.partition("number")[2].strip():
        words += f" ({limits})"
    elif not all(word in words for word in declared.one_of):
        words += f" ({', '.join(declared.one_of)})"
    if here is None:
        words += f"; only in control, default {declared.default_in_words}."
    else:
        if name == "world" and there is not None:
            words += f"; or for control {there.spec.help}"
        words += f"; default {here.default_in_words}."
        if there is not None and there.default_in_words != here.default_in_words:
            words += f" In control: {there.default_in_words}."
    number = declared.kind in (int, float)
    kind = str if declared.kind is object or (number and declared.one_of) else declared.kind
    metavar = "|".join(["N", *declared.one_of]) if number and declared.one_of else None
    flags = (f"--{name.replace('_', '-')}",) if kind is bool and not declared.default else ()
    option = typer.Option(*flags, help=words, metavar=metavar)
    return _parameter(name, kind | None, option, None)


def _parameter(name: str, kind: Any, option: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def absolute(value: str) -> str:
    """Make an existing path absolute, so that a run can be continued from another folder; keep any other text."""
    if value in ("micro", "reviews", "tiny", "true", "model"):
        return value
    file, colon, function = value.rpartition(":")
    if colon and file.endswith(".py"):
        return f"{absolute(file)}:{function}"
    folder, at, split = value.partition("@")
    if at and path(folder).is_dir():
        return f"{absolute(folder)}@{split}"
    return str(path(value).resolve()) if path(value).exists() else value


def value_of(option: str, declared: Declared, text: str) -> Any:
    """Convert a text to a setting's value; ValueError names the option."""
    if declared.kind is bool:
        if text.lower() not in YES_NO:
            raise ValueError(f"{option} must be true or false, got {text!r}")
        return YES_NO[text.lower()]
    if declared.kind in (int, float) and text not in declared.one_of:
        try:
            return declared.kind(text)
        except ValueError:
            what = "a whole number" if declared.kind is int else "a number"
            otherwise = "".join(f" or {word}" for word in declared.one_of)
            raise ValueError(f"{option} must be {what}{otherwise}, got {text!r}") from None
    return absolute(text) if declared.path else text
