"""A run as one HTML file: its curves against the exact truth, its pairs, its samples. Opens anywhere, needs no network.

`figures` makes the same plots for any sequence of records, so a notebook without widgets can show them too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhflab.algorithms.record import Backdrop, Pairs, Record
from rlhflab.files import written_beside
from rlhflab.runs.store import Run

if TYPE_CHECKING:
    import plotly.graph_objects as go

POLICY, CHOSEN, REJECTED, TRUTH, REFERENCE = "#3b7ddd", "#2a9d6f", "#d9534f", "#e8912d", "#8a94a0"
INK, GRID = "#808892", "rgba(128,136,146,0.25)"  # readable on white and on black
POINTS = 2_000  # most points of a curve that are drawn
TOP_PAIRS = 30
CONFIG = {"displaylogo": False, "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]]}

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


def write_report(run: Run, path: str | Path | None = None) -> Path:
    """Write the report of a run and return where it is.

    Args:
        run: the run; read to its last record.
        path: the HTML file to create or replace; default `report.html` in the run's folder.

    Raises:
        ValueError: the run has no records yet, or they are damaged.
    """
    records = list(run.records())
    if not records:
        raise ValueError(f"{run.folder} has no records yet; nothing to report")
    path = Path(path) if path is not None else run.folder / "report.html"
    last = records[-1]
    cards = []
    for number, plot in enumerate(figures(records, run.backdrop)):
        div = plot.figure.to_html(full_html=False, include_plotlyjs=number == 0, config=CONFIG)
        cards.append(f"<figure><h2>{plot.title}</h2><p>{plot.caption}</p>{div}</figure>")
    name = f"{run.config.get('algorithm', 'run')} · {run.folder.resolve().name}"
    summary = f"{last.step} steps" + "".join(f", {key} {value:g}" for key, value in last.knobs.items())
    if run.status:
        summary += f", {run.status.get('status')}"
    body = [
        f"<header><h1>{escape(name)}</h1><p>{escape(summary)}</p></header>",
        _tiles(records),
        f"<main>{''.join(cards)}</main>",
        _pairs_table(records),
        _samples_table(records),
        _facts("Configuration", run.config),
        _facts("Environment", run.environment),
    ]
    page = PAGE.format(title=escape(name), style=STYLE, body="\n".join(part for part in body if part))
    with written_beside(path) as beside:
        beside.write_text(page, encoding="utf-8")
    return path


# Curves


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


def _figure(x: str, y: str, **layout: Any) -> go.Figure:
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
    figure = _figure("step", y)
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
    figure = _figure("step", "efficiency")
    _line(figure, curve, "efficiency", POLICY)
    figure.add_hline(y=1, line={"color": TRUTH, "dash": "dash", "width": 1})
    caption = "Reward gained over the most that can be gained at this KL. Nothing goes above 1."
    return Plot("Efficiency", caption, figure)


def _regret(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    curve = _curve(records, "exact", "regret")
    if not curve[0]:
        return None
    figure = _figure("step", "J* − J")
    _line(figure, curve, "regret", POLICY)
    figure.update_yaxes(rangemode="tozero")
    caption = "J* − J = β·KL(π‖π*), what is missing. If it rises while β stays, training went on too long."
    return Plot("Regret", caption, figure)


def _plane(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    trail = [r for r in records if r.exact is not None and {"kl", "reward"} <= r.exact.keys()]
    if not trail:
        return None
    trail = trail[:: max(1, len(trail) // 400)] + trail[-1:]
    kls, rewards = ([float(r.exact[key]) for r in trail if r.exact] for key in ("kl", "reward"))
    figure = _figure("KL(π‖π_ref), nats per answer", "true reward")
    beta = trail[-1].knobs.get("beta", 0.0)
    if backdrop is not None:
        end = 1.25 * max([*kls, backdrop.at(beta).kl if beta > 0 else 0.0, 0.1])
        frontier = sorted([(0.0, backdrop.ref_reward), *zip(backdrop.kl, backdrop.reward, strict=True)])
        figure.add_scatter(
            x=[kl for kl, _ in frontier], y=[reward for _, reward in frontier], name="frontier", mode="lines",
            line={"color": TRUTH, "width": 2},
        )  # fmt: skip
        figure.update_xaxes(range=[-0.03 * end, end])
    figure.add_scatter(
        x=kls, y=rewards, name="this run", mode="lines+markers", text=[f"step {r.step}" for r in trail],
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
    figure = _figure("step", "r̂, nats × β")
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
    figure = _figure("step", "margin, nats × β")
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
    figure = _figure("step", "loss, nats")
    _line(figure, curve, "loss", POLICY)
    return Plot("Loss", "DPO starts at ln 2 ≈ 0.693, where the policy is the reference.", figure)


def _weights_now(records: Sequence[Record], backdrop: Backdrop | None) -> Plot | None:
    batch = next((record for record in reversed(records) if record.pairs and record.pairs.weights), None)
    if batch is None or batch.pairs is None:
        return None
    figure = _figure("weight σ(r̂_l − r̂_w)", "pairs", barmode="stack")
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
    figure = _figure("step", "weight")
    figure.add_heatmap(
        x=steps, y=((edges[1:] + edges[:-1]) / 2).tolist(), z=[list(row) for row in zip(*shares, strict=True)],
        colorscale="Viridis", colorbar={"title": {"text": "share"}, "thickness": 10},
    )  # fmt: skip
    caption = "All start at ½. Learned pairs sink to 0; what stays near 1 is hard or mislabelled."
    return Plot("Gradient weights over time", caption, figure)


# Tables


def _tiles(records: Sequence[Record]) -> str:
    exact = next((record.exact for record in reversed(records) if record.exact), None)
    if not exact:
        return ""
    tiles = [f"<div><b>{value:.3f}</b><span>{escape(key)}</span></div>" for key, value in exact.items()]
    return f'<section class="tiles">{"".join(tiles)}</section>'


def _table(title: str, note: str, head: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f"<th>{name}</th>" for name in head)
    return (
        f"<section><h2>{title}</h2><p>{note}</p><div class='scroll'><table><thead><tr>{cells}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _pairs_table(records: Sequence[Record]) -> str:
    last_seen: dict[int, tuple[Pairs, int]] = {}
    for record in records:
        if record.pairs:
            last_seen.update({pair: (record.pairs, i) for i, pair in enumerate(record.pairs.ids)})
    if not last_seen:
        return ""
    rows = []
    for pairs, i in sorted(last_seen.values(), key=lambda seen: -seen[0].weights[seen[1]])[:TOP_PAIRS]:
        flipped = " class='flipped'" if pairs.flipped[i] else ""
        mark = "⚑ mislabelled" if pairs.flipped[i] else ""
        numbers = (pairs.weights[i], pairs.chosen_rewards[i], pairs.rejected_rewards[i])
        texts = (pairs.prompts[i], pairs.chosen[i], pairs.rejected[i])
        rows.append(
            f"<tr{flipped}>"
            + "".join(f"<td class='n'>{number:.3f}</td>" for number in numbers)
            + "".join(f"<td class='t'>{escape(text)}</td>" for text in texts)
            + f"<td>{mark}</td></tr>"
        )
    head = ("weight", "r̂ chosen", "r̂ rejected", "prompt", "chosen", "rejected", "")
    note = f"The {len(rows)} heaviest of {len(last_seen)} pairs, each as last seen."
    return _table("Pairs that pull hardest", note, head, rows)


def _samples_table(records: Sequence[Record]) -> str:
    drawn = next((record for record in reversed(records) if record.samples), None)
    if drawn is None:
        return ""
    rows = []
    for sample in drawn.samples:
        cells = [f"<td class='t'>{escape(sample.prompt)}</td>"]
        for text, reward in ((sample.before, sample.reward_before), (sample.after, sample.reward_after)):
            number = "" if reward is None else f"{reward:+.2f}"
            cells.append(f"<td class='t'>{escape(text)}</td><td class='n'>{number}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = ("prompt", "before: π_ref", "r*", "after: π", "r*")
    return _table("Answers before and after", f"Drawn at step {drawn.step}.", head, rows)


def _facts(title: str, facts: dict[str, Any]) -> str:
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        flat.update(value if isinstance(value, dict) else {key: value})
    if not flat:
        return ""
    rows = [
        f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>" for key, value in flat.items()
    ]
    return f"<details><summary>{title}</summary><table><tbody>{''.join(rows)}</tbody></table></details>"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body>
{body}
</body></html>
"""
STYLE = """
:root { color-scheme: light dark; --ink: #1c2329; --soft: #5c6670; --page: #f5f6f8; --card: #fff; --line: #dfe3e8;
  --flag: #fdecea; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa4ae; --page: #14181c; --card: #1d2227;
  --line: #333a41; --flag: #3d2222; } }
body { margin: 0 auto; max-width: 1240px; padding: 24px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 16px; margin: 0; }
p { color: var(--soft); margin: 2px 0 8px; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(480px, 100%), 1fr)); gap: 16px; }
figure, section, details { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px;
  margin: 0; min-width: 0; box-sizing: border-box; }
section, details { margin: 16px 0; }
.tiles { display: flex; flex-wrap: wrap; gap: 8px 32px; }
.tiles b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; } .tiles span { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.t { white-space: pre-wrap; overflow-wrap: anywhere; }
tr.flipped { background: var(--flag); }
summary { cursor: pointer; font-weight: 600; }
.plotly-graph-div text { fill: var(--soft) !important; } .plotly-graph-div .hoverlayer text { fill: #fff !important; }
"""
