"""What a still picture of a board shows: marks, made from the panels' specifications and one frame of a history.

They say nothing of who draws them; `plots.still` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhflab.core.record import Backdrop
from rlhflab.plots.drawing import in_bins
from rlhflab.plots.panel import COLOURS, Line, Panel

Numbers = Sequence[float | None]


@dataclass(frozen=True)
class Scene:
    """What there is to draw: panels, one frame of a history, the exact truth, the β in force, former runs."""

    panels: Sequence[Panel]
    data: dict[str, Any]
    backdrop: Backdrop | None = None
    beta: float | None = None
    ghosts: Sequence[dict[str, Any]] = ()

    def shown(self) -> list[Panel]:
        """Return the panels that have something to show."""
        return [panel for panel in self.panels if panel.shown_by(self.data)]


@dataclass(frozen=True)
class Mark:
    """One thing to draw: a stroke, a band (y to y2), bars, a heat map (z over edges x) or dots."""

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


@dataclass
class Plot:
    """The marks of one panel and the ends of its axes."""

    panel: Panel
    marks: list[Mark] = field(default_factory=list)
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)
    right_range: tuple[float, float] | None = None
    log: bool = False


def colour(name: str) -> str:
    """Return the colour of a role on white."""
    return COLOURS[name][0]


def marks(panel: Panel, scene: Scene) -> Plot:
    """Return what `panel` shows of `scene`."""
    plot = Plot(panel)
    makers = {
        "lines": _lines, "weights": _weights, "heatmap": _heatmap, "plane": _plane, "histogram": _histogram, "xy": _xy,
    }  # fmt: skip
    makers[panel.kind](plot, scene)
    return plot


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
    across = [0.0, end]
    if panel.reference and panel.reference in data["exact"]:
        level = data["exact"][panel.reference]
        plot.marks.append(
            Mark("stroke", across, [level] * 2, name="π_ref", colour=colour("reference"), dash="dot")
        )
    if panel.target and scene.backdrop is not None and scene.beta and scene.backdrop.knows(scene.beta):
        level = getattr(scene.backdrop.at(scene.beta), panel.target)
        name = f"π* at β = {scene.beta:.3g}"
        plot.marks.append(Mark("stroke", across, [level] * 2, name=name, colour=colour("truth"), dash="dash"))
    for line in panel.lines:
        entry = data["series"].get(line.series)
        if entry is None:
            continue
        x, y = data["x"][entry["x"]], entry["y"]
        spread = data["series"].get(line.spread)
        if spread is not None and len(spread["y"]) == len(y):
            low = [None if a is None or b is None else a - b for a, b in zip(y, spread["y"], strict=True)]
            high = [None if a is None or b is None else a + b for a, b in zip(y, spread["y"], strict=True)]
            plot.marks.append(
                Mark("band", x, low, high, colour=colour(line.colour), opacity=0.18, right=line.right)
            )
        elif not line.spread and "lo" in entry:
            band = Mark(
                "band",
                x,
                entry["lo"],
                entry["hi"],
                colour=colour(line.colour),
                opacity=0.15,
                right=line.right,
            )
            plot.marks.append(band)
        plot.marks.append(_stroke(x, y, line, name=line.name))
    plot.x_range = (0.0, end)
    plot.y_range = panel.range or _range(m for m in plot.marks if not m.right)
    if any(line.right for line in panel.lines):
        plot.right_range = panel.right_range or _range(m for m in plot.marks if m.right)


def _stroke(x: Numbers, y: Numbers, line: Line, **settings: Any) -> Mark:
    return Mark("stroke", x, y, colour=colour(line.colour), right=line.right, dash=line.dash, **settings)


def _histogram(plot: Plot, scene: Scene) -> None:
    line, *parts = plot.panel.lines
    arrays = scene.data["arrays"]
    some = arrays.get(parts[0].series, {"y": ()})["y"] if parts else ()
    places = [
        place for upright in plot.panel.uprights if (place := upright.place(scene.data["knobs"])) is not None
    ]
    centres, shares, plot.x_range, held = in_bins(arrays[line.series]["y"], places, some)
    plot.y_range = (0.0, 1.1 * max(shares, default=1.0))
    for own, heights in zip(plot.panel.lines, (shares, held), strict=False):
        plot.marks.append(Mark("bars", centres, heights, name=own.name, colour=colour(own.colour)))
    for place in places:
        plot.marks.append(
            Mark("stroke", [place, place], plot.y_range, colour=colour("truth"), dash="dot", width=1.2)
        )


def _xy(plot: Plot, scene: Scene) -> None:
    panel, arrays = plot.panel, scene.data["arrays"]
    for line in panel.lines:
        if line.series not in arrays:
            continue
        y = arrays[line.series]["y"]
        x = arrays[line.x]["y"] if line.x in arrays else [float(at) for at in range(len(y))]
        if line.dots != "alone":
            plot.marks.append(_stroke(x, y, line, name=line.name))
        if line.dots:
            size = 4.0 if line.dots == "alone" else 6.0
            plot.marks.append(
                Mark("dots", x, y, name=line.name, colour=colour(line.colour), width=size, right=line.right)
            )
    ends = _range(m for m in plot.marks if not m.right)
    across = [value for m in plot.marks for value in m.x if value is not None]
    plot.x_range = panel.x_range or (min(across, default=0.0), max(across, default=1.0))
    plot.y_range, plot.log = panel.range or ends, panel.log
    if any(line.right for line in panel.lines):
        plot.right_range = panel.right_range or _range(m for m in plot.marks if m.right)
    level = scene.data["last"].get(panel.reference)
    if level is not None:
        plot.y_range = (min(plot.y_range[0], 0.0), max(plot.y_range[1], 1.1 * level))
        plot.marks.append(Mark("stroke", plot.x_range, [level] * 2, colour=colour("reference"), dash="dot"))
    if panel.identity:
        low, high = max(plot.x_range[0], plot.y_range[0]), min(plot.x_range[1], plot.y_range[1])
        plot.marks.append(Mark("stroke", [low, high], [low, high], colour=colour("truth"), dash="dash"))
    if plot.log:
        values = [v for m in plot.marks for v in m.y if v is not None and v > 0]
        plot.y_range = (0.8 * min(values, default=0.1), 1.25 * max(values, default=1.0))


def _weights(plot: Plot, scene: Scene) -> None:
    batch = scene.data["batch"]
    bins = len(batch["clean"])
    centres = [(i + 0.5) / bins for i in range(bins)]
    top = max(a + b for a, b in zip(batch["clean"], batch["flipped"], strict=True)) * 1.1 or 1.0
    both = [a + b for a, b in zip(batch["clean"], batch["flipped"], strict=True)]
    if any(batch["flipped"]):
        plot.marks.append(Mark("bars", centres, both, name="wrong label", colour=colour("rejected")))
        plot.marks.append(Mark("bars", centres, batch["clean"], name="right label", colour=colour("weight")))
    else:
        plot.marks.append(Mark("bars", centres, both, name="pairs", colour=colour("weight")))
    plot.marks.append(
        Mark("stroke", [0.5, 0.5], [0.0, top], colour=colour("reference"), dash="dot", width=1.2)
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


def _plane(plot: Plot, scene: Scene) -> None:
    trail, backdrop = scene.data["trail"], scene.backdrop
    furthest = max([kl for kl in trail["kl"] if kl is not None], default=0.0)
    for ghost in scene.ghosts:
        furthest = max([furthest, *ghost["trail"]["kl"]])
    best = None
    if backdrop is not None and scene.beta and backdrop.knows(scene.beta):
        best = backdrop.at(scene.beta)
    right = 1.25 * max(furthest, min(best.kl, 3 * furthest + 0.5) if best else 0.0, 0.05)
    if backdrop is not None:
        errors = backdrop.reward_se or [0.0] * len(backdrop.kl)
        places = sorted(zip(backdrop.kl, backdrop.reward, errors, strict=True))
        kept = [(0.0, backdrop.ref_reward, 0.0), *(place for place in places if place[0] <= 1.3 * right)]
        kl, reward, error = zip(*kept, strict=True)
        if backdrop.reward_se:
            low, high = ([r + sign * e for r, e in zip(reward, error, strict=True)] for sign in (-1, 1))
            plot.marks.append(Mark("band", kl, low, high, colour=colour("truth"), opacity=0.15))
        plot.marks.append(Mark("stroke", kl, reward, name="frontier", colour=colour("truth"), dash="dash"))
    for ghost in scene.ghosts:
        x, y = ghost["trail"]["kl"], ghost["trail"]["reward"]
        faint = Mark("stroke", x, y, name=ghost["label"], colour=colour("policy"), opacity=0.35, width=1.0)
        plot.marks.append(faint)
    plot.marks.append(
        Mark("stroke", trail["kl"], trail["reward"], name=plot.panel.who, colour=colour("policy"), width=2.2)
    )
    plot.marks.extend(_error_bars(trail))
    plot.marks.append(Mark("dots", trail["kl"][-1:], trail["reward"][-1:], colour=colour("policy"), width=9))
    if best is not None:
        name = f"π* at β = {scene.beta:.3g}"
        diamond = Mark(
            "dots", [best.kl], [best.reward], name=name, colour=colour("truth"), symbol="diamond", width=10
        )
        plot.marks.append(diamond)
    plot.x_range = (0.0, right)
    plot.y_range = _range(m for m in plot.marks)


def _error_bars(trail: dict[str, list[float | None]]) -> list[Mark]:
    """One standard error to each side of the estimated points, of at most 15 of them."""
    if "kl_se" not in trail:
        return []
    columns = (trail[name] for name in ("kl", "reward", "kl_se", "reward_se"))
    points = [[v for v in point if v is not None] for point in zip(*columns, strict=True)]
    points = [point for point in points if len(point) == 4]
    bars = []
    for x, y, across, up in points[:: -(-len(points) // 15) or 1]:
        for xs, ys in (([x - across, x + across], [y, y]), ([x, x], [y - up, y + up])):
            bars.append(Mark("stroke", xs, ys, colour=colour("policy"), width=0.8))
    return bars


def _range(all_marks: Iterable[Mark]) -> tuple[float, float]:
    values = [v for m in all_marks for v in (*m.y, *m.y2) if v is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = 0.07 * (high - low) or 0.1 * abs(high) or 0.5
    return (low - pad if low < 0 else max(0.0, low - pad)), high + pad
