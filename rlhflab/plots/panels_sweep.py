"""The plots of a sweep: every cell on the reward–KL plane, regret against β, and the returns of control problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

from rlhflab.core.record import Backdrop
from rlhflab.plots.marks import Mark, Plot, colour, ends, frontier
from rlhflab.plots.panel import Panel
from rlhflab.plots.panels_dpo import BETA, ERRORS, REF, TRUE_R
from rlhflab.plots.panels_race import RUNNERS

_RACE = {name: own for name, _, own, _ in RUNNERS}  # an algorithm has the colour that it has in a race
_COLOURS = ("policy", "chosen", "rejected", "weight", "fit", "brown", "reference")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

PLANE = Panel(
    id="sweep-plane",
    title="Reward against KL",
    caption="One marker per cell, larger for larger β; stars are the optima for each β.",
    formula=("max_π E[r] − β · KL(π ‖ π_{ref})",),
    symbols=(("frontier", "π* for every β: the best reward at each KL"), ERRORS, TRUE_R, REF, BETA),
    kind="xy",
    x_title="KL(π ‖ π<sub>ref</sub>), nats per answer",
    y_title="E[r]",
)
REGRET = Panel(
    id="sweep-regret",
    title="Regret against β",
    caption="The gap to π* at that β: mean over seeds, and the range from minimum to maximum.",
    formula=("regret = J* − J = β · KL(π ‖ π*)",),
    symbols=(("J*", "the largest possible J, reached by π*"), BETA),
    kind="xy",
    x_title="β",
    y_title="J* − J",
)
RETURN = Panel(
    id="sweep-return",
    title="Return",
    caption="One marker per cell: its last evaluation ± the standard error; dashed: where it counts as solved.",
    formula=("R = Σ_t r_t, mean over episodes",),
    symbols=(("r_t", "reward of time step t, not discounted"),),
    kind="xy",
    y_title="mean return of an episode",
)


class Cell(NamedTuple):
    """One run of a sweep.

    Attributes:
        algorithm: its name.
        settings: the other swept settings, in words; "" for none.
        words: everything that distinguishes it from the others, shown on hovering.
        beta: None in a control problem.
        judged: its last evaluation, as `Record.judged` names it.
    """

    algorithm: str
    settings: str
    words: str
    beta: float | None
    judged: Mapping[str, float]

    @property
    def series(self) -> str:
        return f"{self.algorithm}, {self.settings}" if self.settings else self.algorithm


def colours(algorithms: Sequence[str]) -> dict[str, str]:
    """A colour for each algorithm, all different while there are enough colours."""
    free = [name for name in _COLOURS if name not in {_RACE.get(algorithm) for algorithm in algorithms}]
    free = free or list(_COLOURS)
    others = [name for name in dict.fromkeys(algorithms) if name not in _RACE]
    chosen = {**_RACE, **{name: free[i % len(free)] for i, name in enumerate(others)}}
    return {name: colour(chosen[name]) for name in algorithms}


def sweep_plane(cells: Sequence[Cell], backdrops: Mapping[str, Backdrop]) -> Plot | None:
    """Every cell's place, the frontiers and the optima; None if no cell has a place.

    Args:
        cells: the runs.
        backdrops: algorithm → frontier, if it has one.
    """
    cells = [cell for cell in cells if cell.beta is not None and {"kl", "reward"} <= cell.judged.keys()]
    if not cells:
        return None
    plot = Plot(PLANE)
    betas = sorted({cell.beta for cell in cells if cell.beta is not None})
    reach = max(cell.judged["kl"] for cell in cells)
    known: dict[tuple[float, ...], str] = {}  # one frontier for algorithms that start from the same reference
    for name, backdrop in backdrops.items():  # rounded: sums differ in their last digits between machines
        known.setdefault(tuple(round(r, 4) for r in (backdrop.ref_reward, *backdrop.reward)), name)
    for name in known.values():
        optima = {beta: backdrops[name].at(beta) for beta in betas if backdrops[name].knows(beta)}
        reach = max([reach, *(best.kl for best in optima.values())])
    right = 1.25 * max(reach, 0.1)
    for name in known.values():
        of = "" if len(known) == 1 else f" of {name}"
        plot.marks.extend(frontier(backdrops[name], right, f"frontier{of}"))
        optima = {beta: backdrops[name].at(beta) for beta in betas if backdrops[name].knows(beta)}
        plot.marks.append(
            Mark(
                "dots", [best.kl for best in optima.values()], [best.reward for best in optima.values()],
                name=f"π*{of}", colour=colour("truth"), symbol="star", width=12,
                text=[f"β = {beta:g}" for beta in optima], labelled=True,
            )
        )  # fmt: skip
    for name, own in colours([cell.algorithm for cell in cells]).items():
        for beta in betas:
            same = [cell for cell in cells if (cell.algorithm, cell.beta) == (name, beta)]
            first = beta == min(cell.beta for cell in cells if cell.algorithm == name)  # type: ignore[type-var]
            plot.marks.append(
                Mark(
                    "dots", [cell.judged["kl"] for cell in same], [cell.judged["reward"] for cell in same],
                    name=name if first else "", colour=own, opacity=0.75, text=[cell.words for cell in same],
                    width=8 + 10 * betas.index(beta) / max(1, len(betas) - 1),
                )
            )  # fmt: skip
    plot.x_range, plot.y_range = (-0.03 * right, right), ends(plot.marks)
    return plot


def sweep_regret(cells: Sequence[Cell]) -> Plot | None:
    """Regret against β, a line for every algorithm and combination of settings; None if no cell knows it."""
    cells = [cell for cell in cells if cell.beta is not None and "regret" in cell.judged]
    if not cells:
        return None
    plot = Plot(REGRET)
    own = colours([cell.algorithm for cell in cells])
    drawn = dict.fromkeys(own, 0)  # lines so far, by algorithm
    for name, group in _grouped(cells).items():
        algorithm = group[0].algorithm
        dash = _DASHES[drawn[algorithm] % len(_DASHES)]
        drawn[algorithm] += 1
        found: dict[float, list[float]] = {}
        for cell in sorted(group, key=lambda cell: cell.beta or 0.0):
            found.setdefault(cell.beta or 0.0, []).append(cell.judged["regret"])
        x, means = list(found), [fmean(regrets) for regrets in found.values()]
        if any(len(regrets) > 1 for regrets in found.values()):
            low, high = list(map(min, found.values())), list(map(max, found.values()))
            plot.marks.append(Mark("band", x, low, high, colour=own[algorithm], opacity=0.2))
        plot.marks.append(Mark("stroke", x, means, name=name, colour=own[algorithm], dash=dash, width=2))
        plot.marks.append(Mark("dots", x, means, colour=own[algorithm], width=6))
    betas = sorted({cell.beta for cell in cells if cell.beta is not None})
    plot.x_ticks, plot.x_log = [(beta, f"{beta:g}") for beta in betas], True
    plot.x_range = (betas[0] / 1.3, 1.3 * betas[-1])
    low_end, high_end = ends(plot.marks)
    plot.y_range = (min(0.0, low_end), high_end)
    return plot


def sweep_return(cells: Sequence[Cell], world: str) -> Plot | None:
    """The returns of the cells of one control problem, side by side; None if none has been evaluated."""
    cells = [cell for cell in cells if "return" in cell.judged]
    if not cells:
        return None
    plot = Plot(replace(RETURN, title=f"Return in {world}"))
    groups = _grouped(cells)
    own = colours([cell.algorithm for cell in cells])
    for at, (name, group) in enumerate(groups.items(), start=1):
        plot.marks.append(
            Mark(
                "dots", [float(at)] * len(group), [cell.judged["return"] for cell in group], name=name,
                colour=own[group[0].algorithm], width=10, opacity=0.75, text=[cell.words for cell in group],
                y_error=[cell.judged.get("return_se") for cell in group],
            )
        )  # fmt: skip
    plot.x_range = (0.5, len(groups) + 0.5)
    plot.x_ticks = [(float(at), name) for at, name in enumerate(groups, start=1)]
    solved = cells[0].judged.get("solved")
    if solved is not None:
        plot.marks.append(
            Mark(
                "stroke",
                plot.x_range,
                [solved] * 2,
                name="solved",
                colour=colour("truth"),
                dash="dash",
                width=1,
            )
        )
    plot.y_range = ends(plot.marks)
    return plot


def _grouped(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.series, []).append(cell)
    return groups
