"""The plots of a run as plotly figures: its curves against the exact truth, its gradient weights.

They are made from any sequence of records, so a notebook without widgets can show them too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhflab.algorithms.record import Backdrop, Record

if TYPE_CHECKING:
    import plotly.graph_objects as go

POLICY, CHOSEN, REJECTED, TRUTH, REFERENCE = "#3b7ddd", "#2a9d6f", "#d9534f", "#e8912d", "#8a94a0"
INK, GRID = "#808892", "rgba(128,136,146,0.25)"  # readable on white and on black
POINTS = 2_000  # most points of a curve that are drawn

Points = tuple[list[float], list[float]]


class Plot(NamedTuple):
    """A figure with its title and the one line that says what to look for."""

    title: str
    caption: str
    figure: go.Figure


def figures(records: Sequence[Record], backdrop: Backdrop | None = None) -> list[Plot]:
    """Return the plots that these records can fill, in reading order; what they lack is left out.

    Args:
        records: in the order of their steps.
        backdrop: the exact frontier, where the world has one.
    """
    makers: tuple[Callable[[Sequence[Record], Backdrop | None], Plot | None], ...] = (
        _reward, _kl, _plane, _efficiency, _regret, _implicit_rewards, _margins, _loss, _weights_now,
        _weights_over_time,
    )  # fmt: skip
    return [plot for make in makers if (plot := make(records, backdrop)) is not None]


def _curve(records: Sequence[Record], part: str, key: str) -> Points:
    """Steps and finite values of `record.<part>[key]`."""
    steps, values = [], []
    for record in records:
        value = (getattr(record, part) or {}).get(key)
        if value is not None and math.isfinite(value):
            steps.append(float(record.step))
            values.append(float(value))
    return steps, values


def _thin(points: Points) -> Points:
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


def _optima(records: Sequence[Record], backdrop: Backdrop | None, field: str) -> Points:
    """The optimum for the β in force, as a staircase: first and last step of each stretch of equal β."""
    if backdrop is None:
        return [], []
    steps: list[float] = []
    values: list[float] = []
    with_beta = (record for record in records if record.knobs.get("beta", 0) > 0)
    for beta, stretch in groupby(with_beta, key=lambda record: record.knobs["beta"]):
        inside = [float(record.step) for record in stretch]
        value = getattr(backdrop.at(beta), field)
        steps += [inside[0], inside[-1]]
        values += [value, value]
    return steps, values


def new_figure(x: str, y: str, **layout: Any) -> go.Figure:
    """An empty figure with these axis titles, in the colours of all plots."""
    import plotly.graph_objects as go

    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "automargin": True}
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


def _line(
    figure: go.Figure, points: Points, name: str, color: str, dash: str = "solid", thin: bool = True
) -> None:
    steps, values = _thin(points) if thin else points
    if steps:
        figure.add_scatter(
            x=steps, y=values, name=name, mode="lines", line={"color": color, "width": 2, "dash": dash}
        )


def _against_truth(
    records: Sequence[Record], backdrop: Backdrop | None, key: str, y: str, title: str, caption: str
) -> Plot | None:
    curve = _curve(records, "exact", key)
    if not curve[0]:
        return None
    figure = new_figure("step", y)
    _line(figure, curve, "policy", POLICY)
    if key == "reward":
        _line(figure, _curve(records, "exact", "ref_reward"), "reference", REFERENCE, "dot")
    _line(figure, _optima(records, backdrop, key), "optimum at this β", TRUTH, "dash", thin=False)
    return Plot(title, caption, figure)


def _reward(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    caption = "Exact E[r*] of the policy. How much of the way from the reference to the optimum does it go?"
    return _against_truth(records, backdrop, "reward", "true reward", "True reward", caption)


def _kl(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    caption = "Exact KL(π‖π_ref), the price paid. Above the line, the policy moved further than it is worth."
    return _against_truth(records, backdrop, "kl", "nats per answer", "KL from the reference", caption)


def _efficiency(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    curve = _curve(records, "exact", "efficiency")
    if not curve[0]:
        return None
    figure = new_figure("step", "efficiency")
    _line(figure, curve, "efficiency", POLICY)
    figure.add_hline(y=1, line={"color": TRUTH, "dash": "dash", "width": 1})
    caption = "Reward gained over the most that can be gained at this KL. Nothing goes above 1."
    return Plot("Efficiency", caption, figure)


def _regret(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    curve = _curve(records, "exact", "regret")
    if not curve[0]:
        return None
    figure = new_figure("step", "J* − J")
    _line(figure, curve, "regret", POLICY)
    figure.update_yaxes(rangemode="tozero")
    caption = "J* − J = β·KL(π‖π*), what is missing. If it rises while β stays, training went on too long."
    return Plot("Regret", caption, figure)


def add_frontier(figure: go.Figure, backdrop: Backdrop, reach: float, name: str = "frontier") -> None:
    """Draw the most reward that can be had at every KL, and show the plane to a little beyond the KL `reach`."""
    end = 1.25 * max(reach, 0.1)
    points = sorted([(0.0, backdrop.ref_reward), *zip(backdrop.kl, backdrop.reward, strict=True)])
    figure.add_scatter(
        x=[kl for kl, _ in points], y=[reward for _, reward in points], name=name, mode="lines",
        line={"color": TRUTH, "width": 2},
    )  # fmt: skip
    figure.update_xaxes(range=[-0.03 * end, end])


def _plane(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    trail = []
    for record in records:
        kl, reward = ((record.exact or {}).get(key, math.nan) for key in ("kl", "reward"))
        if math.isfinite(kl) and math.isfinite(reward):
            trail.append((record, kl, reward))
    if not trail:
        return None
    trail = trail[: -1 : max(1, len(trail) // 400)] + trail[-1:]
    kls = [kl for _, kl, _ in trail]
    figure = new_figure("KL(π‖π_ref), nats per answer", "true reward")
    beta = trail[-1][0].knobs.get("beta", 0.0)
    if backdrop is not None:
        add_frontier(figure, backdrop, max([*kls, backdrop.at(beta).kl if beta > 0 else 0.0]))
    figure.add_scatter(
        x=kls, y=[reward for _, _, reward in trail], name="this run", mode="lines+markers",
        text=[f"step {record.step}" for record, _, _ in trail],
        line={"color": POLICY, "width": 1}, marker={"color": POLICY, "size": 5},
    )  # fmt: skip
    if backdrop is not None and beta > 0:
        best = backdrop.at(beta)
        figure.add_scatter(
            x=[best.kl], y=[best.reward], name=f"optimum at β = {beta:g}", mode="markers",
            marker={"symbol": "star", "size": 14, "color": TRUTH},
        )  # fmt: skip
    caption = "Every policy lies on or below the frontier; β picks the point on it that training aims at."
    return Plot("Reward against KL", caption, figure)


def _implicit_rewards(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    figure = new_figure("step", "r̂, nats × β")
    for name, color in (("chosen", CHOSEN), ("rejected", REJECTED)):
        steps, means = _curve(records, "scalars", f"rewards/{name}")
        spread_steps, spreads = _curve(records, "scalars", f"rewards/{name}_std")
        if steps and spread_steps == steps:
            low = _thin((steps, [mean - spread for mean, spread in zip(means, spreads, strict=True)]))
            high = _thin((steps, [mean + spread for mean, spread in zip(means, spreads, strict=True)]))
            figure.add_scatter(
                x=high[0] + low[0][::-1], y=high[1] + low[1][::-1], fill="toself", mode="lines", opacity=0.2,
                line={"width": 0}, fillcolor=color, hoverinfo="skip", showlegend=False,
            )  # fmt: skip
        _line(figure, (steps, means), name, color)
    caption = "r̂ = β·log(π/π_ref), mean and spread of the batch. Watch the gap: both may fall while it grows."
    return Plot("Implicit rewards", caption, figure) if figure.data else None


def _margins(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    margins = _curve(records, "scalars", "rewards/margins")
    accuracies = _curve(records, "scalars", "rewards/accuracies")
    if not margins[0] and not accuracies[0]:
        return None
    figure = new_figure("step", "margin, nats × β")
    _line(figure, margins, "margin", POLICY)
    if accuracies[0]:
        steps, values = _thin(accuracies)
        figure.add_scatter(
            x=steps, y=values, name="accuracy", mode="lines", yaxis="y2", line={"color": CHOSEN, "width": 1}
        )
        figure.update_layout(
            yaxis2={
                "overlaying": "y", "side": "right", "range": [0, 1.02], "showgrid": False, "automargin": True,
                "title": {"text": "accuracy"},
            }
        )  # fmt: skip
    caption = "r̂ of chosen less r̂ of rejected, and the share of pairs where it is positive."
    return Plot("Margins and accuracy", caption, figure)


def _loss(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    curve = _curve(records, "scalars", "loss")
    if not curve[0]:
        return None
    figure = new_figure("step", "loss, nats")
    _line(figure, curve, "loss", POLICY)
    return Plot("Loss", "DPO starts at ln 2 ≈ 0.693, where the policy is the reference.", figure)


def _weights_now(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    batch = next((record for record in reversed(records) if record.pairs and record.pairs.weights), None)
    if batch is None or batch.pairs is None:
        return None
    figure = new_figure("weight σ(r̂_l − r̂_w)", "pairs", barmode="stack")
    groups = (("as labelled", POLICY, False), ("mislabelled", REJECTED, True))
    for name, color, flipped in groups:
        columns = zip(batch.pairs.weights, batch.pairs.flipped, strict=True)
        weights = [weight for weight, flip in columns if bool(flip) == flipped]
        if weights:
            figure.add_histogram(
                x=weights, name=name, xbins={"start": 0, "end": 1, "size": 0.05}, marker={"color": color}
            )
    figure.update_xaxes(range=[0, 1])
    caption = f"Step {batch.step}. Pairs near 1 are the ones the policy gets wrong; they drive the gradient."
    return Plot("Gradient weights, last batch", caption, figure)


def _weights_over_time(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    import numpy as np

    batches = [record for record in records if record.pairs and record.pairs.weights]
    if len(batches) < 2:
        return None
    size = -(-len(batches) // 200)
    steps, shares = [], []
    for start in range(0, len(batches), size):
        stretch = batches[start : start + size]
        weights = [weight for record in stretch if record.pairs for weight in record.pairs.weights]
        counts, edges = np.histogram(weights, bins=20, range=(0, 1))
        steps.append(stretch[-1].step)
        shares.append((counts / len(weights)).tolist())
    figure = new_figure("step", "weight")
    figure.add_heatmap(
        x=steps, y=((edges[1:] + edges[:-1]) / 2).tolist(), z=[list(row) for row in zip(*shares, strict=True)],
        colorscale="Viridis", colorbar={"title": {"text": "share"}, "thickness": 10},
    )  # fmt: skip
    caption = "All start at ½. Learned pairs sink to 0; what stays near 1 is hard or mislabelled."
    return Plot("Gradient weights over time", caption, figure)
