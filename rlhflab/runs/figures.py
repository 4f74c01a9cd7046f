"""The plots of a run as plotly figures: its curves against the exact truth, its gradient weights.

They are made from any sequence of records, so a notebook without widgets can show them too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from rlhflab.core.record import KL_FROM_SAMPLES, Backdrop, Record
from rlhflab.plots.drawing import (
    CHOSEN,
    FAINT,
    POLICY,
    REFERENCE,
    REJECTED,
    TRUTH,
    Plot,
    Points,
    add_band,
    add_frontier,
    add_line,
    curve,
    new_figure,
)
from rlhflab.runs.charts import COLUMNS, EPISODES, EXACT, TRAINING, ratios


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
    """Whose values the records hold: the policy's, or those of the policy that a reward model would lead to."""
    blocks = [block for record in records for block in (record.exact, record.estimated) if block]
    of_model = any("rank_correlation" in block for block in blocks)
    return "π*_φ, the policy that is optimal for the reward model" if of_model else "the policy"


def _optima(records: Sequence[Record], backdrop: Backdrop | None, field: str) -> Points:
    """The optimum for the β in force, as a staircase: first and last step of each stretch of equal β."""
    if backdrop is None:
        return [], []
    steps: list[float] = []
    values: list[float] = []
    with_beta = (record for record in records if backdrop.knows(record.knobs.get("beta", 0)))
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
    figure = new_figure("step", y)
    add_line(figure, curve(records, batch), "batch", FAINT)
    shown = False
    estimates = (*KL_FROM_SAMPLES, "kl") if key == "kl" else (key,)
    for name in (f"exact/{key}", *(f"estimated/{estimate}" for estimate in estimates)):
        points, (_, errors) = curve(records, name), curve(records, f"{name}_se")
        kind = "exact" if name.startswith("exact/") else "estimate"
        if len(errors) == len(points[0]) > 0 and name != "estimated/kl_k3":
            add_band(figure, points, errors, POLICY)
            kind = "estimate ± its error"
        add_line(figure, points, kind, POLICY)
        if key == "reward":
            add_line(
                figure, curve(records, name.replace("reward", "ref_reward")), "reference", REFERENCE, "dot"
            )
        shown = shown or bool(points[0])
    add_line(figure, _optima(records, backdrop, key), "optimum at this β", TRUTH, "dash", thin=False)
    return Plot(title, caption, figure) if shown else None


def _reward(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    caption = f"E[r*] of {_judged(records)}. How much of the way from the reference to the optimum is it?"
    batch = "objective/scores"
    return _against_truth(records, backdrop, "reward", batch, "reward", "True reward", caption)


def _kl(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    caption = f"KL from π_ref of {_judged(records)}. Above the dashed line it is further than it is worth."
    title = "KL from the reference"
    return _against_truth(records, backdrop, "kl", "objective/kl", "nats per answer", title, caption)


def _plane(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    trail = [
        (record, place) for record in records if (place := record.place) and all(map(math.isfinite, place))
    ]
    if not trail:
        return None
    trail = trail[: -1 : max(1, len(trail) // 400)] + trail[-1:]
    places = [place for _, place in trail]
    figure = new_figure("KL(π‖π_ref), nats per answer", "true reward")
    beta = trail[-1][0].knobs.get("beta", 0.0)
    best = backdrop.at(beta) if backdrop is not None and backdrop.knows(beta) else None
    if backdrop is not None:
        add_frontier(figure, backdrop, max([*(place.kl for place in places), best.kl if best else 0.0]))
    estimated = any(place.reward_se for place in places)
    bars = {"thickness": 1, "width": 0}
    figure.add_scatter(
        x=[place.kl for place in places], y=[place.reward for place in places], mode="lines+markers",
        name="this run, ± its errors" if estimated else "this run",
        text=[f"step {record.step}" for record, _ in trail],
        line={"color": POLICY, "width": 1}, marker={"color": POLICY, "size": 5},
        error_x={"array": [place.kl_se for place in places], **bars} if estimated else None,
        error_y={"array": [place.reward_se for place in places], **bars} if estimated else None,
    )  # fmt: skip
    if best is not None:
        figure.add_scatter(
            x=[best.kl], y=[best.reward], name=f"optimum at β = {beta:g}", mode="markers",
            marker={"symbol": "star", "size": 14, "color": TRUTH},
        )  # fmt: skip
    caption = f"The trail of {_judged(records)}. None lies above the frontier; β picks the point aimed at."
    if estimated:
        caption += " Estimates: a bar of one standard error may reach above it."
    return Plot("Reward against KL", caption, figure)


def _implicit_rewards(records: Sequence[Record]) -> Plot | None:
    figure = new_figure("step", "r̂, nats × β")
    for name, color in (("chosen", CHOSEN), ("rejected", REJECTED)):
        steps, means = curve(records, f"rewards/{name}")
        spread_steps, spreads = curve(records, f"rewards/{name}_std")
        if steps and spread_steps == steps:
            add_band(figure, (steps, means), spreads, color)
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
