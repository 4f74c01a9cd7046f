"""The contents of a plot as marks, made from a panel's specification and one frame of a history.

Marks do not depend on the renderer: `still` draws plotly figures, `svg` and `paper` write files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhflab.core.record import Backdrop
from rlhflab.plots.buckets import evenly
from rlhflab.plots.panel import COLOURS, Line, Panel

Numbers = Sequence[float | None]

_DOTTED = 40  # a trail with more points than this has no dot at each
_BARS = 15  # most error bars of one trail or curve


@dataclass(frozen=True)
class Scene:
    """Everything to draw.

    Attributes:
        panels: the plots.
        data: one frame of a history.
        backdrop: the truth behind the curves, if known.
        beta: the β in force, or None.
        ghosts: earlier runs, as `live.ghosts` keeps them.
        turns: (step, β) wherever β changed, the first value included; () for `beta` throughout.
    """

    panels: Sequence[Panel]
    data: dict[str, Any]
    backdrop: Backdrop | None = None
    beta: float | None = None
    ghosts: Sequence[dict[str, Any]] = ()
    turns: Sequence[tuple[int, float]] = ()

    def shown(self) -> list[Panel]:
        """Return the panels that have something to show."""
        return [panel for panel in self.panels if panel.shown_by(self.data)]


@dataclass(frozen=True)
class Mark:
    """One thing to draw: a stroke, a band (y to y2), bars, a heat map (z over edges x) or dots.

    Attributes:
        name: for a legend; "" for none.
        colour: as #rrggbb, on white.
        right: whether it belongs to the axis on the right.
        x_error, y_error: standard errors of dots.
        text: a text for each dot, shown on hovering.
        labelled: whether the texts are also written beside the dots.
    """

    kind: str
    x: Numbers
    y: Numbers = ()
    y2: Numbers = ()
    z: Sequence[Sequence[float]] = ()
    name: str = ""
    colour: str = ""
    dash: str = "solid"
    width: float = 1.8
    opacity: float = 1.0
    right: bool = False
    symbol: str = "circle"
    x_error: Numbers = ()
    y_error: Numbers = ()
    text: Sequence[str] = ()
    labelled: bool = False


@dataclass
class Plot:
    """The marks of one panel and its axes.

    Attributes:
        step: of the newest array or batch that is shown; None for curves over steps.
        x_ticks: (position, label) on the horizontal axis; () for ordinary numbers.
        x_log: whether that axis is logarithmic.
    """

    panel: Panel
    marks: list[Mark] = field(default_factory=list)
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)
    right_range: tuple[float, float] | None = None
    log: bool = False
    step: int | None = None
    x_ticks: Sequence[tuple[float, str]] = ()
    x_log: bool = False


def colour(name: str) -> str:
    """Return the colour of a role on a white background."""
    return COLOURS[name][0]


def marks(panel: Panel, scene: Scene) -> Plot:
    """Return what `panel` shows of `scene`."""
    plot = Plot(panel)
    makers = {
        "lines": _lines, "weights": _weights, "heatmap": _heatmap, "plane": _plane, "histogram": _histogram, "xy": _xy,
    }  # fmt: skip
    makers[panel.kind](plot, scene)
    return plot


def axis_titles(plot: Plot) -> tuple[str, str, str]:
    """The titles below, on the left and on the right, as HTML; "" for none."""
    panel = plot.panel
    below = panel.x_title or ("step" if panel.kind in ("lines", "heatmap") else "")
    return below, panel.y_title, panel.right_title if plot.right_range is not None else ""


def ends(all_marks: Iterable[Mark]) -> tuple[float, float]:
    """The vertical range of the marks, with a little margin."""
    values = [v for m in all_marks for v in (*m.y, *m.y2) if v is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = 0.07 * (high - low) or 0.1 * abs(high) or 0.5
    return (low - pad if low < 0 else max(0.0, low - pad)), high + pad


def in_bins(
    values: Numbers, uprights: Sequence[float] = (), some: Numbers = (), bins: int = 40
) -> tuple[list[float], list[float], tuple[float, float], list[float]]:
    """Histogram from the 2 % to the 98 % quantile, widened to hold all uprights; the outer bins hold the rest.

    Returns:
        centres of the bins, percentage of the values in each, the ends, and the same percentages for `some` of them.
    """
    finite = sorted(value for value in values if value is not None and math.isfinite(value))
    if not finite:
        return [], [], (0.0, 1.0), []
    last = len(finite) - 1
    low = min([finite[round(0.02 * last)], *uprights])
    high = max([finite[round(0.98 * last)], *uprights])
    pad = 0.15 * (high - low) or 0.5
    low, width = low - pad, (high - low + 2 * pad) / bins

    def percentages(part: Numbers) -> list[float]:
        counts = [0] * bins
        for value in part:
            if value is not None and math.isfinite(value):
                counts[min(bins - 1, max(0, int((value - low) / width)))] += 1
        return [100 * count / len(finite) for count in counts]

    centres = [low + (i + 0.5) * width for i in range(bins)]
    return centres, percentages(finite), (low, low + bins * width), percentages(some)


def frontier(backdrop: Backdrop, reach: float, name: str = "frontier") -> list[Mark]:
    """The largest attainable reward at every KL, from π_ref to just beyond the KL `reach`, with its errors."""
    errors = backdrop.reward_se or [0.0] * len(backdrop.kl)
    places = sorted(zip(backdrop.kl, backdrop.reward, errors, strict=True))
    inside = sum(kl <= reach for kl, _, _ in places)
    kl, reward, error = zip(*[(0.0, backdrop.ref_reward, 0.0), *places[: inside + 1]], strict=True)
    truth = colour("truth")
    drawn = []
    if backdrop.reward_se:
        name = f"{name}, estimate ± its error"
        drawn.append(_band(kl, reward, error, truth, 0.15))
    return [*drawn, Mark("stroke", kl, reward, name=name, colour=truth, dash="dash")]


def _band(x: Numbers, y: Numbers, spread: Numbers, own: str, opacity: float, right: bool = False) -> Mark:
    both = list(zip(y, spread, strict=True))
    low, high = ([None if a is None or b is None else a + sign * b for a, b in both] for sign in (-1, 1))
    return Mark("band", x, low, high, colour=own, opacity=opacity, right=right)


def _stroke(x: Numbers, y: Numbers, line: Line, **settings: Any) -> Mark:
    return Mark("stroke", x, y, colour=colour(line.colour), right=line.right, dash=line.dash, **settings)


# ---- curves over steps -------------------------------------------------------------------------------------------


def _lines(plot: Plot, scene: Scene) -> None:
    panel, data = plot.panel, scene.data
    end = float(max(data["step"], 1))
    for ghost in scene.ghosts:
        for line in panel.lines:
            if line.ghost and line.series in ghost["series"]:
                points = ghost["series"][line.series]
                end = max(end, points["x"][-1])
                plot.marks.append(
                    _stroke(points["x"], points["y"], line, name=ghost["label"], opacity=0.35, width=1.0)
                )
    level = data["exact"].get(panel.reference)
    if level is None and panel.reference and scene.backdrop is not None and not scene.backdrop.reward_se:
        level = getattr(scene.backdrop, panel.reference)
    if level is not None:
        grey = colour("reference")
        plot.marks.append(Mark("stroke", [0.0, end], [level] * 2, name="π_{ref}", colour=grey, dash="dot"))
    plot.marks.extend(_target(panel, scene, end))
    for line in panel.lines:
        entry = data["series"].get(line.series)
        if entry is None:
            continue
        x, y, own = data["x"][entry["x"]], entry["y"], colour(line.colour)
        spread = data["series"].get(line.spread)
        if spread is not None and len(spread["y"]) == len(y):
            plot.marks.append(_band(x, y, spread["y"], own, 0.18, line.right))
        elif not line.spread and "lo" in entry:
            extrema = Mark("band", x, entry["lo"], entry["hi"], colour=own, opacity=0.15, right=line.right)
            plot.marks.append(extrema)
        plot.marks.append(_stroke(x, y, line, name=line.name))
    if panel.level is not None:
        plot.marks.append(
            Mark("stroke", [0.0, end], [panel.level] * 2, colour=colour("truth"), dash="dash", width=1.2)
        )
    plot.x_range = (0.0, end)
    plot.y_range = panel.range or ends(m for m in plot.marks if not m.right)
    if any(line.right for line in panel.lines):
        plot.right_range = panel.right_range or ends(m for m in plot.marks if m.right)
    knob = "beta" if panel.target else panel.knob
    for step in [step for step, name, _ in data["changes"] if name == knob]:
        grey = colour("reference")
        plot.marks.append(Mark("stroke", [step, step], plot.y_range, colour=grey, dash="dot", width=1.0))


def _target(panel: Panel, scene: Scene, end: float) -> list[Mark]:
    """The optimum for the β in force: a level, or a staircase if β was changed."""
    if not panel.target or scene.backdrop is None:
        return []
    turns = scene.turns or ([(0, scene.beta)] if scene.beta else [])
    steps: list[float | None] = []
    levels: list[float | None] = []
    for (step, beta), (until, _) in zip(turns, [*turns[1:], (end, None)], strict=True):
        if scene.backdrop.knows(beta):
            steps += [step, until]
            levels += [getattr(scene.backdrop.at(beta), panel.target)] * 2
        else:
            steps, levels = [*steps, step], [*levels, None]
    if not any(level is not None for level in levels):
        return []
    name = "π*, estimate" if scene.backdrop.reward_se else "π*"
    name += " at the β in force" if len(turns) > 1 else f" at β = {turns[0][1]:.3g}"
    return [Mark("stroke", steps, levels, name=name, colour=colour("truth"), dash="dash")]


# ---- batches, and arrays -----------------------------------------------------------------------------------------


def _histogram(plot: Plot, scene: Scene) -> None:
    line, *parts = plot.panel.lines
    arrays = scene.data["arrays"]
    some = arrays.get(parts[0].series, {"y": ()})["y"] if parts else ()
    uprights = plot.panel.uprights
    places = [(u.name, place) for u in uprights if (place := u.place(scene.data["knobs"])) is not None]
    plot.step = arrays[line.series]["step"]
    centres, every, plot.x_range, part = in_bins(arrays[line.series]["y"], [at for _, at in places], some)
    plot.y_range = (0.0, 1.1 * max(every, default=1.0))
    for own, heights in zip(plot.panel.lines, (every, part), strict=False):
        plot.marks.append(Mark("bars", centres, heights, name=own.name, colour=colour(own.colour)))
    for name, place in places:
        ink, dash = (colour("truth"), "dash") if name else (colour("reference"), "dot")
        plot.marks.append(
            Mark("stroke", [place] * 2, plot.y_range, name=name, colour=ink, dash=dash, width=1.2)
        )


def _xy(plot: Plot, scene: Scene) -> None:
    panel, arrays = plot.panel, scene.data["arrays"]
    for line in panel.lines:
        if line.series in arrays:
            plot.step = arrays[line.series]["step"]
            plot.marks.extend(_columns(line, arrays))
    range_of_marks = ends(m for m in plot.marks if not m.right)
    across = [value for m in plot.marks for value in m.x if value is not None]
    low, high = min(across, default=0.0), max(across, default=1.0)
    pad = 0.04 * (high - low)
    plot.x_range = panel.x_range or (low - pad, high + pad)
    plot.y_range, plot.log = panel.range or range_of_marks, panel.log
    if any(line.right for line in panel.lines):
        plot.right_range = panel.right_range or ends(m for m in plot.marks if m.right)
    level = scene.data["last"].get(panel.reference)
    if level is not None:
        plot.y_range = (min(plot.y_range[0], 0.0), max(plot.y_range[1], 1.1 * level))
        grey = colour("reference")
        plot.marks.append(Mark("stroke", plot.x_range, [level] * 2, name="δ", colour=grey, dash="dot"))
    if panel.identity:
        both = [max(plot.x_range[0], plot.y_range[0]), min(plot.x_range[1], plot.y_range[1])]
        plot.marks.append(Mark("stroke", both, both, name="equal", colour=colour("truth"), dash="dash"))
    if plot.log:
        values = [v for m in plot.marks for v in m.y if v is not None and v > 0]
        plot.y_range = (0.8 * min(values, default=0.1), 1.25 * max(values, default=1.0))


def _columns(line: Line, arrays: dict[str, Any]) -> Iterable[Mark]:
    """One array against another, or against its indices; errors are bars if there are dots, else a band."""
    y, own = arrays[line.series]["y"], colour(line.colour)
    x = arrays[line.x]["y"] if line.x in arrays else [float(at) for at in range(len(y))]
    y_error, x_error = (arrays.get(name, {"y": ()})["y"] for name in (line.spread, line.x_spread))
    bars = bool(x_error) or bool(line.dots)
    if y_error and not bars:
        yield _band(x, y, y_error, own, 0.15, line.right)
    if line.dots != "alone":
        yield _stroke(x, y, line, name=line.name)
    if line.dots or (bars and (x_error or y_error)):
        yield Mark(
            "dots", x, y, colour=own, right=line.right, name="" if line.dots != "alone" else line.name,
            width={"alone": 4.0, "joined": 6.0, "": 2.0}[line.dots], x_error=x_error, y_error=y_error if bars else (),
        )  # fmt: skip


def _weights(plot: Plot, scene: Scene) -> None:
    batch = scene.data["batch"]
    plot.step = batch["step"]
    bins = len(batch["clean"])
    centres = [(i + 0.5) / bins for i in range(bins)]
    both = [a + b for a, b in zip(batch["clean"], batch["flipped"], strict=True)]
    top = 1.1 * max(both) or 1.0
    if any(batch["flipped"]):
        plot.marks.append(Mark("bars", centres, both, name="wrong label", colour=colour("rejected")))
        plot.marks.append(Mark("bars", centres, batch["clean"], name="right label", colour=colour("weight")))
    else:
        plot.marks.append(Mark("bars", centres, both, name="pairs", colour=colour("weight")))
    plot.marks.append(
        Mark("stroke", [0.5, 0.5], [0.0, top], name="½", colour=colour("reference"), dash="dot", width=1.2)
    )
    plot.y_range = (0.0, top)


def _heatmap(plot: Plot, scene: Scene) -> None:
    heat = scene.data["heat"]
    edges = [0.0, *heat["x"]]
    plot.marks.append(Mark("heat", edges, z=heat["z"], colour=colour("weight")))
    plot.x_range = (0.0, edges[-1])
    plot.marks.append(
        Mark("stroke", plot.x_range, [0.5, 0.5], colour=colour("reference"), dash="dot", width=1.2)
    )


# ---- the reward–KL plane -----------------------------------------------------------------------------------------


def _plane(plot: Plot, scene: Scene) -> None:
    trail, backdrop, own = scene.data["trail"], scene.backdrop, colour("policy")
    furthest = max([kl for kl in trail["kl"] if kl is not None], default=0.0)
    for ghost in scene.ghosts:
        furthest = max([furthest, *ghost["trail"]["kl"]])
    best = None
    if backdrop is not None and scene.beta and backdrop.knows(scene.beta):
        best = backdrop.at(scene.beta)
    aim = min(best.kl, max(3 * furthest, furthest + 2.5)) if best else 0.0
    right = 1.25 * max(furthest, aim, 0.05)
    if backdrop is not None:
        plot.marks.extend(frontier(backdrop, right))
        start = Mark(
            "dots", [0.0], [backdrop.ref_reward], name="π_{ref}", colour=colour("reference"), width=7
        )
        plot.marks.append(start)
    for ghost in scene.ghosts:
        x, y = ghost["trail"]["kl"], ghost["trail"]["reward"]
        plot.marks.append(Mark("stroke", x, y, name=ghost["label"], colour=own, opacity=0.35, width=1.0))
    plot.marks.append(
        Mark("stroke", trail["kl"], trail["reward"], name=plot.panel.who, colour=own, width=2.2)
    )
    plot.marks.extend(_dotted(trail, own))
    plot.marks.append(
        Mark(
            "dots", trail["kl"][-1:], trail["reward"][-1:], name=f"{plot.panel.who} now", colour=own, width=9
        )
    )
    if best is not None:
        name, truth = f"π* at β = {scene.beta:.3g}", colour("truth")
        plot.marks.append(
            Mark("dots", [best.kl], [best.reward], name=name, colour=truth, symbol="diamond", width=10)
        )
    plot.x_range = (-0.015 * right, right)
    plot.y_range = ends(plot.marks)


def _dotted(trail: dict[str, list[float | None]], own: str) -> Iterable[Mark]:
    """A dot at every evaluation, if there are few, with ±1 standard error for estimates."""
    names = [name for name in ("step", "kl", "reward", "kl_se", "reward_se") if name in trail]
    points = [point for point in zip(*(trail[name] for name in names), strict=True) if None not in point]
    most = _BARS if "kl_se" in trail else _DOTTED
    if not points or ("kl_se" not in trail and len(points) > most):
        return
    step, x, y, *errors = zip(*evenly(points, most), strict=True)
    x_error, y_error = errors or ((), ())
    words = [f"step {at}" for at in step]
    yield Mark("dots", x, y, colour=own, width=4.0, x_error=x_error, y_error=y_error, text=words)
