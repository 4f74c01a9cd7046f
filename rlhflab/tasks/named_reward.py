"""A user's reward: the Python function of that name, checked before anything heavy is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from rlhflab.user_code import is_file, module_of

WANTED = "(prompts, answers), two lists of texts, and return one number for each answer"
PROMPTS, ANSWERS = ("prompt", "prompts", "queries"), ("answers", "completions", "responses")
"""Known names of the arguments; TRL calls the answers completions."""


def names_function(reward: str) -> bool:
    r"""Whether a reward's name is FILE.py:FUNCTION or MODULE:FUNCTION, and not a folder or a hub id.

    >>> names_function(r"C:\work\mine.py:score"), names_function(r"C:\models\judge"), names_function("a/b")
    (True, False, False)
    """
    where, colon, function = reward.rpartition(":")
    if is_file(reward) or is_file(where):
        return True
    return bool(colon) and function.isidentifier() and not Path(reward).exists()


def named_function(name: str) -> Callable[..., Any]:
    """The Python function named by FILE.py:FUNCTION or MODULE:FUNCTION.

    Raises:
        ValueError: no such file, module or function, or importing it fails; in one line.
    """
    where, _, function = (name, "", "") if is_file(name) else name.rpartition(":")
    module = module_of(where, f"reward {name!r} does not name a function")
    if not hasattr(module, function):
        there = ", ".join(_functions(module)) or "no function"
        raise ValueError(f"reward {name!r} does not name a function; {where} has {there}")
    found = getattr(module, function)
    if not callable(found):
        raise ValueError(f"reward {name!r} is not a function, got {type(found).__name__}")
    checked: Callable[..., Any] = found
    return checked


def require_reward(function: Callable[..., Any], name: str) -> None:
    """Raise ValueError in one line if a function cannot be called as a reward; does not call it.

    Args:
        function: to be called with (prompts, answers), two lists of texts, for one number an answer.
        name: its name in messages.
    """
    if (
        isinstance(function, type)
        or inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
    ):
        kind = "a class" if isinstance(function, type) else "not a plain function: it awaits or yields"
        raise ValueError(f"reward {name} is {kind}; it must take {WANTED}")
    if inspect.isbuiltin(function):  # some have no signature
        return
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind([], [])
    except TypeError:
        raise ValueError(f"reward {name} takes {_words(signature)}; it must take {WANTED}") from None
    first, second = [*signature.parameters, "", ""][:2]
    if first in ANSWERS or second in PROMPTS:  # they would be swapped silently
        raise ValueError(f"reward {name} takes {_words(signature)}, answers first; it must take {WANTED}")


def _words(signature: inspect.Signature) -> str:
    plain = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return str(inspect.Signature(plain))


def _functions(module: ModuleType) -> list[str]:
    """The public functions that a module defines, or if none, those that it imports."""
    public = {
        name: each for name, each in vars(module).items() if not name.startswith("_") and callable(each)
    }
    own = [name for name, each in public.items() if getattr(each, "__module__", None) == module.__name__]
    return own or list(public)
