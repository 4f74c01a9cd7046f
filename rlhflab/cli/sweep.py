"""`rlhflab sweep`: a grid of algorithms × β × seeds on several processes or a Dask cluster; results in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhflab import processes
from rlhflab.cli.messages import one_line_errors, say
from rlhflab.cli.options import path, value_of
from rlhflab.core.settings import Declared
from rlhflab.recipes import CONTROL, LANGUAGE, recipe_class
from rlhflab.recipes.dpo import DPO
from rlhflab.strict_json import json_line

if TYPE_CHECKING:
    from rlhflab.runs.sweep import Swept


def sweep_command(
    algorithms: Annotated[str, typer.Option(help=f"Comma list of {', '.join(LANGUAGE)}.")],
    out: Annotated[
        Path, typer.Option(parser=path, help="Folder of the sweep; the same command again continues it.")
    ],
    beta: Annotated[str, typer.Option(help="Comma list of KL strengths β > 0; unused in control.")] = "1",
    seeds: Annotated[str, typer.Option(help="Comma list of seeds.")] = "0",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE[,VALUE…]",
            help="A setting of `rlhflab train`; several values are swept.",
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes; default one per core.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on the Dask cluster with this scheduler.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Run the cells that have not ended, and print the results."""
    with one_line_errors():
        if processes.launched() > 1:
            raise ValueError("a sweep starts its own processes: start it without a launcher")
        from rlhflab.runs.grid import Grid

        grid = Grid(
            algorithms=_items(algorithms),
            betas=[value_of("--beta", DPO.declared()["beta"], item) for item in _items(beta)],
            seeds=[value_of("--seeds", DPO.declared()["seed"], item) for item in _items(seeds)],
            settings=_settings(settings or [], _items(algorithms)),
        )
        from rlhflab.runs.sweep import run_grid

        try:
            swept = run_grid(recipe_class, grid, out, jobs, scheduler)
        except KeyboardInterrupt:
            say(f"interrupted; finished cells are kept in {out}, and the same command continues from there")
            raise typer.Exit(130) from None
    for row in swept.rows:
        if row["status"] != "finished":
            say(f"{row['folder']} {row['status']}: {row['error']}")
    if as_json:
        print(json_line(_summary(swept, out)))
    else:
        _print(swept, out)
    if swept.count("finished") < len(swept.rows):
        raise typer.Exit(1)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")]


def _settings(assignments: Sequence[str], algorithms: Sequence[str]) -> dict[str, list[Any]]:
    """`NAME=VALUE[,VALUE…]` → values converted to the setting's type."""
    declared: dict[str, list[Declared]] = {}
    for recipe in (table[name] for table in (LANGUAGE, CONTROL) for name in algorithms if name in table):
        for name, found in recipe.declared().items():
            declared.setdefault(name, []).append(found)
    settings: dict[str, list[Any]] = {}
    for assignment in assignments:
        name, equals, values = assignment.partition("=")
        name = name.strip().replace("-", "_")
        if not (name and equals):
            raise ValueError(f"--set needs NAME=VALUE, got {assignment!r}")
        if name in settings:
            raise ValueError(f"--set {name} is given twice; give all its values at once: {name}=VALUE,VALUE")
        if algorithms and name not in declared:
            raise ValueError(f"no setting {name} in {', '.join(algorithms)}")
        settings[name] = [_value(name, declared[name], item) for item in _items(values)]
    return settings


def _value(name: str, declared: Sequence[Declared], text: str) -> Any:
    """Convert a text by the first of the algorithms that accepts it; ValueError if none does."""
    for found in declared[:-1]:
        with suppress(ValueError):
            return value_of(f"--set {name}", found, text)
    return value_of(f"--set {name}", declared[-1], text)


def _summary(swept: Swept, out: Path) -> dict[str, Any]:
    from rlhflab.runs.sweep_page import STATUSES, judged

    return {
        "folder": str(out),
        "cells": len(swept.rows),
        "ran": swept.ran,
        **{status.replace(" ", "_"): swept.count(status) for status in STATUSES},
        "seconds": round(swept.seconds, 3),
        "best": [
            {
                **{key: row[key] for key in ("beta", "algorithm", "seed", "folder")},
                **{name: judged(row).get(name) for name in ("regret", "regret_at_least")},
            }
            for row in swept.best()
        ],
        "highest": [
            {
                **{key: row[key] for key in ("world", "algorithm", "seed", "folder")},
                "return": judged(row).get("return"),
            }
            for row in swept.highest()
        ],
    }


def _print(swept: Swept, out: Path) -> None:
    result = _summary(swept, out)
    print("{cells} cells, {ran} of them run now in {seconds:.1f} s, {finished} finished".format(**result))
    for best in result["best"]:
        known = "{regret:.4g}" if best["regret"] is not None else "at least {regret_at_least:.4g}"
        print(f"least regret at β = {{beta:g}}: {known}, {{folder}}".format(**best))
    for best in result["highest"]:
        print("greatest return in {world}: {return:.4g}, {folder}".format(**best))
    print(f"look at it: {out / 'sweep.html'} and {out / 'results.csv'}")
