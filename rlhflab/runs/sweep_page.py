"""The page of a sweep: its cells on the reward–KL plane, regret against β, and the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rlhflab.core.record import KL_FROM_SAMPLES
from rlhflab.plots.drawing import TRUTH, Plot, add_frontier, new_figure
from rlhflab.runs.report import cards, table, write_page
from rlhflab.runs.store import Run

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from rlhflab.core.record import Backdrop

COLORS = (
    "#3b7ddd",
    "#2a9d6f",
    "#d9534f",
    "#8e5cc4",
    "#17a2b8",
    "#b8860b",
    "#c2508f",
)  # none is the frontier's
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

Row = dict[str, Any]  # of the results: one cell
STATUSES = ("finished", "diverged", "out of memory", "failed")  # how a cell may have ended


def measured(row: Mapping[str, Any], name: str) -> float | None:
    """A cell's exact `name`, else what was estimated from samples, else None; for "kl", "reward", "regret", …"""
    estimates = KL_FROM_SAMPLES if name == "kl" else (name,)
    for column in (f"exact/{name}", *(f"estimated/{estimate}" for estimate in estimates)):
        value = row.get(column)
        if value is not None and math.isfinite(value):
            return float(value)
    return None


def write_sweep_page(folder: Path, rows: Sequence[Row], swept: Sequence[str] = ()) -> Path:
    """Write `folder`/sweep.html, one file that needs no network, and return where it is.

    Args:
        folder: of the sweep; the frontier comes from its cells.
        rows: of the results, one a cell.
        swept: the further settings that have several values.
    """
    finished = [row for row in rows if row["status"] == "finished"]
    backdrops: dict[str, Backdrop] = {}
    for row in finished:
        backdrop = None if row["algorithm"] in backdrops else Run.open(folder / row["folder"]).backdrop
        if backdrop is not None:
            backdrops[row["algorithm"]] = backdrop
    plots = [_plane(finished, swept, backdrops), _regrets(finished, swept), *_returns(finished, swept)]
    counts = [f"{len(rows)} cells"]
    counts += [
        f"{n} {s}"
        for s in ("diverged", "out of memory", "failed")
        if (n := sum(row["status"] == s for row in rows))
    ]
    path = folder / "sweep.html"
    write_page(
        path,
        f"sweep · {folder.name}",
        ", ".join(counts),
        [cards([plot for plot in plots if plot]), _cells_table(rows, swept)],
    )
    return path


def _series(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[Row]]:
    """The rows by what they have in `names`, in words: "dpo", "dpo, pairs 200"."""
    series: dict[str, list[Row]] = {}
    for row in rows:
        words = _words(row, names)
        series.setdefault(f"{row['algorithm']}, {words}" if words else row["algorithm"], []).append(row)
    return series


def _words(row: Row, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {row[name]}" for name in names if name in row)


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def _plane(rows: Sequence[Row], swept: Sequence[str], backdrops: Mapping[str, Backdrop]) -> Plot | None:
    rows = [row for row in rows if None not in (measured(row, "kl"), measured(row, "reward"))]
    if not rows:
        return None
    figure = new_figure("KL(π‖π_ref), nats per answer", "true reward", height=460)
    betas = sorted({row["beta"] for row in rows})
    _frontiers(figure, betas, backdrops, max(measured(row, "kl") or 0.0 for row in rows))
    for number, (algorithm, own) in enumerate(_series(rows, ()).items()):
        figure.add_scatter(
            x=[measured(row, "kl") for row in own], y=[measured(row, "reward") for row in own],
            name=algorithm, mode="markers",
            text=[_words(row, ("beta", "seed", *swept)) for row in own],
            marker={
                "color": _color(number), "opacity": 0.75, "line": {"width": 0},
                "size": [8 + 10 * betas.index(row["beta"]) / max(1, len(betas) - 1) for row in own],
            },
        )  # fmt: skip
    caption = "One marker a cell, the larger the greater β; stars are the optima that each β aims at."
    return Plot("Reward against KL", caption, figure)


def _frontiers(
    figure: go.Figure, betas: Sequence[float], backdrops: Mapping[str, Backdrop], reach: float
) -> None:
    """One frontier for algorithms that start from the same reference, and the optima on it."""
    shown: dict[tuple[float, ...], str] = {}
    for (
        algorithm,
        backdrop,
    ) in backdrops.items():  # rounded: sums differ in their last digits between machines
        shown.setdefault(tuple(round(r, 4) for r in (backdrop.ref_reward, *backdrop.reward)), algorithm)
    for algorithm in shown.values():
        backdrop, of = backdrops[algorithm], "" if len(shown) == 1 else f" of {algorithm}"
        optima = [backdrop.at(beta) for beta in betas]
        add_frontier(figure, backdrop, max(reach, *(best.kl for best in optima)), f"frontier{of}")
        figure.add_scatter(
            x=[best.kl for best in optima], y=[best.reward for best in optima], name=f"optima{of}",
            text=[f"β = {beta:g}" for beta in betas], mode="markers+text", textposition="top left",
            marker={"symbol": "star", "size": 12, "color": TRUTH},
        )  # fmt: skip


def _regrets(rows: Sequence[Row], swept: Sequence[str]) -> Plot | None:
    rows = [row for row in rows if measured(row, "regret") is not None]
    if not rows:
        return None
    betas = sorted({row["beta"] for row in rows})
    figure = new_figure("β", "J* − J", height=460)
    figure.update_xaxes(type="log", tickvals=betas, ticktext=[f"{beta:g}" for beta in betas])
    figure.update_yaxes(rangemode="tozero")
    algorithms = list(_series(rows, ()))
    lines = dict.fromkeys(algorithms, 0)  # drawn so far, an algorithm
    for name, own in _series(rows, swept).items():
        algorithm = own[0]["algorithm"]
        color, dash = _color(algorithms.index(algorithm)), DASHES[lines[algorithm] % len(DASHES)]
        lines[algorithm] += 1
        by_beta = {b: [measured(row, "regret") or 0.0 for row in own if row["beta"] == b] for b in betas}
        by_beta = {beta: regrets for beta, regrets in by_beta.items() if regrets}
        if any(len(regrets) > 1 for regrets in by_beta.values()):
            x, low, high = list(by_beta), list(map(min, by_beta.values())), list(map(max, by_beta.values()))
            figure.add_scatter(
                x=x + x[::-1], y=high + low[::-1], fill="toself", mode="lines", opacity=0.2, line={"width": 0},
                fillcolor=color, hoverinfo="skip", showlegend=False,
            )  # fmt: skip
        figure.add_scatter(
            x=list(by_beta), y=list(map(fmean, by_beta.values())), name=name, mode="lines+markers",
            line={"color": color, "width": 2, "dash": dash},
        )  # fmt: skip
    caption = (
        "J* − J = β·KL(π‖π*), what is missing at that β: mean over seeds, and from the least to the greatest."
    )
    return Plot("Regret against β", caption, figure)


def _returns(rows: Sequence[Row], swept: Sequence[str]) -> list[Plot]:
    """One plot a control world: the return of every cell, side by side."""
    by_world: dict[str, list[Row]] = {}
    for row in rows:
        if measured(row, "return") is not None:
            by_world.setdefault(row["world"], []).append(row)
    plots = []
    for world, found in by_world.items():
        figure = new_figure("", "mean return of an episode", height=460)
        for number, (name, own) in enumerate(_series(found, [s for s in swept if s != "world"]).items()):
            figure.add_scatter(
                x=[name] * len(own), y=[measured(row, "return") for row in own], name=name, mode="markers",
                text=[_words(row, ("seed",)) for row in own],
                error_y={"array": [row.get("estimated/return_se") for row in own], "thickness": 1, "width": 0},
                marker={"color": _color(number), "size": 10, "opacity": 0.75}, showlegend=False,
            )  # fmt: skip
        solved = measured(found[0], "solved")
        if solved is not None:
            figure.add_hline(y=solved, line={"color": TRUTH, "dash": "dash", "width": 1})
        caption = (
            "One marker a cell: its last evaluation ± the standard error; dashed: where it counts as solved."
        )
        plots.append(Plot(f"Return in {escape(world)}", caption, figure))
    return plots


def _cells_table(rows: Sequence[Row], swept: Sequence[str]) -> str:
    of_control, of_language = (
        any((row["beta"] is None) == control for row in rows) for control in (True, False)
    )
    settings = ["algorithm", *(["beta"] if of_language else []), "seed", *swept]
    numbers = [*(["reward", "kl", "regret"] if of_language else []), *(["return"] if of_control else [])]
    lines = []
    for row in rows:
        cells = [f"<td>{escape('' if row.get(name) is None else str(row[name]))}</td>" for name in settings]
        for name in numbers:
            value, bound = measured(row, name), measured(row, f"{name}_at_least")
            text = "" if bound is None else f"≥ {bound:.3f}"
            cells.append(f"<td class='n'>{text if value is None else f'{value:.3f}'}</td>")
        how = row["status"] + (f": {row['error']}" if row.get("error") else "")
        cells += [f"<td class='t'>{escape(how)}</td>", f"<td>{escape(row['folder'])}</td>"]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = [escape(name) for name in (*settings, *numbers, "status", "run")]
    return table(
        "Cells",
        "All numbers are in results.csv; <code>rlhflab report</code> shows a run by itself.",
        head,
        lines,
    )
