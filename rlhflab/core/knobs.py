"""Knobs: the few values that can be changed while an algorithm runs.

A slider writes `knobs.beta = 0.3`; the algorithm takes one `snapshot()` at the start of its next step and its record
carries those values. A write is validated, so a running loop never sees a bad value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Range:
    """Which numbers are allowed.

    Attributes:
        above: every value must be greater than this; None for no such limit.
        at_least: if given, every value must be at least this, and `above` is ignored.
        at_most: every value must be at most this.
        whole: whether only whole numbers are allowed.
    """

    above: float | None = None
    at_least: float | None = None
    at_most: float = math.inf
    whole: bool = False

    @property
    def allowed(self) -> str:
        """What a value must be, in words: "a number > 0", "a whole number ≥ 1 and ≤ 20"."""
        low = "" if self.above is None else f" > {self.above:g}"
        low = low if self.at_least is None else f" ≥ {self.at_least:g}"
        high = f" ≤ {self.at_most:g}" if self.at_most < math.inf else ""
        return f"a {'whole ' if self.whole else ''}number{low}{' and' * bool(low and high)}{high}"

    def validate(self, name: str, value: Any) -> float:
        """Return `value` as a float; raise ValueError in one line if it is not allowed."""
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{name} must be {self.allowed}, got {value!r}") from None
        if self.at_least is None:
            high_enough = self.above is None or number > self.above
        else:
            high_enough = number >= self.at_least
        fits = math.isfinite(number) and high_enough and number <= self.at_most
        if not fits or (self.whole and number != round(number)):
            raise ValueError(f"{name} must be {self.allowed}, got {value!r}")
        return number


@dataclass(frozen=True)
class Knob(Range):
    """A knob: its default, its allowed range and how a slider shows it.

    Attributes:
        default: value when none is given.
        low, high: ends of the slider (the number box accepts more, within the allowed range).
        log: whether the slider is logarithmic.
        label, help: one or two words beside the slider, and one sentence of explanation.
    """

    default: float
    low: float
    high: float
    above: float | None = field(default=0.0, kw_only=True)
    log: bool = field(default=True, kw_only=True)
    label: str = field(default="", kw_only=True)
    help: str = field(default="", kw_only=True)


class Knobs:
    """Values of knobs by name; attributes of these names are validated on write.

    A subclass lists its knobs in `specs`; those of a declared training are made by `Settings.knobs`.

    Args:
        specs: name → knob, unless a subclass lists them.
        values: values of some of them; the others keep their defaults.

    >>> class Example(Knobs):
    ...     specs = {"beta": Knob(default=0.1, low=0.01, high=10.0)}
    >>> knobs = Example(beta=1)
    >>> knobs.beta = 0.3
    >>> knobs.snapshot()
    {'beta': 0.3}
    >>> knobs.beta = -1
    Traceback (most recent call last):
    ValueError: beta must be a number > 0, got -1
    """

    specs: ClassVar[Mapping[str, Knob]] = {}

    def __init__(self, specs: Mapping[str, Knob] | None = None, /, **values: float) -> None:
        if specs is not None:
            object.__setattr__(self, "specs", dict(specs))
        for name, spec in self.specs.items():
            setattr(self, name, values.pop(name, spec.default))
        if values:
            raise ValueError(f"unknown knob {', '.join(sorted(values))}; known: {', '.join(self.specs)}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.specs:
            raise ValueError(f"unknown knob {name}; known: {', '.join(self.specs)}")
        object.__setattr__(self, name, self.specs[name].validate(name, value))

    def __getattr__(self, name: str) -> float:  # only for type checkers and unknown names
        raise AttributeError(f"unknown knob {name}; known: {', '.join(self.specs)}")

    def snapshot(self) -> dict[str, float]:
        """Return all values as a new dict, name → value."""
        return {name: getattr(self, name) for name in self.specs}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v:g}' for k, v in self.snapshot().items())})"
