"""What a board's page needs to draw a control for every knob, and a form for settings that are chosen beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhflab.core.knobs import Knob


def describe(specs: Mapping[str, Knob]) -> list[dict[str, Any]]:
    """Return one JSON-serialisable description per knob, in order; None stands for no limit."""
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
    """Who moved which knob last, so that no page fights the user while a slider is dragged.

    Every move gets a number and the name of the page it came from. A page follows a value only if its number is new and
    it came from elsewhere; so the kernel never writes to a control that is being dragged. A value that changes without
    a move was changed by the algorithm: it was built with a value other than the default, or adapts it.
    """

    def __init__(self) -> None:
        self._moves: dict[str, tuple[int, str]] = {}
        self._shown: dict[str, tuple[float, int]] = {}  # value and number of the move in the last frame

    def moved(self, name: str, by: str = "python") -> None:
        """Note that `by` moved the knob."""
        number, _ = self._moves.get(name, (0, ""))
        self._moves[name] = (number + 1, by)

    def frame(self, values: Mapping[str, float]) -> dict[str, dict[str, Any]]:
        """Return the knobs as a frame carries them: value, number of the move, who moved."""
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
        label: its label in the form.
        options: value → its name; the first one is chosen at the start.
        help: one line.
        always_named: whether a run's ghost is labelled with the choice even if it is the first option.
    """

    label: str
    options: Mapping[Any, str]
    help: str = ""
    always_named: bool = False

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError(f"{self.label}: a choice needs at least one option")


class Form:
    """The choices of a board and their current values."""

    def __init__(self, choices: Mapping[str, Choice]) -> None:
        self._choices = dict(choices)
        self.chosen: dict[str, Any] = {name: next(iter(choice.options)) for name, choice in choices.items()}

    def options(self, name: str) -> list[Any]:
        """The values that may be chosen; none for an unknown name."""
        return list(self._choices[name].options) if name in self._choices else []

    def choose(self, **values: Any) -> None:
        """Choose values; if one is not among the options, ValueError in one line and nothing is changed."""
        for name, value in values.items():
            if name not in self._choices:
                raise ValueError(f"unknown choice {name!r}; known: {', '.join(self._choices) or 'none'}")
            if value not in self._choices[name].options:
                allowed = ", ".join(map(repr, self._choices[name].options))
                raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
        self.chosen = {**self.chosen, **values}

    def describe(self) -> list[dict[str, Any]]:
        """Return one JSON-serialisable description per choice, in order."""
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
        """The index of each chosen value among its options."""
        return {name: self.options(name).index(value) for name, value in self.chosen.items()}

    def words(self) -> list[str]:
        """The choices in words: those that differ from the first option or are always named."""
        return [
            f"{choice.label} {choice.options[self.chosen[name]]}"
            for name, choice in self._choices.items()
            if choice.always_named or self.chosen[name] != next(iter(choice.options))
        ]
