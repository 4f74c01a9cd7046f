"""Still pictures of a board: a plotly Figure, and a small SVG for pages without kernel or scripts.

Both draw the same marks; see `plots.marks`.
"""

from __future__ import annotations

import math
from html import escape
from typing import Any

from rlhflab.plots.marks import Mark, Numbers, Plot, Scene, marks

# ---- a plotly figure -------------------------------------------------------------------------------------------


def figure(scene: Scene, title: str = "") -> Any:
    """Return the scene as one static plotly Figure with a subplot per panel."""
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    panels = scene.shown()
    columns = min(4, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    built = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[panel.title for panel in panels],
        specs=[[{"secondary_y": True}] * columns for _ in range(rows)],
        horizontal_spacing=0.06,
        vertical_spacing=0.16,
    )
    for number, panel in enumerate(panels):
        at = {"row": number // columns + 1, "col": number % columns + 1}
        plot = marks(panel, scene)
        for mark in plot.marks:
            for trace in _traces(go, mark):
                built.add_trace(trace, **at, secondary_y=mark.right)
        built.update_xaxes(range=plot.x_range, title_text=panel.x_title, **at)
        scale: dict[str, Any] = {"range": plot.y_range}
        if plot.log:
            scale = {"type": "log", "range": [math.log10(end) for end in plot.y_range]}
        built.update_yaxes(**scale, title_text=panel.y_title, secondary_y=False, **at)
        if plot.right_range is not None:
            built.update_yaxes(range=plot.right_range, showgrid=False, secondary_y=True, **at)
    built.update_layout(
        title_text=title or None,
        template="plotly_white",
        showlegend=False,
        barmode="overlay",
        height=80 + 260 * rows,
        margin={"l": 45, "r": 30, "t": 80 if title else 40, "b": 35},
        font={"size": 11},
    )
    built.update_annotations(font_size=13)
    built.update_yaxes(exponentformat="e")
    return built


def _traces(go: Any, mark: Mark) -> list[Any]:
    x, y = list(mark.x), list(mark.y)
    if mark.kind == "stroke":
        line = {"color": mark.colour, "width": mark.width, "dash": mark.dash}
        return [go.Scatter(x=x, y=y, mode="lines", line=line, opacity=mark.opacity, name=mark.name)]
    if mark.kind == "band":
        hidden = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
        fill = _rgba(mark.colour, mark.opacity)
        return [
            go.Scatter(x=x, y=y, **hidden),
            go.Scatter(x=x, y=list(mark.y2), fill="tonexty", fillcolor=fill, **hidden),
        ]
    if mark.kind == "bars":
        return [go.Bar(x=x, y=y, marker={"color": mark.colour}, name=mark.name)]
    if mark.kind == "heat":
        bins = len(mark.z[0])
        z = [list(row) for row in zip(*mark.z, strict=True)]
        scale = [[0, _rgba(mark.colour, 0)], [1, mark.colour]]
        y_edges = [i / bins for i in range(bins + 1)]
        return [go.Heatmap(x=x, y=y_edges, z=z, colorscale=scale, zmin=0, zmax=60, showscale=False)]
    marker = {"color": mark.colour, "size": mark.width, "symbol": mark.symbol}
    return [go.Scatter(x=x, y=y, mode="markers", marker=marker, name=mark.name)]


def _rgba(hexadecimal: str, opacity: float) -> str:
    red, green, blue = (int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


# ---- an SVG ----------------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT = 300, 200  # of one panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 14, 26, 20  # margins inside it
_DASHES = {"dash": "5 3", "dot": "1.5 3"}


def svg(scene: Scene, title: str = "") -> str:
    """Return the scene as an SVG of at most about 20 kB; no script, no text of any model."""
    for points in (36, 26, 16):
        picture = _svg(scene, title, points)
        if len(picture) <= 20_000:
            break
    return picture


def _svg(scene: Scene, title: str, limit: int) -> str:
    panels = scene.shown()
    columns = min(4, max(1, len(panels)))
    rows = -(-len(panels) // columns)
    width, height = columns * _WIDTH, rows * _HEIGHT + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui,sans-serif" font-size="10" fill="#57606a">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="18" font-size="14" font-weight="600" fill="#24292f">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        x, y = number % columns * _WIDTH, number // columns * _HEIGHT + 26
        parts.append(f'<g transform="translate({x} {y})">{_panel_svg(marks(panel, scene), limit)}</g>')
    return "".join([*parts, "</svg>"])


def _panel_svg(plot: Plot, limit: int) -> str:
    left, right, top, bottom = _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM

    def across(value: float) -> float:
        low, high = plot.x_range
        return left + (right - left) * (value - low) / ((high - low) or 1)

    def up(value: float, on_right: bool = False) -> float:
        low, high = plot.right_range if on_right and plot.right_range else plot.y_range
        if plot.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        inside = min(max((value - low) / ((high - low) or 1), -0.02), 1.02)
        return bottom - (bottom - top) * inside

    parts = [
        f'<text x="{left}" y="16" font-size="12" font-weight="600" fill="#24292f">{escape(plot.panel.title)}</text>',
        f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#d0d7de"/>',
    ]
    for value in plot.y_range:
        parts.append(f'<text x="{left - 4}" y="{up(value) + 3:.0f}" text-anchor="end">{value:.3g}</text>')
    parts.append(f'<text x="{right}" y="{bottom + 13}" text-anchor="end">{plot.x_range[1]:.4g}</text>')
    for mark in plot.marks:
        shape = f'stroke="{mark.colour}" stroke-width="{mark.width}" opacity="{mark.opacity}" fill="none"'
        if mark.dash in _DASHES:
            shape += f' stroke-dasharray="{_DASHES[mark.dash]}"'
        if mark.kind == "stroke":
            points = [
                (across(a), up(b, mark.right))
                for a, b in _kept(mark.x, mark.y, limit)
                if a <= plot.x_range[1]
            ]
            parts.append(f'<polyline points="{_coordinates(points)}" {shape}/>')
        elif mark.kind == "band":
            low = [(across(a), up(b, mark.right)) for a, b in _kept(mark.x, mark.y, limit)]
            high = [(across(a), up(b, mark.right)) for a, b in _kept(mark.x, mark.y2, limit)]
            corners = _coordinates([*low, *reversed(high)])
            parts.append(f'<polygon points="{corners}" fill="{mark.colour}" opacity="{mark.opacity}"/>')
        elif mark.kind == "bars":
            step = (right - left) / max(1, len(mark.x)) * 0.9
            path = "".join(
                f"M{across(a) - step / 2:.1f} {bottom}V{up(b):.1f}h{step:.1f}V{bottom}z"
                for a, b in zip(mark.x, mark.y, strict=True)
                if a is not None and b
            )
            parts.append(f'<path d="{path}" fill="{mark.colour}"/>')
        elif mark.kind == "heat":
            parts.append(_heat_svg(mark, left, right, top, bottom))
        elif mark.kind == "dots":
            radius = mark.width / 2.2
            for a, b in _kept(mark.x, mark.y, limit):
                cy = up(b, mark.right)
                parts.append(
                    f'<circle cx="{across(a):.1f}" cy="{cy:.1f}" r="{radius:.1f}" fill="{mark.colour}"/>'
                )
    return "".join(parts)


def _kept(x: Numbers, y: Numbers, limit: int) -> list[tuple[float, float]]:
    points = [(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]
    if len(points) <= limit:
        return points
    return [points[round(i * (len(points) - 1) / (limit - 1))] for i in range(limit)]


def _coordinates(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.0f},{y:.1f}" for x, y in points)


def _heat_svg(mark: Mark, left: float, right: float, top: float, bottom: float, columns: int = 30) -> str:
    bins, n = len(mark.z[0]), len(mark.z)
    columns = min(columns, n)
    cell_width, cell_height = (right - left) / columns, (bottom - top) / bins
    levels: dict[int, list[str]] = {}
    for column in range(columns):
        group = mark.z[column * n // columns : max(column * n // columns + 1, (column + 1) * n // columns)]
        for row in range(bins):
            share = sum(z[row] for z in group) / len(group)
            level = min(4, round(share / 9))
            if level:
                x, y = left + column * cell_width, bottom - (row + 1) * cell_height
                levels.setdefault(level, []).append(
                    f"M{x:.0f} {y:.0f}h{cell_width:.0f}v{cell_height:.0f}h-{cell_width:.0f}z"
                )
    return "".join(
        f'<path d="{"".join(cells)}" fill="{mark.colour}" opacity="{level / 4}"/>'
        for level, cells in levels.items()
    )
