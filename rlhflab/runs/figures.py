"""The plots of a run as plotly figures: its curves against the exact truth, its gradient weights.

They are made from any sequence of records, so a notebook without widgets can show them too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from rlhflab.algorithms.record import Backdrop, Record
from rlhflab.runs.charts import COLUMNS, EPISODES, EXACT, TRAINING, ratios
from rlhflab.runs.drawing import (
    CHOSEN,
    FAINT,
    POLICY,
    REFERENCE,
    REJECTED,
    TRUTH,
    Plot,
    Points,
    add_frontier,
    add_line,
    curve,
    new_figure,
    thinned,
)


def figures(records: Sequence[Record], backdrop: Backdrop | None = None) -> list[Plot]:
    """Return the plots that these records can fill, in reading order; what they lack is left out.

    Args:
        records: in the order of their steps.
        backdrop: the exact frontier, where the world has one.
    """
    plots = [
        _reward(records, backdrop),
        _kl(records, backdrop),
        _plane(records, backdrop),
        *(chart.plot(records) for chart in (*EXACT, *EPISODES)),
        _implicit_rewards(records),
        *(chart.plot(records) for chart in TRAINING),
        ratios(records),
        *(columns.plot(records) for columns in COLUMNS),
        _weights_now(records),
        _weights_over_time(records),
    ]
    return [plot for plot in plots if plot is not None]


def _judged(records: Sequence[Record]) -> str:
    """Whose exact values the records hold: the policy's, or those of the policy that a reward model would lead to."""
    of_model = any(record.exact and "rank_correlation" in record.exact for record in records)
    return "π*_φ, the policy that is optimal for the reward model" if of_model else "the policy"


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


def _against_truth(
    records: Sequence[Record],
    backdrop: Backdrop | None,
    key: str,
    batch: str,
    y: str,
    title: str,
    caption: str,
) -> Plot | None:
    exact = curve(records, f"exact/{key}")
    if not exact[0]:
        return None
    figure = new_figure("step", y)
    add_line(figure, curve(records, batch), "batch", FAINT)
    add_line(figure, exact, "exact", POLICY)
    if key == "reward":
        add_line(figure, curve(records, "exact/ref_reward"), "reference", REFERENCE, "dot")
    add_line(figure, _optima(records, backdrop, key), "optimum at this β", TRUTH, "dash", thin=False)
    return Plot(title, caption, figure)


def _reward(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    caption = (
        f"Exact E[r*] of {_judged(records)}. How much of the way from the reference to the optimum is it?"
    )
    batch = "objective/scores"
    return _against_truth(records, backdrop, "reward", batch, "reward", "True reward", caption)


def _kl(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    caption = (
        f"Exact KL from π_ref of {_judged(records)}. Above the dashed line it is further than it is worth."
    )
    title = "KL from the reference"
    return _against_truth(records, backdrop, "kl", "objective/kl", "nats per answer", title, caption)


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
    caption = f"The trail of {_judged(records)}. None lies above the frontier; β picks the point aimed at."
    return Plot("Reward against KL", caption, figure)


def _implicit_rewards(records: Sequence[Record]) -> Plot | None:
    figure = new_figure("step", "r̂, nats × β")
    for name, color in (("chosen", CHOSEN), ("rejected", REJECTED)):
        steps, means = curve(records, f"rewards/{name}")
        spread_steps, spreads = curve(records, f"rewards/{name}_std")
        if steps and spread_steps == steps:
            low = thinned((steps, [mean - spread for mean, spread in zip(means, spreads, strict=True)]))
            high = thinned((steps, [mean + spread for mean, spread in zip(means, spreads, strict=True)]))
            figure.add_scatter(
                x=high[0] + low[0][::-1], y=high[1] + low[1][::-1], fill="toself", mode="lines", opacity=0.2,
                line={"width": 0}, fillcolor=color, hoverinfo="skip", showlegend=False,
            )  # fmt: skip
        add_line(figure, (steps, means), name, color)
    caption = "r̂ = β·log(π/π_ref), mean and spread of the batch. Watch the gap: both may fall while it grows."
    return Plot("Implicit rewards", caption, figure) if figure.data else None


def _weights_now(records: Sequence[Record]) -> Plot | None:
    batch = next((record for record in reversed(records) if record.pairs and record.pairs.weights), None)
    if batch is None or batch.pairs is None:
        return None
    figure = new_figure("weight", "pairs", barmode="stack")
    groups = (("as labelled", POLICY, False), ("mislabelled", REJECTED, True))
    for name, color, flipped in groups:
        columns = zip(batch.pairs.weights, batch.pairs.flipped, strict=True)
        weights = [weight for weight, flip in columns if bool(flip) == flipped]
        if weights:
            figure.add_histogram(
                x=weights, name=name, xbins={"start": 0, "end": 1, "size": 0.05}, marker={"color": color}
            )
    figure.update_xaxes(range=[0, 1])
    caption = (
        f"Step {batch.step}. σ(rejected − chosen): near 1 are pairs ranked wrong; they drive the gradient."
    )
    return Plot("Gradient weights, last batch", caption, figure)


def _weights_over_time(records: Sequence[Record]) -> Plot | None:
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
