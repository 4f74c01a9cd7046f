"""A sweep: every cell of a grid is an ordinary run, and the results are one table and one page.

    sweep.json        the grid
    cells/NAME/       one run per cell
    results.csv       one row per cell, rewritten after every cell
    sweep.html        the cells on the reward–KL plane, and regret against β

Cells run in processes of this machine (joblib with loky), or on a Dask cluster whose workers see the same folder. A
finished cell is never run again, one that was interrupted or ran out of memory continues from its checkpoint, one that
diverged is reported. Left out: locks; only one sweep at a time may work in a folder.
"""

from __future__ import annotations

import csv
import math
import shutil
import signal
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from rlhflab.boundary import Fault
from rlhflab.core.recipe import Recipe
from rlhflab.files import written_beside
from rlhflab.oom import out_of_memory
from rlhflab.remedies import OneLine, headline
from rlhflab.runs.drive import begin, drive, resume
from rlhflab.runs.grid import Cell, Grid, RecipeClass
from rlhflab.runs.store import Run
from rlhflab.runs.sweep_page import Row, judged, write_sweep_page

ENDED = ("finished", "diverged")  # a cell with this status is not run again


class Swept(NamedTuple):
    """The result of a sweep.

    Attributes:
        folder: where it is saved.
        rows: one per cell, in the grid's order, as in results.csv.
        ran: how many cells ran in this call; the others had already ended.
        seconds: of this call.
    """

    folder: Path
    rows: list[Row]
    ran: int
    seconds: float

    def count(self, status: str) -> int:
        """How many cells have this status, one of `STATUSES`."""
        return sum(row["status"] == status for row in self.rows)

    def best(self) -> list[Row]:
        """The row with the smallest regret, or lower bound on it, at every β ascending; cells without are ignored."""
        best: dict[float, tuple[float, Row]] = {}
        for row in self.rows:
            known = judged(row) if row["status"] == "finished" else {}
            regret = known.get("regret", known.get("regret_at_least"))
            if regret is not None and (row["beta"] not in best or regret < best[row["beta"]][0]):
                best[row["beta"]] = regret, row
        return [best[beta][1] for beta in sorted(best)]

    def highest(self) -> list[Row]:
        """For every control world with results, the row with the highest mean return."""
        highest: dict[str, tuple[float, Row]] = {}
        for row in self.rows:
            found = judged(row).get("return") if row["status"] == "finished" else None
            if found is not None and found > highest.get(row["world"], (-math.inf, row))[0]:
                highest[row["world"]] = found, row
        return [row for _, row in highest.values()]


def sweep(
    recipe: Recipe, folder: str | Path, jobs: int | None = None, progress: bool = True, **axes: Any
) -> Swept:
    """Train a recipe with every combination of some settings' values, and write the table and the page.

    Args:
        recipe: what is trained.
        folder, jobs, progress: see `run_grid`.
        axes: setting → its values, `beta=[0.3, 1.0], seed=range(3)`.

    Raises:
        ValueError: a setting that the recipe does not have, or a value that is not allowed; and as `run_grid`.

    >>> sweep(recipes.PPO(steps=50), "runs/beta", beta=[0.3, 1.0], seed=range(3))       # doctest: +SKIP
    """
    betas = axes.pop("beta", [getattr(recipe, "beta", 1.0)])
    seeds = axes.pop("seed", [getattr(recipe, "seed", 0)])
    kept_apart = {"beta", "seed", "progress", *axes}  # the rest is common: another rest is another sweep
    common = {name: [value] for name, value in recipe.given().items() if name not in kept_apart}
    plain = {name: value for name, value in common.items() if isinstance(value[0], str | int | float)}
    settings = {**plain, **{name: list(values) for name, values in axes.items()}}
    grid = Grid([recipe.algorithm], list(betas), list(seeds), settings)
    return run_grid(lambda name, world: type(recipe), grid, folder, jobs, None, progress, recipe)


def run_grid(
    recipe_class: RecipeClass,
    grid: Grid,
    folder: str | Path,
    jobs: int | None = None,
    scheduler: str | None = None,
    progress: bool = True,
    base: Recipe | None = None,
) -> Swept:
    """Run the cells of a grid that have not ended, and write the table and the page.

    Args:
        recipe_class: names of algorithm and world → recipe; `recipes.recipe_class`.
        grid: the cells.
        folder: new, empty, or that of a sweep which this grid continues.
        jobs: processes; by default one per core. The cores are divided among them.
        scheduler: address of a Dask scheduler, such as "tcp://10.0.0.1:8786"; then its workers run the cells and must
            see `folder` under the same path. Start them with one thread each.
        progress: show a bar on stderr.
        base: settings common to all cells, besides those of the grid.

    Raises:
        ValueError: a setting that makes no sense, a grid that does not continue the folder's, or a missing package.
        Fault: a process was killed, which ends the others too.
        OSError: no scheduler at that address.
    """
    started = time.perf_counter()
    _require("joblib", "a sweep")
    if scheduler is not None:
        _require("distributed", "a Dask scheduler")
    if jobs is not None and (jobs < 1 or scheduler is not None):
        raise ValueError(
            f"jobs must be ≥ 1, got {jobs}"
            if jobs < 1
            else "jobs are for this machine; a cluster has its workers"
        )
    folder = Path(folder).resolve()
    cells = (
        grid.cells(recipe_class) if base is None else grid.cells(recipe_class, lambda _, own: base.but(**own))
    )
    if (folder / "sweep.json").exists():
        if any((folder / "cells").glob("*")):
            grid.check_continues(folder / "sweep.json")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds something other than a sweep; use a new or empty folder")
    ends = {cell.name: end for cell in cells if (end := _end_of(folder / "cells" / cell.name))}
    todo = [cell for cell in cells if cell.name not in ends]
    _try_settings(todo)
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    grid.keep(folder / "sweep.json")

    from tqdm.auto import tqdm

    bar = tqdm(total=len(cells), initial=len(ends), desc="sweep", unit="cell", disable=not progress)
    with bar, closing(_outcomes(todo, folder / "cells", jobs, scheduler)) as outcomes:
        for name, end in outcomes:
            ends[name] = end
            _write_table(folder / "results.csv", _rows(cells, ends))
            bar.set_postfix_str(f"{name} {end['status']}", refresh=False)
            bar.update()
    rows = _rows(cells, ends)
    _write_table(folder / "results.csv", rows)
    write_sweep_page(folder, rows, [name for name, values in grid.settings.items() if len(values) > 1])
    return Swept(folder, rows, len(todo), time.perf_counter() - started)


def run_cell(cell: Cell, folder: Path) -> tuple[str, dict[str, Any]]:
    """Run one cell to its end in `folder`/NAME, or continue it there; called in the worker process.

    Returns:
        The cell's name and the result of `drive`. An exception ends only this cell: the status is "failed", with a
        line as `error`, and the traceback of a bug goes to stderr; a later sweep continues from what was saved. If
        memory runs out, during the build or later, the status is "out of memory".
    """
    place = folder / cell.name
    try:
        if (place / "config.json").exists():
            run = Run.open(place)
            algorithm = resume(cell.recipe, run)
        else:
            shutil.rmtree(place, ignore_errors=True)  # a start that was interrupted
            algorithm, run = begin(cell.recipe, place)
        return cell.name, drive(algorithm, run)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            raise  # otherwise it was not Ctrl-C: a reward raised it
        if (short := out_of_memory(error, f"in building {cell.algorithm}")) is not None:
            return cell.name, {"status": "out of memory", "error": str(short)}
        if not isinstance(error, OneLine):
            traceback.print_exc()
        return cell.name, {"status": "failed", "error": headline(error)}


def _require(package: str, what: str) -> None:
    if find_spec(package) is None:
        raise ValueError(f"{what} needs {package}: python -m pip install {package}")


def _end_of(place: Path) -> dict[str, Any] | None:
    """How a cell ended, or None if it still has to run."""
    if not (place / "config.json").exists():
        return None
    status = Run.open(place).status
    return status if status.get("status") in ENDED else None


def _try_settings(cells: Sequence[Cell]) -> None:
    """Build one cell of every algorithm and combination of settings, so that errors are reported at once.

    This also makes the tiny model on first use, instead of in all processes at the same time.
    """
    first: dict[str, Cell] = {}
    for cell in cells:
        first.setdefault(f"{cell.algorithm} {cell.swept}", cell)
    for cell in first.values():
        try:
            cell.recipe.build()
        except Exception as error:
            if out_of_memory(error, f"in building {cell.algorithm}") is None:
                raise  # out of memory is reported by that cell itself, and the others may fit


def _outcomes(
    cells: Sequence[Cell], folder: Path, jobs: int | None, scheduler: str | None
) -> Generator[tuple[str, dict[str, Any]], None, None]:
    """Yield the results of `run_cell` in the order in which the cells end."""
    from joblib import Parallel, cpu_count, delayed

    if not cells:
        return
    jobs = min(jobs or cpu_count(), len(cells))
    with _processes(max(1, cpu_count() // jobs)) if scheduler is None else _cluster(scheduler):
        parallel = Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
        try:
            yield from parallel(delayed(run_cell)(cell, folder) for cell in cells)
        except BrokenProcessPool:  # loky does not say which process
            raise Fault(
                "a process of the sweep was killed: by the system because memory ran out, or by code that a cell ran; "
                "finished cells are kept, and the same command continues from there"
            ) from None


@contextmanager
def _processes(threads: int) -> Iterator[None]:
    from joblib import parallel_config

    with parallel_config(backend="loky", inner_max_num_threads=threads, initializer=_leave_interrupts):
        yield


@contextmanager
def _cluster(scheduler: str) -> Iterator[None]:
    from distributed import Client
    from joblib import parallel_config

    with (
        Client(scheduler, timeout=10, set_as_default=False) as client,
        parallel_config(backend="dask", client=client),
    ):
        yield


def _leave_interrupts() -> None:
    """Ignore Ctrl-C, which reaches every process of a terminal; the sweep ends its own processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _rows(cells: Sequence[Cell], ends: dict[str, dict[str, Any]]) -> list[Row]:
    rows = []
    for cell in cells:
        if (end := ends.get(cell.name)) is None:
            continue
        row: Row = {"algorithm": cell.algorithm, "beta": cell.beta, "seed": cell.seed, **cell.swept}
        row |= {name: end.get(name) for name in ("status", "steps", "seconds", "error")}
        row["folder"] = f"cells/{cell.name}"
        if (world := cell.recipe.config().get("world")) is not None:
            row["world"] = world
        for block in ("exact", "estimated", "scalars"):
            row |= {f"{block}/{name}": value for name, value in (end.get(block) or {}).items()}
        rows.append(row)
    return rows


def _write_table(path: Path, rows: Sequence[Row]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with written_beside(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(rows)
