"""Plots as plotly figures: a whole board in one, for front ends without widgets; a single panel, for a page."""

from __future__ import annotations

import math
from typing import Any

from rlhflab.plots.marks import Mark, Plot, Scene, axis_titles, marks
from rlhflab.plots.panel import as_html

INK, GRID = "#808892", "rgba(128,136,146,0.25)"  # readable on white and on black


def figure(scene: Scene, title: str = "") -> Any:
    """Return the scene as one static plotly Figure with a subplot per panel."""
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
            for trace in _traces(mark):
                built.add_trace(trace, **at, secondary_y=mark.right)
        lower, left, right = _axes(plot)
        built.update_xaxes(lower, **at)
        built.update_yaxes(left, secondary_y=False, **at)
        if right:
            built.update_yaxes({**right, "title": None}, secondary_y=True, **at)
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
    return built


def single(plot: Plot, height: int = 320) -> Any:
    """Return one plot as an interactive plotly Figure with a legend, transparent, without its title."""
    from plotly import graph_objects as go

    lower, left, right = _axes(plot)
    own = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "automargin": True}
    built = go.Figure(
        layout={
            "template": "none",
            "height": height,
            "barmode": "overlay",
            "margin": {"l": 50, "r": 16, "t": 36, "b": 40},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": INK, "family": "system-ui, sans-serif", "size": 12},
            "legend": {"orientation": "h", "traceorder": "normal", "y": 1.02, "yanchor": "bottom", "x": 0},
            "xaxis": {**own, **lower},
            "yaxis": {**own, **left},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GRID, "activecolor": INK},
            "hovermode": "closest",
        }
    )
    if right:
        built.update_layout(yaxis2={**own, **right, "overlaying": "y", "side": "right"})
    for mark in plot.marks:
        for trace in _traces(mark, scale=True):
            built.add_trace(trace.update(yaxis="y2" if mark.right else None))
    return built


def _axes(plot: Plot) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The settings of the axes below, on the left, and on the right; {} if there is none."""
    below, beside, opposite = axis_titles(plot)
    lower: dict[str, Any] = {"range": plot.x_range, "exponentformat": "e"}
    if plot.x_log:
        lower |= {"type": "log", "range": [math.log10(end) for end in plot.x_range]}
    if plot.x_ticks:
        places, words = zip(*plot.x_ticks, strict=True)
        lower |= {"tickvals": places, "ticktext": [as_html(word) for word in words]}
    left: dict[str, Any] = {"range": plot.y_range, "exponentformat": "e"}
    if plot.log:
        left |= {"type": "log", "range": [math.log10(end) for end in plot.y_range]}
    right: dict[str, Any] = {}
    if plot.right_range is not None:
        right = {"range": plot.right_range, "tickmode": "auto", "showgrid": False, "exponentformat": "e"}
        right["title"] = {"text": opposite}
    return {**lower, "title": {"text": below}}, {**left, "title": {"text": beside}}, right


def _traces(mark: Mark, scale: bool = False) -> list[Any]:
    """The plotly traces of a mark; `scale` shows what the colours of a heat map mean."""
    from plotly import graph_objects as go

    x, y = list(mark.x), list(mark.y)
    named = {"name": as_html(mark.name), "showlegend": bool(mark.name)}
    if mark.kind == "stroke":
        line = {"color": mark.colour, "width": mark.width, "dash": mark.dash}
        hover = {} if mark.name else {"hoverinfo": "skip"}
        return [go.Scatter(x=x, y=y, mode="lines", line=line, opacity=mark.opacity, **named, **hover)]
    if mark.kind == "band":
        hidden = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
        kept = [
            at for at in range(len(x)) if None not in (y[at], mark.y2[at])
        ]  # tonexty fills across gaps anyway
        low, high = ([column[at] for at in kept] for column in (y, mark.y2))
        fill = {"fill": "tonexty", "fillcolor": _rgba(mark.colour, mark.opacity)}
        return [
            go.Scatter(x=[x[at] for at in kept], y=column, **hidden, **more)
            for column, more in ((low, {}), (high, fill))
        ]
    if mark.kind == "bars":
        return [go.Bar(x=x, y=y, marker={"color": mark.colour}, **named)]
    if mark.kind == "heat":
        bins = len(mark.z[0])
        z = [list(row) for row in zip(*mark.z, strict=True)]
        shades = [[0, _rgba(mark.colour, 0)], [1, mark.colour]]
        bar = {"title": {"text": "%"}, "thickness": 10}
        y_edges = [i / bins for i in range(bins + 1)]
        return [
            go.Heatmap(
                x=x, y=y_edges, z=z, colorscale=shades, zmin=0, zmax=60, showscale=scale, colorbar=bar,
                hovertemplate="step %{x}, weight %{y:.2f}: %{z} %<extra></extra>",
            )
        ]  # fmt: skip
    bars = {"color": mark.colour, "thickness": 1, "width": 0}
    errors = {
        name: {"array": list(found), **bars}
        for name, found in (("error_x", mark.x_error), ("error_y", mark.y_error))
        if found
    }
    words = {"text": list(mark.text), "textposition": "top left"} if mark.text else {}
    marker = {"color": mark.colour, "size": mark.width, "symbol": mark.symbol, "opacity": mark.opacity}
    mode = "markers+text" if mark.labelled else "markers"
    return [go.Scatter(x=x, y=y, mode=mode, marker=marker, **named, **errors, **words)]


def _rgba(hexadecimal: str, opacity: float) -> str:
    red, green, blue = (int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
