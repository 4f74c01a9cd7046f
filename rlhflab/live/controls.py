"""What a board's page must know to draw a control for every knob, a menu for every choice, and the exact truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rlhflab.algorithms.knobs import Knob
from rlhflab.algorithms.record import Backdrop
from rlhflab.runs.buckets import rounded


def describe(specs: Mapping[str, Knob]) -> list[dict[str, Any]]:
    """Return one JSON-able description per knob, in order; no limit is None."""
    return [
        {
            "name": name,
            "label": knob.label or name.replace("_", " "),
            "help": knob.help,
            "default": knob.default,
            "low": knob.low,
            "high": knob.high,
            "log": knob.log,
            "above": knob.above,
            "at_least": knob.at_least,
            "whole": knob.whole,
            "allowed": knob.allowed,
            "at_most": knob.at_most if math.isfinite(knob.at_most) else None,
        }
        for name, knob in specs.items()
    ]


class Choices:
    """What a run is made with, one of a few words each; the first is chosen until somebody takes another.

    Args:
        allowed: name → words.

    Attributes:
        chosen: name → word.
    """

    def __init__(self, allowed: Mapping[str, Sequence[str]]) -> None:
        self._allowed = {name: tuple(words) for name, words in allowed.items()}
        self.chosen = {name: words[0] for name, words in self._allowed.items()}

    def check(self, name: str, word: str) -> None:
        """Raise ValueError in one line where there is no such choice."""
        if name not in self._allowed:
            raise ValueError(f"unknown choice {name}; known: {', '.join(self._allowed) or 'none'}")
        if word not in self._allowed[name]:
            raise ValueError(f"{name} must be one of {', '.join(self._allowed[name])}, got {word!r}")

    def describe(self) -> list[dict[str, Any]]:
        """Return one JSON-able description per choice, in order."""
        return [
            {"name": name, "label": name.replace("_", " "), "words": list(words), "chosen": self.chosen[name]}
            for name, words in self._allowed.items()
        ]


class Dials:
    """Who turned which knob last, so that no page fights with the person who drags.

    Every move gets a number and the name of the page it came from. A page follows a value only where its number is
    new and it came from elsewhere; so the kernel never writes to a control that is being dragged. A value that changes
    without a move was turned by the algorithm: it was built with another than the default, or adapts it.
    """

    def __init__(self) -> None:
        self._moves: dict[str, tuple[int, str]] = {}
        self._shown: dict[str, tuple[float, int]] = {}  # value and number of the move in the last frame

    def moved(self, name: str, by: str = "python") -> None:
        """Note that `by` turned the knob."""
        number, _ = self._moves.get(name, (0, ""))
        self._moves[name] = (number + 1, by)

    def frame(self, values: Mapping[str, float]) -> dict[str, dict[str, Any]]:
        """Return what a frame says of the knobs: value, number of the move, who moved."""
        frame = {}
        for name, value in values.items():
            number, by = self._moves.get(name, (0, ""))
            value_shown, number_shown = self._shown.get(name, (value, number))
            if value != value_shown and number == number_shown:
                number, by = self._moves[name] = number + 1, "algorithm"
            self._shown[name] = value, number
            frame[name] = {"value": value, "rev": number, "by": by}
        return frame


def describe_backdrop(backdrop: Backdrop) -> dict[str, Any]:
    """Return the frontier, JSON-able: ascending β, at most 200 points, 5 digits."""
    n = len(backdrop.beta)
    step = max(1, -(-n // 200))
    chosen = sorted({*range(0, n, step), n - 1})
    data: dict[str, Any] = {
        name: [rounded(getattr(backdrop, name)[i]) for i in chosen]
        for name in ("beta", "kl", "reward", "objective", *(("kl_se", "reward_se") if backdrop.kl_se else ()))
    }
    if any(b <= a for a, b in pairwise(backdrop.beta)):
        raise ValueError("a backdrop's beta must ascend")
    data["ref_reward"] = rounded(backdrop.ref_reward)
    return data
