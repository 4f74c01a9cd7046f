"""The page of a sweep: its cells on the reward–KL plane, regret against β, and the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from rlhflab.core.record import Backdrop, judgement
from rlhflab.plots.panels_sweep import Cell, sweep_plane, sweep_regret, sweep_return
from rlhflab.runs.report import cards, table, write_page
from rlhflab.runs.store import Run

Row = dict[str, Any]  # of the results: one cell
STATUSES = ("finished", "diverged", "out of memory", "failed")  # the ways a cell can end
_HEIGHT = 460  # of a plot, in pixels


def judged(row: Mapping[str, Any]) -> dict[str, float]:
    """A cell's last evaluation, exact or estimated, under the names of `Record.judged`, finite values only."""
    exact, estimated = (
        {
            name.removeprefix(part): float(value)
            for name, value in row.items()
            if name.startswith(part) and value is not None and math.isfinite(value)
        }
        for part in ("exact/", "estimated/")
    )
    return judgement(exact, estimated)


def write_sweep_page(folder: Path, rows: Sequence[Row], swept: Sequence[str] = ()) -> Path:
    """Write `folder`/sweep.html, one file that needs no network, and return where it is.

    Args:
        folder: of the sweep; the frontier comes from its cells.
        rows: the results, one per cell.
        swept: the further settings that are swept.
    """
    finished = [row for row in rows if row["status"] == "finished"]
    backdrops: dict[str, Backdrop] = {}
    for row in finished:
        backdrop = None if row["algorithm"] in backdrops else Run.open(folder / row["folder"]).backdrop
        if backdrop is not None:
            backdrops[row["algorithm"]] = backdrop
    cells = [_cell(row, swept) for row in finished]
    plots = [sweep_plane(cells, backdrops), sweep_regret(cells)]
    elsewhere = [name for name in swept if name != "world"]
    for world in dict.fromkeys(row["world"] for row in finished if "return" in judged(row)):
        here = [_cell(row, elsewhere) for row in finished if row.get("world") == world]
        plots.append(sweep_return(here, world))
    counts = [f"{len(rows)} cells"]
    counts += [
        f"{n} {status}" for status in STATUSES[1:] if (n := sum(row["status"] == status for row in rows))
    ]
    path = folder / "sweep.html"
    shown = cards([plot for plot in plots if plot], _HEIGHT)
    write_page(path, f"sweep · {folder.name}", ", ".join(counts), [shown, _cells_table(rows, swept)])
    return path


def _cell(row: Row, swept: Sequence[str]) -> Cell:
    words = _words(row, ("seed",) if row["beta"] is None else ("beta", "seed", *swept))
    return Cell(row["algorithm"], _words(row, swept), words, row["beta"], judged(row))


def _words(row: Row, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {row[name]}" for name in names if name in row)


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
            value, bound = judged(row).get(name), judged(row).get(f"{name}_at_least")
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
