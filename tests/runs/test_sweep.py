"""Sweeps of toys: what runs, what runs again, what is kept, and what the table and the page say."""

from __future__ import annotations

import csv
import json
import signal
from importlib.util import find_spec

import pytest

from rlhflab.boundary import Fault
from rlhflab.plots.panel import COLOURS
from rlhflab.plots.panels_sweep import colours, sweep_plane, sweep_regret
from rlhflab.plots.still import single
from rlhflab.runs import drive, sweep_page
from rlhflab.runs import sweep as sweeping
from rlhflab.runs.grid import Grid
from rlhflab.runs.store import Run
from rlhflab.runs.sweep import Swept, run_grid, sweep
from tests.toy import BACKDROP, Toy, recipe_class

pytest.importorskip("joblib", reason="sweeps need joblib: python -m pip install joblib")


def run(grid, folder, **more):
    return run_grid(recipe_class, grid, folder, jobs=1, progress=False, **more)


def table(folder):
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def calls(monkeypatch):
    """The cells that are run, by name."""
    names = []
    run_cell = sweeping.run_cell

    def noted(cell, folder):
        names.append(cell.name)
        return run_cell(cell, folder)

    monkeypatch.setattr(sweeping, "run_cell", noted)
    return names


def test_every_cell_is_a_run_and_a_row(tmp_path, calls):
    swept = run(Grid(["toy", "plain"], [0.5, 2], [3]), tmp_path / "s")
    assert (swept.ran, swept.count("finished"), len(calls)) == (4, 4, 4)
    rows = table(swept.folder)
    assert [row["folder"].removeprefix("cells/") for row in rows] == calls
    for row in rows:
        kept = Run.open(swept.folder / row["folder"])
        records = list(Toy(beta=float(row["beta"]), seed=3))
        assert list(kept.records()) == records
        assert kept.config["algorithm"] == row["algorithm"]
        assert (row["status"], row["steps"], float(row["seconds"]) >= 0) == ("finished", "10", True)
        assert float(row["exact/regret"]) == 1.0
        assert float(row["scalars/loss"]) == records[-1].scalars["loss"]
        assert row["scalars/grad_norm"] == "inf"
    assert json.loads((swept.folder / "sweep.json").read_text())["betas"] == [0.5, 2.0]
    assert (swept.folder / "sweep.html").read_text(encoding="utf-8").count("plotly.js v") == 1


def test_a_second_sweep_runs_what_is_new_and_nothing_else(tmp_path, calls):
    first = run(Grid(["toy"], [1], [0], {"steps": [4]}), tmp_path)
    again = run(Grid(["toy"], [1], [0], {"steps": [4]}), tmp_path)
    assert (again.ran, again.rows) == (0, first.rows)
    larger = run(Grid(["plain", "toy"], [1], [0, 1], {"steps": [4]}), tmp_path)
    assert calls[1:] == ["plain-beta1-seed0", "plain-beta1-seed1", "toy-beta1-seed1"]
    assert first.rows[0] in larger.rows and len(table(tmp_path)) == 4
    with pytest.raises(ValueError, match="holds another sweep: seeds 0,1 there, 0 here"):
        run(Grid(["plain", "toy"], [1], [0], {"steps": [4]}), tmp_path)


def test_a_cell_that_diverges_is_reported_and_not_run_again(tmp_path):
    grid = Grid(["toy"], settings={"diverge_at": [0, 4]})
    for ran in (2, 0):
        swept = run(grid, tmp_path)
        assert (swept.ran, swept.count("finished"), swept.count("diverged")) == (ran, 1, 1)
        (row,) = (row for row in table(tmp_path) if row["status"] == "diverged")
        assert "nan at step 4" in row["error"] and row["steps"] == "3"
        assert [best["diverge_at"] for best in swept.best()] == [0]
    assert "1 diverged" in (tmp_path / "sweep.html").read_text(encoding="utf-8")


def test_a_cell_that_fails_does_not_end_the_others_and_is_tried_again(tmp_path, monkeypatch, capfd):
    load, broken = Toy.__next__, [True]

    def sometimes(self):
        if broken and self.knobs.beta == 2 and self.step == 3:
            raise KeyError("full disk")
        return load(self)

    monkeypatch.setattr(Toy, "__next__", sometimes)
    swept = run(Grid(["toy"], [1, 2, 3]), tmp_path)
    assert [row["status"] for row in swept.rows] == ["finished", "failed", "finished"]
    assert "KeyError: 'full disk'" in table(tmp_path)[1]["error"]
    assert "Traceback" in capfd.readouterr().err
    broken.clear()
    swept = run(Grid(["toy"], [1, 2, 3]), tmp_path)
    assert (swept.ran, swept.count("finished")) == (1, 3)


def test_a_reward_that_fails_costs_one_cell_and_no_traceback(tmp_path, monkeypatch, capfd):
    load, broken, made = Toy.__next__, [True], []

    def sometimes(self):
        if broken and self.knobs.beta == 2 and self.step == 3:
            raise Fault("reward score (score.py, line 4): KeyError: 'my bug'")
        made.append(self.step)
        return load(self)

    monkeypatch.setattr(Toy, "__next__", sometimes)
    swept = run(Grid(["toy"], [1, 2, 3]), tmp_path)
    assert [row["status"] for row in swept.rows] == ["finished", "failed", "finished"]
    assert swept.rows[1]["error"] == "reward score (score.py, line 4): KeyError: 'my bug'"
    assert "Traceback" not in capfd.readouterr().err
    broken.clear()
    made.clear()
    assert run(Grid(["toy"], [1, 2, 3]), tmp_path).count("finished") == 3
    assert made == [3, 4, 5, 6, 7, 8, 9, 10]  # from the update before it
    assert list(Run.open(tmp_path / "cells" / "toy-beta2-seed0").records()) == list(Toy(beta=2))


def test_an_interrupt_that_nobody_sent_costs_one_cell(tmp_path, monkeypatch):
    """A worker process ignores Ctrl-C; one that comes all the same was raised by what a person gave."""
    load = Toy.__next__

    def raising(self):
        if self.knobs.beta == 2 and self.step == 3:
            raise KeyboardInterrupt
        return load(self)

    monkeypatch.setattr(Toy, "__next__", raising)
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        swept = run(Grid(["toy"], [1, 2, 3]), tmp_path)
    finally:
        signal.signal(signal.SIGINT, former)
    assert [row["status"] for row in swept.rows] == ["finished", "failed", "finished"]


def test_a_process_that_was_killed_is_one_line(tmp_path, monkeypatch):
    import joblib
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    def killed(self, cells):
        raise TerminatedWorkerError("A worker process managed by the executor was unexpectedly terminated. …")

    monkeypatch.setattr(joblib.Parallel, "__call__", killed)
    with pytest.raises(
        Fault, match=r"a process of the sweep was killed: .* the same command continues from there$"
    ):
        run(Grid(["toy"]), tmp_path)


def test_an_interrupted_cell_goes_on_from_its_checkpoint(tmp_path, monkeypatch, calls):
    monkeypatch.setattr(drive, "CHECKPOINT_EVERY", 4)
    append, steps = Run.append, []

    def interrupt(self, record):
        append(self, record)
        steps.append(record.step)
        if steps.count(6) == 2:  # the second cell's
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "append", interrupt)
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)  # not so in the background
    grid = Grid(["toy"], [1, 2])
    with pytest.raises(KeyboardInterrupt):
        run(grid, tmp_path)
    assert [row["beta"] for row in table(tmp_path)] == ["1.0"]
    steps.clear()
    swept = run(grid, tmp_path)
    assert (swept.ran, steps) == (1, [5, 6, 7, 8, 9, 10])
    assert list(Run.open(tmp_path / "cells" / "toy-beta2-seed0").records()) == list(Toy(beta=2))
    assert swept.rows[1]["exact/kl"] == 0.1


def test_torn_cells_start_again(tmp_path):
    grid = Grid(["toy"], [1, 2, 3])
    whole = run(grid, tmp_path)
    early, late, bare = (tmp_path / row["folder"] for row in whole.rows)
    (early / "config.json").unlink()  # cut off while the run was made
    (late / "status.json").unlink()  # cut off before the end was written, in the middle of a line
    (late / "records.jsonl").write_bytes((late / "records.jsonl").read_bytes() + b'{"step": 11, "sca')
    for name in ("status.json", "checkpoint.safetensors", "records.jsonl", "pairs.jsonl"):
        (bare / name).unlink()
    swept = run(grid, tmp_path)
    assert (swept.ran, swept.count("finished")) == (3, 3)
    for row, former in zip(swept.rows, whole.rows, strict=True):
        assert list(Run.open(tmp_path / row["folder"]).records()) == list(Toy(beta=row["beta"]))
        assert {**row, "seconds": 0} == {**former, "seconds": 0}


def test_what_makes_no_sense_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="steps must be ≤ 50, got 60"):
        run(Grid(["toy", "plain"], settings={"steps": [5, 60]}), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds something other than a sweep"):
        run(Grid(["toy"]), tmp_path)
    with pytest.raises(ValueError, match="jobs must be ≥ 1, got 0"):
        run_grid(recipe_class, Grid(["toy"]), tmp_path / "new", jobs=0)
    with pytest.raises(ValueError, match="jobs are for this machine"):
        run(Grid(["toy"]), tmp_path / "new", scheduler="tcp://127.0.0.1:1")


def test_a_sweep_that_never_began_binds_nobody(tmp_path):
    Grid(["plain"], [7]).keep(tmp_path / "sweep.json")
    assert run(Grid(["toy"]), tmp_path).ran == 1


@pytest.mark.parametrize(("package", "scheduler"), [("joblib", None), ("distributed", "tcp://127.0.0.1:1")])
def test_a_missing_package_is_named_with_what_mends_it(tmp_path, monkeypatch, package, scheduler):
    monkeypatch.setattr(sweeping, "find_spec", lambda name: None if name == package else name)
    with pytest.raises(ValueError, match=f"needs {package}: python -m pip install {package}$"):
        run_grid(recipe_class, Grid(["toy"]), tmp_path / "new", scheduler=scheduler)


# Table and page


def row(algorithm="toy", beta=1.0, seed=0, regret=1.0, kl=0.5, **more):
    exact = {"exact/kl": kl, "exact/reward": 1 + kl, "exact/regret": regret}
    return {"algorithm": algorithm, "beta": beta, "seed": seed, "status": "finished", **exact, **more}


def test_the_best_cell_of_every_beta_is_the_one_with_the_least_regret(tmp_path):
    rows = [row(beta=2.0, regret=0.5, seed=s) for s in (0, 1)]
    rows += [row(regret=0.3), row(regret=0.2, seed=1), row(regret=0.1, seed=2, status="diverged")]
    rows += [row(beta=3.0, regret=float("nan")), row(beta=2.0, regret=0.4, seed=5)]
    best = Swept(tmp_path, rows, 0, 0.0).best()
    assert [(cell["beta"], cell["seed"]) for cell in best] == [(1.0, 1), (2.0, 5)]


def test_a_lower_bound_on_the_regret_stands_in_and_is_called_one(tmp_path):
    bounds = [
        {
            **row(seed=s),
            **dict.fromkeys(("exact/kl", "exact/reward", "exact/regret")),
            "estimated/regret_at_least": b,
        }
        for s, b in ((0, 0.5), (1, 0.25))
    ]
    (best,) = Swept(tmp_path, bounds, 0, 0.0).best()
    assert best["seed"] == 1
    Run.create(tmp_path / "cells" / "a", {}).close()
    page = sweep_page.write_sweep_page(tmp_path, [{**best, "folder": "cells/a"}]).read_text(encoding="utf-8")
    assert "<td class='n'>≥ 0.250</td>" in page


def test_an_estimate_stands_in_where_nothing_is_exact():
    estimated = {"estimated/kl_rb": 0.7, "estimated/kl_k3": 0.1, "estimated/reward": 2.0}
    assert sweep_page.judged(estimated) == {"kl": 0.7, "reward": 2.0}
    assert sweep_page.judged({**estimated, "exact/kl": 0.5}) == {"kl": 0.5}
    assert sweep_page.judged({**estimated, "exact/kl": float("nan")})["kl"] == 0.7
    assert sweep_page.judged({"estimated/kl_k3": 0.1, "exact/kl": None}) == {"kl": 0.1}  # of an older run


def cells_of(rows, swept=()):
    return [sweep_page._cell(found, swept) for found in rows]


def test_the_plane_has_a_marker_a_cell_the_frontier_and_the_optima():
    rows = [row("toy", b, s, kl=b + s) for b in (0.1, 1.0) for s in (0, 1)] + [row("plain"), row("ppo")]
    rows += [row(kl=float("nan"))]
    marks = sweep_plane(cells_of(rows), {"toy": BACKDROP, "plain": BACKDROP}).marks
    frontier, optima, *dots = marks
    assert [mark.name for mark in marks if mark.name] == ["frontier", "π*", "toy", "plain", "ppo"]
    assert list(optima.x) == [4.0, 1.0] and list(optima.text) == ["β = 0.1", "β = 1"]
    toy = [mark for mark in dots if mark.colour == next(m.colour for m in dots if m.name == "toy")]
    assert [list(mark.x) for mark in toy] == [[0.1, 1.1], [1.0, 2.0]] and toy[0].width < toy[1].width
    assert toy[0].text[1] == "beta 0.1, seed 1"
    shown = {mark.name: mark.colour for mark in dots if mark.name}
    assert len(set(shown.values())) == 3 and shown["ppo"] == COLOURS["policy"][0]  # as in a race
    assert frontier.colour not in shown.values()


def test_regret_is_drawn_as_mean_and_range_over_seeds_by_algorithm_and_setting():
    rows = [row("toy", b, s, regret=b + s, pairs=p) for b in (1.0, 2.0) for s in (0, 1) for p in (5, 9)]
    plot = sweep_regret(cells_of([*rows, row("plain", regret=4.0)], ["pairs"]))
    lines = {mark.name: mark for mark in plot.marks if mark.name}
    assert list(lines) == ["toy, pairs 5", "toy, pairs 9", "plain"]
    five, nine, plain = lines.values()
    assert (list(five.x), list(five.y)) == ([1.0, 2.0], [1.5, 2.5])
    band = plot.marks[0]
    assert (list(band.x), list(band.y), list(band.y2)) == ([1.0, 2.0], [1.0, 2.0], [2.0, 3.0])
    assert five.dash != nine.dash and five.colour == nine.colour != plain.colour
    axis = single(plot).layout.xaxis
    assert axis.type == "log" and list(axis.ticktext) == ["1", "2"]


def test_colours_are_shared_only_where_there_are_too_few():
    many = colours([f"a{i}" for i in range(7)])
    assert len(set(many.values())) == 7
    more = list(colours([f"a{i}" for i in range(9)]).values())
    assert more[:7] == list(many.values()) and more[7:] == more[:2]


def test_cells_that_measure_nothing_leave_a_page_with_the_table(tmp_path):
    rows = [
        {"algorithm": "toy", "beta": 1.0, "seed": 0, "status": "failed", "error": "<b>no</b>", "folder": "x"}
    ]
    page = sweep_page.write_sweep_page(tmp_path, rows).read_text(encoding="utf-8")
    assert "failed: &lt;b&gt;no&lt;/b&gt;" in page and "<script" not in page


# A Dask cluster


@pytest.mark.skipif(
    not find_spec("distributed"), reason="a Dask cluster needs distributed: python -m pip install distributed"
)
def test_two_workers_of_a_dask_cluster_do_the_same(tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        grid = Grid(["toy", "plain"], [1, 2], settings={"diverge_at": [0, 4]})
        swept = run_grid(recipe_class, grid, tmp_path, scheduler=cluster.scheduler_address, progress=False)
        assert (
            run_grid(recipe_class, grid, tmp_path, scheduler=cluster.scheduler_address, progress=False).ran
            == 0
        )
    assert (swept.ran, swept.count("finished"), swept.count("diverged")) == (6, 4, 2)
    for row in swept.rows:
        records = list(Toy(beta=row["beta"]))[: row["steps"]]
        assert list(Run.open(tmp_path / row["folder"]).records()) == records


def test_control_worlds_are_compared_by_their_returns(tmp_path):
    from rlhflab.recipes import recipe_class as real

    settings = {"world": ["CartPole-v1"], "steps": [3], "envs": [4], "horizon": [16, 32]}
    swept = run_grid(real, Grid(["ppo"], [0.3, 1], [0, 1], settings), tmp_path / "s", jobs=1, progress=False)
    assert swept.count("finished") == 4 and swept.best() == []  # two seeds, two horizons, no β
    (best,) = swept.highest()
    returns = [row["estimated/return"] for row in swept.rows]
    assert best["world"] == "CartPole-v1" and best["estimated/return"] == max(returns) > min(returns)
    assert [row["beta"] for row in table(swept.folder)] == [""] * 4
    page = (swept.folder / "sweep.html").read_text(encoding="utf-8")
    assert "Return in CartPole-v1" in page and "ppo, horizon 32" in page
    assert "None" not in page[page.index("Cells</h2>") :]


def test_a_recipes_sweep_varies_what_is_named_and_is_bound_to_the_rest(tmp_path):
    toy, quiet = recipe_class("toy"), {"jobs": 1, "progress": False}
    first = sweep(toy(steps=4), tmp_path, **quiet, beta=[0.3, 1.0], seed=range(2))
    assert [(row["beta"], row["seed"], row["steps"]) for row in first.rows] == [
        (0.3, 0, 4), (1.0, 0, 4), (0.3, 1, 4), (1.0, 1, 4),
    ]  # fmt: skip
    assert sweep(toy(steps=4), tmp_path, **quiet, beta=[0.3, 1.0], seed=range(3)).ran == 2
    with pytest.raises(ValueError, match="holds another sweep: steps 4 there, 5 here"):
        sweep(toy(steps=5), tmp_path, **quiet, beta=[0.3, 1.0], seed=range(3))
    assert [row["steps"] for row in sweep(toy(beta=2.0), tmp_path / "b", **quiet, steps=[2, 3]).rows] == [
        2,
        3,
    ]
    with pytest.raises(ValueError, match="no setting stpes in toy"):
        sweep(toy(), tmp_path / "c", **quiet, stpes=[2])
