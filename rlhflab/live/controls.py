"""What a board's page must know to draw a control for every knob, and a form for what must be chosen beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhflab.core.knobs import Knob


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


@dataclass(frozen=True)
class Choice:
    """A setting that cannot change while a training runs.

    Attributes:
        label: what the form calls it.
        options: value → its name; the first one holds at the start.
        help: one line.
        always_named: whether the ghost of a run says what was chosen for the first option too.
    """

    label: str
    options: Mapping[Any, str]
    help: str = ""
    always_named: bool = False

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError(f"{self.label}: a choice needs at least one option")


class Form:
    """The choices of a board and what is chosen now."""

    def __init__(self, choices: Mapping[str, Choice]) -> None:
        self._choices = dict(choices)
        self.chosen: dict[str, Any] = {name: next(iter(choice.options)) for name, choice in choices.items()}

    def options(self, name: str) -> list[Any]:
        """The values that may be chosen; none for an unknown name."""
        return list(self._choices[name].options) if name in self._choices else []

    def choose(self, **values: Any) -> None:
        """Choose; ValueError in one line, and nothing chosen, where a value is not among the options."""
        for name, value in values.items():
            if name not in self._choices:
                raise ValueError(f"unknown choice {name!r}; known: {', '.join(self._choices) or 'none'}")
            if value not in self._choices[name].options:
                allowed = ", ".join(map(repr, self._choices[name].options))
                raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
        self.chosen = {**self.chosen, **values}

    def describe(self) -> list[dict[str, Any]]:
        """Return one JSON-able description per choice, in order."""
        return [
            {
                "name": name,
                "label": choice.label,
                "help": choice.help,
                "options": list(choice.options.values()),
            }
            for name, choice in self._choices.items()
        ]

    def places(self) -> dict[str, int]:
        """The place of each chosen value among its options."""
        return {name: self.options(name).index(value) for name, value in self.chosen.items()}

    def words(self) -> list[str]:
        """What is chosen in words, where it is not the option of the start or is always named."""
        return [
            f"{choice.label} {choice.options[self.chosen[name]]}"
            for name, choice in self._choices.items()
            if choice.always_named or self.chosen[name] != next(iter(choice.options))
        ]
