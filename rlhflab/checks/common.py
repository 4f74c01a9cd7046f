"""What all exercise checks share: try a learner's function, and see whether it gives one number each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def one_number_each(
    function: Callable[..., Any], args: tuple[Any, ...], number: int, each: str, what: str = "loss"
) -> Any:
    """Return the function's tensor of `number` values in single precision, or what is wrong as text.

    Args:
        function: the learner's.
        args: what it is called with.
        number: of values wanted.
        each: what there is one value for, in the singular: "pair".
        what: that value.
    """
    each_one = f"{'an' if each[0] in 'aeiou' else 'a'} {each}"
    try:
        losses = function(*args)
    except Exception as error:  # the learner's own code: any error is a finding
        return raised(error)
    if losses is None:
        return f"not written yet: return a tensor with one {what} {each_one}"
    if not isinstance(losses, torch.Tensor):
        return f"it returned a {type(losses).__name__}; a tensor with one {what} {each_one} is wanted"
    if losses.shape == ():
        return f"it returned one number; keep one {what} {each_one}, the mean comes later"
    if losses.shape != (number,):
        return f"it returned the shape {tuple(losses.shape)} for {number} {each}s; ({number},) is wanted"
    return losses.float()


def raised(error: Exception) -> str:
    """The learner's own error in one line."""
    return f"it raised {type(error).__name__}: {str(error).partition(chr(10))[0]}"


def say(verdict: str, praise: str) -> bool:
    """Print what was found, and return whether nothing was."""
    print(f"✗ {verdict}" if verdict else f"✓ {praise}")
    return not verdict


def differ(losses: torch.Tensor, expected: tuple[float, ...], where: str) -> str:
    """The words for a mistake nobody knows."""
    found, wanted = ([f"{x:.4f}" for x in row] for row in (losses.tolist(), expected))
    return f"for {where} it gives {found}; by hand it is {wanted}"
