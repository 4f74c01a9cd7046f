"""The contents of a board as data: one `Panel` per plot.

The page (static/plots.js) and the still pictures (marks.py) draw the same specifications. A panel is shown only if some
record has its series, so a new algorithm needs only its own panels; panels.py lists those of each algorithm.
Formulas are plain text; `_x`, `_{…}` and `^{…}` become subscripts and superscripts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Literal

# Okabe and Ito's colours, distinguishable with every common colour-vision deficiency: (on white, on black).
COLOURS: dict[str, tuple[str, str]] = {
    "policy": ("#00805f", "#2fd0a2"),
    "chosen": ("#0072b2", "#5bb8f0"),
    "rejected": ("#d55e00", "#ff8c42"),
    "weight": ("#a8518a", "#e08fc4"),
    "fit": ("#a87400", "#f0c040"),
    "brown": ("#6b4f3a", "#c9a58a"),
    "truth": ("#24292f", "#e6e9ec"),
    "reference": ("#8a929a", "#8a929a"),
}

Kind = Literal["lines", "weights", "heatmap", "plane", "histogram", "xy"]
ARRAY_KINDS = ("histogram", "xy")


def as_html(text: str) -> str:
    """Return a formula, caption or name as HTML: subscripts and superscripts where it has them, the rest escaped.

    >>> as_html("π_θ < π_{ref}, share^{2}, grad_norm")
    'π<sub>θ</sub> &lt; π<sub>ref</sub>, share<sup>2</sup>, grad_norm'
    """
    return re.sub(
        r"([_^])(?:\{([^}]*)\}|(?<=_)([A-Za-z0-9θφπ])(?![A-Za-z0-9_]))",
        lambda m: f"<{(tag := 'sub' if m[1] == '_' else 'sup')}>{m[2] or m[3]}</{tag}>",
        escape(text),
    )


@dataclass(frozen=True)
class Line:
    """One curve over steps, or one array of the newest record that has it.

    Attributes:
        series: name of a scalar, or exact/… for an exact value; for the kinds "histogram" and "xy" of an array.
        name: for the legend.
        colour: a key of COLOURS.
        spread: series of the standard deviation, drawn as a band of ±1 around the curve; for kind "xy" an array, drawn
            as bars if there are dots.
        right: whether it belongs to the axis on the right.
        ghost: whether earlier runs of the board leave this curve behind.
        dash: "solid", "dash" or "dot".
        x: for kind "xy" the array on the horizontal axis; "" for the indices 0, 1, 2 …
        x_spread: for kind "xy" the array of the standard deviations on that axis, drawn as bars.
        dots: for kind "xy" whether every point gets a dot, joined by the line or alone.
    """

    series: str
    name: str
    colour: str
    spread: str = ""
    right: bool = False
    ghost: bool = False
    dash: str = "solid"
    x: str = ""
    x_spread: str = ""
    dots: Literal["", "joined", "alone"] = ""


@dataclass(frozen=True)
class Upright:
    """A vertical line in a histogram, at a fixed place or at one that a knob moves: at + times · knob.

    Without a name it is dotted and absent from the legend.
    """

    name: str
    at: float
    knob: str = ""
    times: float = 0.0

    def place(self, knobs: Mapping[str, float | None]) -> float | None:
        """Return its place; None if its knob is unknown."""
        value = knobs.get(self.knob) if self.knob else 0.0
        return None if value is None else self.at + self.times * value


@dataclass(frozen=True)
class Panel:
    """One plot.

    Attributes:
        id: unique among panels.
        title: two to four words.
        caption: one line: what to look for.
        formula: the lines of formulas behind the "?".
        symbols: (symbol, meaning) of everything in the formula.
        kind: lines over steps; histogram of the pairs' weights, or their heat map; the reward–KL plane; histogram of
            any array; arrays against each other or against their indices ("xy").
        lines: the curves or arrays; a histogram has one, and may have a second one for a subset of its values.
        target: field of the backdrop whose value at the current β is a dashed line.
        reference: exact value drawn as a dotted line; for kind "xy" a scalar, at its newest value.
        range, right_range, x_range: fixed ends of the axes; None follows the data.
        y_title, right_title, x_title: axis titles in plotly's notation; "" for none.
        note: exact value written into the plot.
        knob: the knob whose changes are marked; with a target it is β.
        uprights: vertical lines in a histogram.
        identity: whether a dashed line shows where both axes agree, for kind "xy".
        log: whether the vertical axis is logarithmic, for kind "xy".
        who: the policy whose trail the plane shows.
        big: whether it takes two rows and two columns of the board.
        level: a fixed value drawn as a dashed line in stills and reports; None for none.
        report_only: whether only reports show it, as boards have no room.
    """

    id: str
    title: str
    caption: str
    formula: tuple[str, ...]
    symbols: tuple[tuple[str, str], ...]
    kind: Kind = "lines"
    lines: tuple[Line, ...] = ()
    target: str = ""
    reference: str = ""
    range: tuple[float, float] | None = None
    right_range: tuple[float, float] | None = None
    y_title: str = ""
    right_title: str = ""
    note: str = ""
    x_range: tuple[float, float] | None = None
    x_title: str = ""
    knob: str = ""
    uprights: tuple[Upright, ...] = ()
    identity: bool = False
    log: bool = False
    who: str = "π_θ"
    big: bool = False
    level: float | None = None
    report_only: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and lists, ready for json.dumps."""
        return asdict(self)

    def shown_by(self, data: Mapping[str, Any]) -> bool:
        """Whether the frame `data` has data for this panel."""
        if self.kind == "lines":
            return any(line.series in data["series"] for line in self.lines)
        if self.kind in ARRAY_KINDS:
            return any(line.series in data["arrays"] for line in self.lines)
        return {"weights": "batch", "heatmap": "heat", "plane": "trail"}[self.kind] in data


def series_of(panels: Iterable[Panel]) -> list[str]:
    """Return the names of all series that the panels draw, each once."""
    lines = [line for panel in panels if panel.kind not in ARRAY_KINDS for line in panel.lines]
    return list(dict.fromkeys(name for line in lines for name in (line.series, line.spread) if name))


def arrays_of(panels: Iterable[Panel]) -> list[str]:
    """Return the names of all arrays that the panels draw, each once."""
    lines = [line for panel in panels if panel.kind in ARRAY_KINDS for line in panel.lines]
    names = (name for line in lines for name in (line.series, line.x, line.spread, line.x_spread))
    return list(dict.fromkeys(name for name in names if name))


def ghost_series(panels: Iterable[Panel]) -> list[str]:
    """Return the names of the series that earlier runs leave behind."""
    return [line.series for panel in panels for line in panel.lines if line.ghost]
