"""A run as one HTML file: its plots, its pairs, its samples. Opens anywhere, needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from rlhflab.core.record import Pairs, Record
from rlhflab.files import written_beside
from rlhflab.plots.marks import Plot, marks
from rlhflab.plots.panel import COLOURS, as_html
from rlhflab.plots.still import single
from rlhflab.runs.scene import scenes
from rlhflab.runs.store import Run

TOP_PAIRS = 30
CONFIG = {"displaylogo": False, "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]]}


def write_report(run: Run, path: str | Path | None = None) -> Path:
    """Write the report of a run and return where it is.

    Args:
        run: the run; read to its last record.
        path: the HTML file to create or replace; by default `report.html` in the run's folder.

    Raises:
        ValueError: the run has no records yet, or they are damaged.
    """
    records = list(run.records())
    if not records:
        raise ValueError(f"{run.folder} has no records yet; nothing to report")
    path = Path(path) if path is not None else run.folder / "report.html"
    last = records[-1]
    name = f"{run.config.get('algorithm', 'run')} · {run.folder.resolve().name}"
    summary = f"{last.step} steps" + "".join(f", {key} {value:g}" for key, value in last.knobs.items())
    if run.status:
        summary += f", {run.status.get('status')}"
    plots, more = _plots(records, run)
    parts = [
        _tiles(records),
        plots,
        _pairs_table(records),
        _samples_table(records),
        more,
        _facts("Configuration", run.config),
        _facts("Environment", run.environment),
    ]
    write_page(path, name, summary, parts)
    return path


def write_page(path: Path, title: str, summary: str, parts: Sequence[str]) -> None:
    """Write one HTML file: a header (texts, escaped here) and the parts (HTML) below it; empty ones are left out."""
    header = f"<header><h1>{escape(title)}</h1><p>{escape(summary)}</p></header>"
    body = "\n".join(part for part in (header, *parts) if part)
    with written_beside(path) as beside:
        beside.write_text(PAGE.format(title=escape(title), style=STYLE, body=body), encoding="utf-8")


def _plots(records: Sequence[Record], run: Run) -> tuple[str, str]:
    """The plots of the run's algorithm, and those of everything else in its records."""
    main, more = (
        [marks(panel, scene) for panel in scene.shown()]
        for scene in scenes(records, run.backdrop, run.config.get("algorithm", ""))
    )
    if not main:
        main, more = more, []
    return cards(main), f"<h2>Also recorded</h2>{cards(more, first=False)}" if more else ""


def cards(plots: Sequence[Plot], height: int = 320, first: bool = True) -> str:
    """The plots as HTML, a card each; the first one of a page includes plotly.js."""
    html = []
    for number, plot in enumerate(plots):
        panel = plot.panel
        drawn = single(plot, height).to_html(
            full_html=False, include_plotlyjs=first and number == 0, config=CONFIG
        )
        step = "" if plot.step is None else f"Step {plot.step}. "
        html.append(
            f"<figure><h2>{escape(panel.title)}</h2><p>{step}{as_html(panel.caption)}</p>{drawn}"
            f"{_formula(plot)}</figure>"
        )
    return f"<main>{''.join(html)}</main>"


def _formula(plot: Plot) -> str:
    """What the "?" of a board opens: the formula, and what its symbols mean."""
    lines = "".join(f"<div class='formula'>{as_html(line)}</div>" for line in plot.panel.formula)
    symbols = "".join(
        f"<dt>{as_html(name)}</dt><dd>{as_html(meaning)}</dd>" for name, meaning in plot.panel.symbols
    )
    return f"<details class='what'><summary>Formula</summary>{lines}<dl>{symbols}</dl></details>"


def _tiles(records: Sequence[Record]) -> str:
    judged = next((record for record in reversed(records) if record.judged), None)
    if judged is None:
        return ""
    values, tiles = judged.judged, []
    for key, value in values.items():
        if not key.endswith("_se"):
            error = f" ± {values[f'{key}_se']:.3f}" if f"{key}_se" in values else ""
            tiles.append(f"<div><b>{value:.3f}{error}</b><span>{escape(key.replace('_', ' '))}</span></div>")
    how = "exact" if judged.judged_exactly else "estimated from samples"
    note = f"<p>The last evaluation, of step {judged.step}: {how}.</p>"
    return f'<section>{note}<div class="tiles">{"".join(tiles)}</div></section>'


def table(title: str, note: str, head: Sequence[str], rows: Sequence[str]) -> str:
    """A section with a table; all arguments are already HTML."""
    cells = "".join(f"<th>{name}</th>" for name in head)
    return (
        f"<section><h2>{title}</h2><p>{note}</p><div class='scroll'><table><thead><tr>{cells}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def tables(records: Sequence[Record], most: int = 6) -> str:
    """The tables of a report for a notebook, as HTML: answers before and after, or else pairs.

    Args:
        records: of a run, in order.
        most: most pairs.
    """
    body = (
        _samples_table(records)
        or _pairs_table(records, most)
        or "<p>There are no texts in these records.</p>"
    )
    return f"<div class='rlhf-tables'><style>{TABLES_STYLE}</style>{body}</div>"


def _pairs_table(records: Sequence[Record], most: int = TOP_PAIRS) -> str:
    last_seen: dict[int, tuple[Pairs, int]] = {}
    for record in records:
        if record.pairs:
            last_seen.update({pair: (record.pairs, i) for i, pair in enumerate(record.pairs.ids)})
    if not last_seen:
        return ""
    heaviest = sorted(last_seen.values(), key=lambda seen: -seen[0].weights[seen[1]])[:most]
    marked = any(pairs.flipped[i] for pairs, i in heaviest)
    rows = []
    for pairs, i in heaviest:
        flipped = " class='flipped'" if pairs.flipped[i] else ""
        mark = f"<td>{'⚑ mislabelled' if pairs.flipped[i] else ''}</td>" if marked else ""
        numbers = (pairs.weights[i], pairs.chosen_rewards[i], pairs.rejected_rewards[i])
        texts = (pairs.prompts[i], pairs.chosen[i], pairs.rejected[i])
        rows.append(
            f"<tr{flipped}>"
            + "".join(f"<td class='n'>{number:.3f}</td>" for number in numbers)
            + "".join(f"<td class='t'>{escape(text.strip())}</td>" for text in texts)
            + f"{mark}</tr>"
        )
    head = (
        "weight",
        "reward of chosen",
        "of rejected",
        "prompt",
        "chosen",
        "rejected",
        *([""] if marked else []),
    )
    note = f"The {len(rows)} heaviest of {len(last_seen)} pairs, each as last seen."
    return table("Pairs that pull hardest", note, head, rows)


def _samples_table(records: Sequence[Record]) -> str:
    drawn = next((record for record in reversed(records) if record.samples), None)
    if drawn is None:
        return ""
    judged = any(sample.reward_after is not None for sample in drawn.samples)
    rows = []
    for sample in drawn.samples:
        cells = [f"<td class='t'>{escape(sample.prompt.strip())}</td>"]
        for text, reward in ((sample.before, sample.reward_before), (sample.after, sample.reward_after)):
            cells.append(f"<td class='t'>{escape(text.strip())}</td>")
            if judged:
                cells.append(f"<td class='n'>{'' if reward is None else f'{reward:+.2f}'}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    rewards = ["r*"] if judged else []
    head = ("prompt", "before: π_ref", *rewards, "after: π", *rewards)
    return table("Answers before and after", f"Drawn at step {drawn.step}.", head, rows)


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
TABLES_STYLE = """
.rlhf-tables { max-width: 1100px; } .rlhf-tables table { width: 100%; table-layout: auto !important; }
.rlhf-tables h2 { font-size: 15px; margin: 4px 0 0; }
.rlhf-tables th, .rlhf-tables td { text-align: left !important; vertical-align: top; }
.rlhf-tables td.t { white-space: pre-wrap; overflow-wrap: anywhere; } .rlhf-tables td.n { white-space: nowrap; }
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
figure details.what { border: 0; padding: 0; margin: 6px 0 0; font-size: 13px; } .what summary { font-weight: 400; }
.what summary, .what dd { color: var(--soft); }
.formula { font-family: Cambria, "STIX Two Math", serif; font-size: 16px; }
.what dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 12px; margin: 6px 0 0; }
.what dd { margin: 0; }
body > h2 { margin: 24px 0 12px; }
.plotly-graph-div text { fill: var(--soft) !important; } .plotly-graph-div .hoverlayer text { fill: #fff !important; }
""" + "\n".join(
    f"@media (prefers-color-scheme: dark) {{ .js-plotly-plot [style*='{kind}: rgb({red}, {green}, {blue})'] "
    f"{{ {kind}: {on_black} !important; }} }}"
    for on_white, on_black in COLOURS.values()
    for red, green, blue in [tuple(int(on_white[at : at + 2], 16) for at in (1, 3, 5))]
    for kind in ("stroke", "fill")
)  # the plots are drawn in the colours on white
