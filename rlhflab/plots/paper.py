"""Plots as files for a paper: our own SVG, or PDF by matplotlib."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlhflab.files import written_beside
from rlhflab.plots.marks import Mark, Plot, Scene, axis_titles, marks
from rlhflab.plots.panel import as_html
from rlhflab.plots.svg import svg

_COLUMNS = 3  # panels side by side
_SIZE = (3.4, 2.7)  # of one panel, in inches
_DASHES = {"solid": "-", "dash": (0, (4, 2)), "dot": ":"}
_SYMBOLS = {"circle": "o", "diamond": "D", "star": "*"}


def save_figure(scene: Scene, path: str | Path, panels: Sequence[str] = (), title: str = "") -> Path:
    """Write the plots of a scene as vector graphics, on white, and return the file's path.

    Args:
        scene: panels without data are left out.
        path: the file to create or replace; its suffix, .svg or .pdf, chooses the format. PDF needs matplotlib.
        panels: ids of those to draw, in this order; () for all.
        title: heading; "" for none.

    Raises:
        ValueError: another suffix, no such panel, nothing to draw, or no matplotlib; in one line.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".svg", ".pdf"):
        raise ValueError(f"a figure's file must end in .svg or .pdf, got {str(path)!r}")
    shown = {panel.id: panel for panel in scene.shown()}
    for name in panels:
        if name not in shown:
            raise ValueError(
                f"panels must be among {', '.join(shown) or 'none: nothing to draw'}; got {name!r}"
            )
    if not shown:
        raise ValueError("there is nothing to draw yet: no record has data for a panel")
    if kind == ".pdf" and find_spec("matplotlib") is None:
        raise ValueError("a PDF needs matplotlib: python -m pip install matplotlib")
    scene = replace(scene, panels=[shown[name] for name in panels or shown])
    with written_beside(path) as beside:
        if kind == ".svg":
            beside.write_text(svg(scene, title, columns=_COLUMNS), encoding="utf-8")
        else:
            _figure(scene, title).savefig(beside, format="pdf")
    return path


def _figure(scene: Scene, title: str) -> Any:
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(scene.panels))
    rows = -(-len(scene.panels) // columns)
    built = Figure(figsize=(columns * _SIZE[0], rows * _SIZE[1]), layout="constrained")
    if title:
        built.suptitle(title)
    for number, panel in enumerate(scene.panels):
        _draw(built.add_subplot(rows, columns, number + 1), marks(panel, scene))
    return built


def _draw(axes: Any, plot: Plot) -> None:
    below, beside, opposite = map(_words, axis_titles(plot))
    axes.set_title(plot.panel.title, fontsize=10)
    axes.set_xlabel(below, fontsize=8)
    axes.set_ylabel(beside, fontsize=8)
    axes.set(xlim=plot.x_range, ylim=plot.y_range, yscale="log" if plot.log else "linear")
    axes.grid(alpha=0.25)
    sides = [axes]
    if plot.right_range is not None:
        sides.append(axes.twinx())
        sides[1].set_ylim(plot.right_range)
        sides[1].set_ylabel(opposite, fontsize=8)
    for mark in plot.marks:
        _add(sides[-1] if mark.right else axes, mark)
    handles = [handle for side in sides for handle in side.get_legend_handles_labels()[0]]
    if handles:
        sides[-1].legend(handles=handles, fontsize=6, loc="best", framealpha=0.7)
    for side in sides:
        side.tick_params(labelsize=7)
        side.spines[["top"] if len(sides) > 1 else ["top", "right"]].set_visible(False)


def _add(axes: Any, mark: Mark) -> None:
    nan = float("nan")
    x, y, y2, x_error, y_error = (
        [nan if value is None else value for value in column]
        for column in (mark.x, mark.y, mark.y2, mark.x_error, mark.y_error)
    )
    own = {"color": mark.colour, "alpha": mark.opacity, "label": _words(mark.name) or None}
    if mark.kind == "stroke":
        axes.plot(x, y, linestyle=_DASHES.get(mark.dash, "-."), linewidth=0.7 * mark.width, **own)
    elif mark.kind == "band":
        axes.fill_between(x, y, y2, linewidth=0, **own)
    elif mark.kind == "bars":
        axes.bar(x, y, width=0.9 * (x[1] - x[0]) if len(x) > 1 else 0.9, **own)
    elif mark.kind == "heat":
        from matplotlib.colors import LinearSegmentedColormap

        shades = LinearSegmentedColormap.from_list("share", ["#ffffff", mark.colour])
        bins = len(mark.z[0])
        edges = [i / bins for i in range(bins + 1)]
        axes.pcolormesh(x, edges, list(zip(*mark.z, strict=True)), cmap=shades, vmin=0, vmax=60)
    else:
        shape = {"marker": _SYMBOLS[mark.symbol], "markersize": 0.6 * mark.width, "elinewidth": 0.6}
        axes.errorbar(x, y, xerr=x_error or None, yerr=y_error or None, linestyle="", **shape, **own)


def _words(text: str) -> str:
    """A name in matplotlib's notation: subscripts and superscripts as mathematics, the rest unchanged."""
    html = text if "<su" in text else as_html(text)  # axis titles are HTML already
    parts = re.split(r"<(sub|sup)>(.*?)</\1>", html)
    written = unescape(parts[0]).replace("$", r"\$")
    for tag, inner, after in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        sign = "_" if tag == "sub" else "^"
        written += f"${sign}{{\\mathrm{{{unescape(inner)}}}}}$" + unescape(after).replace("$", r"\$")
    return written
