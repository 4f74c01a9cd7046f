"""What all plots of a report are drawn with: colours, axes, thinned curves, histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhflab.core.record import Backdrop, Record

if TYPE_CHECKING:
    import plotly.graph_objects as go

POLICY, CHOSEN, REJECTED, TRUTH, REFERENCE = "#3b7ddd", "#2a9d6f", "#d9534f", "#e8912d", "#8a94a0"
INK, GRID = "#808892", "rgba(128,136,146,0.25)"  # readable on white and on black
FAINT = "rgba(128,136,146,0.6)"
POINTS = 2_000  # most points of a curve that are drawn

Points = tuple[list[float], list[float]]


class Plot(NamedTuple):
    """A figure with its title and the one line that says what to look for."""

    title: str
    caption: str
    figure: go.Figure


def in_bins(
    values: Sequence[float | None],
    uprights: Sequence[float] = (),
    some: Sequence[float | None] = (),
    bins: int = 40,
) -> tuple[list[float], list[float], tuple[float, float], list[float]]:
    """Histogram between the 2 % and the 98 % quantile, all uprights inside; the outer bins hold all that lies beyond.

    Returns:
        centres of the bins, per cent of the values in each, the ends, and the same for `some` of the values.
    """
    finite = sorted(value for value in values if value is not None and math.isfinite(value))
    if not finite:
        return [], [], (0.0, 1.0), []
    last = len(finite) - 1
    low = min([finite[round(0.02 * last)], *uprights])
    high = max([finite[round(0.98 * last)], *uprights])
    pad = 0.15 * (high - low) or 0.5
    low, width = low - pad, (high - low + 2 * pad) / bins

    def shares(part: Sequence[float | None]) -> list[float]:
        counts = [0] * bins
        for value in part:
            if value is not None and math.isfinite(value):
                counts[min(bins - 1, max(0, int((value - low) / width)))] += 1
        return [100 * count / len(finite) for count in counts]

    centres = [low + (i + 0.5) * width for i in range(bins)]
    return centres, shares(finite), (low, low + bins * width), shares(some)


def curve(records: Sequence[Record], name: str) -> Points:
    """Steps and finite values of a scalar, of an exact value (exact/…) or of an estimated one (estimated/…)."""
    part, _, key = name.partition("/")
    if part not in ("exact", "estimated"):
        part, key = "scalars", name
    steps, values = [], []
    for record in records:
        value = (getattr(record, part) or {}).get(key)
        if value is not None and math.isfinite(value):
            steps.append(float(record.step))
            values.append(float(value))
    return steps, values


def thinned(points: Points) -> Points:
    """At most POINTS points that keep each stretch's smallest and largest value."""
    steps, values = points
    size = -(-2 * len(steps) // POINTS)  # a stretch of `size` points gives two
    if size <= 2:
        return points
    kept = set()
    for start in range(0, len(steps), size):
        stretch = range(start, min(start + size, len(steps)))
        kept |= {min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)}
    order = sorted(kept)
    return [steps[i] for i in order], [values[i] for i in order]


def new_figure(x: str, y: str, **layout: Any) -> go.Figure:
    """An empty figure that reads on white and on black."""
    import plotly.graph_objects as go

    axis = {
        "gridcolor": GRID,
        "zerolinecolor": GRID,
        "linecolor": GRID,
        "automargin": True,
        "exponentformat": "e",
    }
    return go.Figure(
        layout={
            "template": "none",
            "height": 320,
            "margin": {"l": 50, "r": 16, "t": 36, "b": 40},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": INK, "family": "system-ui, sans-serif", "size": 12},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            "xaxis": {**axis, "title": {"text": x}},
            "yaxis": {**axis, "title": {"text": y}},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GRID, "activecolor": INK},
            "hovermode": "closest",
            **layout,
        }
    )


def add_line(
    figure: go.Figure,
    points: Points,
    name: str,
    color: str,
    dash: str = "solid",
    thin: bool = True,
    right: str = "",
) -> None:
    """Add a curve, where it has points; `right` is the title of an axis of its own, on the right."""
    steps, values = thinned(points) if thin else points
    if not steps:
        return
    figure.add_scatter(
        x=steps, y=values, name=name, mode="lines", yaxis="y2" if right else "y",
        line={"color": color, "width": 1 if right else 2, "dash": dash},
    )  # fmt: skip
    if right:
        title = {"text": right}
        figure.update_layout(
            yaxis2={"overlaying": "y", "side": "right", "showgrid": False, "automargin": True, "title": title}
        )


def add_band(figure: go.Figure, points: Points, spreads: Sequence[float], color: str) -> None:
    """Shade one `spread` to each side of a curve."""
    low, high = (
        thinned((points[0], [y + sign * d for y, d in zip(points[1], spreads, strict=True)]))
        for sign in (-1, 1)
    )
    figure.add_scatter(
        x=high[0] + low[0][::-1], y=high[1] + low[1][::-1], fill="toself", mode="lines", opacity=0.2,
        line={"width": 0}, fillcolor=color, hoverinfo="skip", showlegend=False,
    )  # fmt: skip


def add_frontier(figure: go.Figure, backdrop: Backdrop, reach: float, name: str = "frontier") -> None:
    """Draw the most reward that can be had at every KL, and show the plane to a little beyond the KL `reach`."""
    end = 1.25 * max(reach, 0.1)
    errors = backdrop.reward_se or (0.0,) * len(backdrop.kl)
    points = sorted(
        [(0.0, backdrop.ref_reward, 0.0), *zip(backdrop.kl, backdrop.reward, errors, strict=True)]
    )
    kls, rewards, errors = zip(*points, strict=True)
    if backdrop.reward_se:
        name = f"{name}, estimate ± its error"
        add_band(figure, (list(kls), list(rewards)), errors, TRUTH)
    figure.add_scatter(x=kls, y=rewards, name=name, mode="lines", line={"color": TRUTH, "width": 2})
    figure.update_xaxes(range=[-0.03 * end, end])
