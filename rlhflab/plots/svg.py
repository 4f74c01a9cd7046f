"""Plots as an SVG, for pages without kernel or scripts, and for papers: no scripts, no texts of models."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape

from rlhflab.plots.buckets import evenly
from rlhflab.plots.marks import Mark, Numbers, Plot, Scene, axis_titles, marks
from rlhflab.plots.panel import as_html

_WIDTH, _HEIGHT = 310, 220  # of one panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 42, 24, 34  # margins inside it, below the legend
_LETTER, _LINE = 5.2, 12  # width of a letter of the legend, height of a line
_DASHES = {"dash": "5 3", "dot": "1.5 3"}
_SUB = {"<sub>": '<tspan dy="2" font-size="7">', "<sup>": '<tspan dy="-3" font-size="7">'}
_BACK = {
    "</sub>": '</tspan><tspan dy="-2">&#8203;</tspan>',
    "</sup>": '</tspan><tspan dy="3">&#8203;</tspan>',
}


def picture(scene: Scene, title: str = "") -> str:
    """Return the scene as an SVG of at most about 20 kB, to be kept in a notebook."""
    for points in (36, 26, 16, 10):
        drawn = svg(scene, title, points)
        if len(drawn) <= 20_000:
            break
    return drawn


def svg(scene: Scene, title: str = "", points: int = 1000, columns: int = 4) -> str:
    """Return the scene as an SVG.

    Args:
        scene: panels without data are left out.
        title: heading; "" for none.
        points: most points of one curve.
        columns: most panels side by side.
    """
    panels = scene.shown()
    columns = min(columns, max(1, len(panels)))
    rows = -(-len(panels) // columns)
    head = 26 if title else 6
    width, height = columns * _WIDTH, rows * _HEIGHT + head
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui,sans-serif" font-size="10" fill="#57606a">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    if title:
        parts.append(
            f'<text x="12" y="18" font-size="14" font-weight="600" fill="#24292f">{escape(title)}</text>'
        )
    for number, panel in enumerate(panels):
        x, y = number % columns * _WIDTH, number // columns * _HEIGHT + head
        parts.append(f'<g transform="translate({x} {y})">{_panel(marks(panel, scene), points)}</g>')
    return "".join([*parts, "</svg>"])


class _Frame:
    """Maps a plot's values to places in its panel."""

    def __init__(self, plot: Plot, top: float) -> None:
        self.plot = plot
        self.left, self.right, self.top, self.bottom = _LEFT, _WIDTH - _RIGHT, top, _HEIGHT - _BOTTOM

    def across(self, value: float) -> float:
        low, high = self.plot.x_range
        if self.plot.x_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.left + (self.right - self.left) * (value - low) / ((high - low) or 1)

    def up(self, value: float, on_right: bool = False) -> float:
        plot = self.plot
        low, high = plot.right_range if on_right and plot.right_range else plot.y_range
        if plot.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        inside = min(max((value - low) / ((high - low) or 1), -0.02), 1.02)
        return self.bottom - (self.bottom - self.top) * inside

    def points(self, x: Numbers, y: Numbers, most: int, right: bool) -> list[tuple[float, float]]:
        """The places of the finite points, at most `most`; a curve that leaves at the right end is cut there."""
        known = [(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]
        end, places = self.plot.x_range[1], []
        former: tuple[float, float] | None = None
        for a, b in evenly(known, most):
            if a > end and former is not None and former[0] < end:
                b = former[1] + (b - former[1]) * (end - former[0]) / (a - former[0])
                a = end
            if a <= end:
                places.append((self.across(a), self.up(b, right)))
            former = a, b
        return places


def _panel(plot: Plot, most: int) -> str:
    legend, lines = _legend(plot.marks)
    frame = _Frame(plot, _TOP + _LINE * lines)
    left, right, top, bottom = frame.left, frame.right, frame.top, frame.bottom
    title = escape(plot.panel.title)
    parts = [
        f'<text x="{left}" y="16" font-size="12" font-weight="600" fill="#24292f">{title}</text>{legend}',
        f'<path d="M{left} {top:g}V{bottom}H{right}" fill="none" stroke="#d0d7de"/>',
    ]
    scales = [(plot.y_range, left - 4, "end", False)]
    if plot.right_range is not None:
        scales.append((plot.right_range, right + 4, "start", True))
    for ends, x, anchor, on_right in scales:
        labels = (
            f'<text x="{x}" y="{frame.up(value, on_right) + 3:.0f}">{value:.4g}</text>'
            for value in (ends if plot.log else ticks(*ends))
        )
        parts.append(f'<g text-anchor="{anchor}">{"".join(labels)}</g>')
    below = plot.x_ticks or [(value, f"{value:.5g}") for value in ticks(*plot.x_range)]
    labels = (
        f'<text x="{frame.across(value):.0f}" y="{bottom + 13}">{words}</text>' for value, words in below
    )
    parts.append(f'<g text-anchor="middle">{"".join(labels)}</g>')
    lower, left_title, right_title = axis_titles(plot)
    middle = (top + bottom) / 2
    for words, across, up, turn in (
        (lower, (left + right) / 2, _HEIGHT - 8, 0),
        (left_title, 12, middle, -90),
        (right_title, _WIDTH - 6, middle, -90),
    ):
        if words:
            at = f'transform="translate({across:g} {up:g}) rotate({turn})"'
            parts.append(f'<text {at} text-anchor="middle">{_shifted(words)}</text>')
    parts += [_shape(mark, frame, most) for mark in plot.marks]
    return "".join(parts)


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Round numbers within [low, high], 1, 2 or 5 times a power of ten apart; at most `most`.

    >>> ticks(0, 30), ticks(-0.34, 0.71)
    ([0.0, 10.0, 20.0, 30.0], [0.0, 0.5])
    """
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
        places = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
        if len(places) <= most:
            break
    return [float(f"{place * step:.6g}") for place in places]


def _legend(drawn: Sequence[Mark]) -> tuple[str, int]:
    """The names in their colours, on as many lines as needed."""
    names = {mark.name: mark.colour for mark in drawn if mark.name and mark.opacity > 0.5}
    x, line, parts = float(_LEFT), 0, []
    for name, own in names.items():
        width = _LETTER * len(re.sub(r"[_^{}]", "", name)) + 10
        if x > _LEFT and x + width > _WIDTH:
            x, line = float(_LEFT), line + 1
        words = _shifted(as_html(name))
        parts.append(f'<text x="{x:.0f}" y="{28 + _LINE * line}" fill="{own}">{words}</text>')
        x += width
    return "".join(parts), (line + 1 if names else 0)


def _shifted(html: str) -> str:
    """Convert HTML's subscripts and superscripts to SVG."""
    for tag, other in (_SUB | _BACK).items():
        html = html.replace(tag, other)
    return html


def _shape(mark: Mark, frame: _Frame, most: int) -> str:
    style = f'stroke="{mark.colour}" stroke-width="{mark.width}" opacity="{mark.opacity}" fill="none"'
    if mark.dash in _DASHES:
        style += f' stroke-dasharray="{_DASHES[mark.dash]}"'
    if mark.kind == "stroke":
        return f'<polyline points="{_coordinates(frame.points(mark.x, mark.y, most, mark.right))}" {style}/>'
    if mark.kind == "band":
        low, high = (frame.points(mark.x, y, most, mark.right) for y in (mark.y, mark.y2))
        corners = _coordinates([*low, *reversed(high)])
        return f'<polygon points="{corners}" fill="{mark.colour}" opacity="{mark.opacity}"/>'
    if mark.kind == "bars":
        width = (frame.right - frame.left) / max(1, len(mark.x)) * 0.9
        path = "".join(
            f"M{frame.across(a) - width / 2:.1f} {frame.bottom}V{frame.up(b):.1f}h{width:.1f}V{frame.bottom}z"
            for a, b in zip(mark.x, mark.y, strict=True)
            if a is not None and b
        )
        return f'<path d="{path}" fill="{mark.colour}"/>'
    if mark.kind == "heat":
        return _heat(mark, frame)
    return _dots(mark, frame, most)


def _dots(mark: Mark, frame: _Frame, most: int) -> str:
    path = ""
    for at, (x, y) in enumerate(zip(mark.x, mark.y, strict=True)):
        if x is None or y is None:
            continue
        across, up = mark.x_error[at] if mark.x_error else None, mark.y_error[at] if mark.y_error else None
        if across:
            path += f"M{frame.across(x - across):.1f} {frame.up(y):.1f}H{frame.across(x + across):.1f}"
        if up:
            path += f"M{frame.across(x):.1f} {frame.up(y - up):.1f}V{frame.up(y + up):.1f}"
    bars = f'<path d="{path}" stroke="{mark.colour}" stroke-width=".8"/>' if path else ""
    places = frame.points(mark.x, mark.y, most, mark.right)
    radius = mark.width / 2.2
    if mark.symbol == "circle":
        shapes = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>' for x, y in places)
    else:
        r = f"{radius:.1f}"
        shapes = "".join(f'<path d="M{x:.1f} {y - radius:.1f}l{r} {r}-{r} {r}-{r}-{r}z"/>' for x, y in places)
    return f'{bars}<g fill="{mark.colour}" opacity="{mark.opacity}">{shapes}</g>'


def _coordinates(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _heat(mark: Mark, frame: _Frame, columns: int = 30) -> str:
    left, right, top, bottom = frame.left, frame.right, frame.top, frame.bottom
    bins, n = len(mark.z[0]), len(mark.z)
    columns = min(columns, n)
    cell_width, cell_height = (right - left) / columns, (bottom - top) / bins
    levels: dict[int, list[str]] = {}
    for column in range(columns):
        group = mark.z[column * n // columns : (column + 1) * n // columns]
        for row in range(bins):
            percentage = sum(z[row] for z in group) / len(group)
            level = min(4, round(percentage / 9))
            if level:
                x, y = left + column * cell_width, bottom - (row + 1) * cell_height
                levels.setdefault(level, []).append(
                    f"M{x:.0f} {y:.0f}h{cell_width:.0f}v{cell_height:.0f}h-{cell_width:.0f}z"
                )
    return "".join(
        f'<path d="{"".join(cells)}" fill="{mark.colour}" opacity="{level / 4}"/>'
        for level, cells in levels.items()
    )
