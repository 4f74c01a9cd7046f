"""`rlhflab sweep`, driven as a person would: arguments in, exit code, lines and files out."""

from __future__ import annotations

import csv
import json
import re
from importlib.util import find_spec

import pytest

from rlhflab import recipes
from rlhflab.runs.store import Run
from tests.toy import TOYS as RECIPES

needs_joblib = pytest.mark.skipif(
    not find_spec("joblib"), reason="sweeps need joblib: python -m pip install joblib"
)
TOYS = ["sweep", "--algorithms", "toy,plain", "--out", "s", "--jobs", 1]


@pytest.fixture
def toys(monkeypatch):
    """Toys beside the recipes."""
    for name, recipe in RECIPES.items():
        monkeypatch.setitem(recipes.LANGUAGE, name, recipe)


@needs_joblib
def test_two_processes_run_real_algorithms_once(rlhflab, sft, tmp_path):
    arguments = [
        "sweep",
        "--algorithms",
        "dpo,ppo",
        "--beta",
        "1",
        "--set",
        "steps=3",
        "--set",
        "batch-size=18",
    ]
    arguments += ["--set", "evaluate_every=100", "--set", "epochs=1", "--jobs", 2, "--out", "s", "--json"]
    code, out, err = rlhflab(*arguments)
    assert code == 0, err
    result = json.loads(out)
    assert len(out.splitlines()) == 1 and "2/2" in err
    assert (result["folder"], result["cells"], result["ran"], result["finished"]) == ("s", 2, 2, 2)
    assert (result["diverged"], result["failed"]) == (0, 0) and result["seconds"] > 0
    (best,) = result["best"]
    assert best["beta"] == 1.0 and best["folder"] == f"cells/{best['algorithm']}-beta1-seed0"
    with (tmp_path / "s" / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["algorithm"], row["status"], row["steps"]) for row in rows] == [
        ("dpo", "finished", "3"), ("ppo", "finished", "3"),
    ]  # fmt: skip
    assert min(float(row["exact/regret"]) for row in rows) == best["regret"]
    config = Run.open(tmp_path / "s" / "cells" / "ppo-beta1-seed0").config
    assert (config["epochs"], config["batch_size"], config["progress"]) == (1, 18, False)
    assert "frontier" in (tmp_path / "s" / "sweep.html").read_text(encoding="utf-8")

    code, out, _ = rlhflab(*arguments)
    again = json.loads(out)
    assert (code, again["ran"]) == (0, 0)
    assert {**again, "ran": 2, "seconds": 0} == {**result, "seconds": 0}
    assert rlhflab("report", "s/cells/dpo-beta1-seed0")[0] == 0
    code, out, _ = rlhflab("train", "dpo", "--resume", "s/cells/dpo-beta1-seed0", "--json")
    assert (code, json.loads(out)["steps"]) == (0, 3)


@needs_joblib
def test_words_for_people_and_code_1_where_a_cell_diverged(rlhflab, toys):
    code, out, err = rlhflab(*TOYS, "--beta", "1, 0.5", "--seeds", "0,1", "--set", "diverge_at=0,3")
    assert code == 1
    assert out.startswith("12 cells, 12 of them run now in ")
    assert re.search(r"least regret at β = 0.5: 1, cells/toy-beta0.5-diverge_at0-seed0\n", out)
    assert "s/sweep.html and s/results.csv" in out
    lines = [line for line in err.splitlines() if line.startswith("rlhflab: ")]
    assert len(lines) == 4
    assert lines[0].startswith("rlhflab: cells/toy-beta1-diverge_at3-seed0 diverged: loss is nan at step 3")


@needs_joblib
def test_ctrl_c_says_how_to_go_on(rlhflab, toys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("rlhflab.runs.sweep.run_grid", interrupted)
    code, out, err = rlhflab(*TOYS)
    assert (code, out) == (130, "")
    assert err == (
        "rlhflab: interrupted; finished cells are kept in s, and the same command continues from there\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--beta", "1,much"], "--beta must be a number, got 'much'"),
        (["--beta", "1,-1"], "beta must be a number > 0, got -1.0"),
        (["--beta", "1,,2"], "--beta must be a number, got ''"),
        (["--seeds", "0,0"], "seeds has 0 twice"),
        (["--seeds", "few"], "--seeds must be a whole number, got 'few'"),
        (["--algorithms", "dpo,ppp"], "unknown algorithm 'ppp'; known: pretrain, sft"),
        (["--set", "steps"], "--set needs NAME=VALUE, got 'steps'"),
        (["--set", "steps=x"], "--set steps must be a whole number, got 'x'"),
        (["--set", "learning-rate=1e-3,fast"], "--set learning_rate must be a number, got 'fast'"),
        (["--set", "pairs=few"], "--set pairs must be a whole number or fresh, got 'few'"),
        (["--set", "skip_bad=maybe"], "--set skip_bad must be true or false, got 'maybe'"),
        (["--set", "steps=1", "--set", "steps=2"], "--set steps is given twice"),
        (["--set", "clip_range=0.1"], "no setting clip_range in dpo"),
        (["--set", "beta=2"], "beta is not a further setting; give it as the grid's betas"),
        (["--set", "steps=0"], "steps must be a whole number ≥ 1, got 0"),
        (["--jobs", "0"], "jobs must be ≥ 1, got 0"),
        (["--jobs", "1", "--scheduler", "tcp://127.0.0.1:1"], "jobs are for this machine"),
        (["--out", "full"], "full holds something other than a sweep; use a new or empty folder"),
    ],
)
@needs_joblib
def test_bad_values_end_with_code_2_and_one_line(rlhflab, sft, tmp_path, arguments, says):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    code, out, err = rlhflab("sweep", "--algorithms", "dpo", "--out", "new", *arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("rlhflab: ") and says in line
    assert not (tmp_path / "new").exists()


@needs_joblib
def test_values_get_the_type_of_their_setting(rlhflab, tmp_path, monkeypatch):
    grids = []

    def noted(recipe_class, grid, *others):
        grids.append(grid)
        raise KeyboardInterrupt

    monkeypatch.setattr("rlhflab.runs.sweep.run_grid", noted)
    (tmp_path / "rm").mkdir()
    for algorithms, given in (
        ("reward,dpo", ("pairs=50,fresh", "label-noise=0,0.5", "skip_bad=true")),
        ("ppo", ("blind=,film", "reward=true,rm", "world=CartPole-v1")),
    ):
        options = [part for each in given for part in ("--set", each)]
        code, _, err = rlhflab(
            "sweep", "--algorithms", algorithms, "--beta", "1,0.3", "--seeds", "0, 3", "--out", "s", *options
        )
        assert code == 130, err
    assert [grid.settings for grid in grids] == [
        {"pairs": [50, "fresh"], "label_noise": [0.0, 0.5], "skip_bad": [True]},
        {"blind": ["", "film"], "reward": ["true", str(tmp_path / "rm")], "world": ["CartPole-v1"]},
    ]
    assert (grids[0].algorithms, grids[0].betas, grids[0].seeds) == (["reward", "dpo"], [1.0, 0.3], [0, 3])
