"""Plain charts of a few curves in the house style, for the labs' measured results."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Okabe & Ito's palette, distinguishable for colour-blind readers; in the order of the board.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

LEGEND_WIDTH = 760
"""Pixels that a legend may take on a narrow page; where one row is not enough, its names stand in columns."""


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    x: str,
    y: str,
    levels: Mapping[str, float] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    styles: Mapping[str, Mapping[str, object]] | None = None,
) -> go.Figure:
    """Return a figure with one line per series.

    Args:
        series: name → (x values, y values), of one length; NaN ends a line and begins another.
        title: one sentence, what to look for.
        x, y: axis titles.
        levels: name → height of a dashed horizontal line, for exact values.
        log_x, log_y: logarithmic axes.
        styles: name of a series → plotly's settings of its line, {"dash": "dash"} for instance.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for colour, (name, (xs, ys)) in zip(PALETTE * len(series), series.items(), strict=False):
        if len(xs) != len(ys):
            raise ValueError(f"{name}: as many x as y values are needed, got {len(xs)} and {len(ys)}")
        mode = "lines+markers" if len(xs) <= 20 else "lines"
        line = {"color": colour, "width": 2, **(styles or {}).get(name, {})}
        figure.add_scatter(x=list(xs), y=list(ys), name=html.escape(name), mode=mode, line=line)
    return _framed(figure, title, x, y, levels, log_x, log_y)


def bands(
    series: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]],
    title: str,
    x: str,
    y: str,
    levels: Mapping[str, float] | None = None,
    log_y: bool = False,
) -> go.Figure:
    """Return a figure with the median over repeated runs, and a band from the first quartile to the third.

    A run is interpolated linearly between its points. A name's curve begins where its last run begins, and ends where
    the first one ends.

    Args:
        series: name → its runs, one per seed: (x values, ascending, and y values).
        title, x, y, levels, log_y: as in `curves`.
    """
    import numpy as np
    import plotly.graph_objects as go

    figure = go.Figure()
    for colour, (name, runs) in zip(PALETTE * len(series), series.items(), strict=False):
        if not runs or any(len(xs) != len(ys) or not len(xs) for xs, ys in runs):
            raise ValueError(f"{name}: at least one run is needed, each with as many x as y values")
        start, end = max(xs[0] for xs, _ in runs), min(xs[-1] for xs, _ in runs)
        if start > end:
            raise ValueError(f"{name}: its runs have no x in common")
        grid = np.union1d(np.concatenate([np.asarray(xs, float) for xs, _ in runs]), [start, end])
        grid = grid[(grid >= start) & (grid <= end)]
        heights = np.stack([np.interp(grid, xs, ys) for xs, ys in runs])
        low, middle, high = np.quantile(heights, (0.25, 0.5, 0.75), axis=0).tolist()
        shared = {"x": grid.tolist(), "legendgroup": name, "mode": "lines"}
        edge = {**shared, "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
        figure.add_scatter(y=low, **edge)
        figure.add_scatter(y=high, fill="tonexty", fillcolor=f"rgba{(*_rgb(colour), 0.18)}", **edge)
        figure.add_scatter(y=middle, name=html.escape(name), line={"color": colour, "width": 2}, **shared)
    return _framed(figure, title, x, y, levels, False, log_y)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _framed(
    figure: go.Figure,
    title: str,
    x: str,
    y: str,
    levels: Mapping[str, float] | None,
    log_x: bool,
    log_y: bool,
) -> go.Figure:
    """Add levels, titles and the house style: the title above, the legend under it in as many rows as it needs."""
    names = [html.unescape(each.name) for each in figure.data if each.name and each.showlegend is not False]
    widths = [7 * len(name) + 46 for name in names]  # pixels, about
    rows = 1 if sum(widths) <= LEGEND_WIDTH else math.ceil(len(widths) / max(1, LEGEND_WIDTH // max(widths)))
    for name, height in (levels or {}).items():
        line = {"color": "#777", "dash": "dash", "width": 1.5}
        text = {"text": html.escape(name), "y": math.log10(height) if log_y else height}  # as plotly wants it
        figure.add_hline(y=height, line=line, annotation=text)
    figure.update_layout(
        title={
            "text": html.escape(title), "font": {"size": 15}, "pad": {"t": 14},
            "x": 0, "xref": "paper", "y": 1, "yref": "container", "yanchor": "top",
        },
        xaxis={"title": html.escape(x), "type": "log" if log_x else "linear"},
        yaxis={"title": html.escape(y), "type": "log" if log_y else "linear"},
        template="plotly_white",
        height=360 + 20 * rows,
        margin={"l": 60, "r": 30, "t": 42 + 20 * rows, "b": 50},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )  # fmt: skip
    return figure
