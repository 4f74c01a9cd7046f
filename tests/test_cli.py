"""The command line, driven as a person would: arguments in, exit code and lines out."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import ClassVar

import pytest
import typer

from rlhflab import cli, recipes
from rlhflab.boundary import Fault
from rlhflab.cli import messages
from rlhflab.core.record import Record
from rlhflab.core.settings import setting
from rlhflab.recipes import CONTROL, LANGUAGE
from rlhflab.runs.store import Run
from tests.toy import BACKDROP, Toy

EXACT = {"reward", "ref_reward", "kl", "objective", "optimum", "regret", "frontier_reward", "efficiency"}


@pytest.fixture
def toy(monkeypatch):
    """Put a toy in DPO's place; returns the list of settings it was built with."""
    built = []

    @dataclass(frozen=True, kw_only=True)
    class ToyDPO(recipes.DPO):
        algorithm: ClassVar[str] = "dpo"
        steps: int = setting(10, "Updates to make", at_least=1)

        def __post_init__(self):
            if self.world != "micro" and not os.path.exists(self.world):
                raise ValueError(f"unknown world {self.world!r};\nallowed: micro or a JSONL file")
            super().__post_init__()

        def build(self):
            built.append({name: value for name, value in self.config().items() if name != "algorithm"})
            return Toy(self.steps, self.beta, self.seed, diverge_at=13 if self.label_noise == 0.5 else 0)

    monkeypatch.setitem(recipes.LANGUAGE, "dpo", ToyDPO)
    return built


def one_line(stderr):
    lines = stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("rlhflab: "), stderr
    return lines[0]


def test_training_keeps_a_run_and_ends_with_one_json_line(rlhflab, toy, tmp_path):
    code, out, err = rlhflab(
        "train", "dpo", "--steps", 12, "--seed", 3, "--beta", 0.5, "--out", "my/run", "--json"
    )
    assert code == 0, err
    assert len(out.splitlines()) == 1
    result = json.loads(out)
    assert {k: result[k] for k in ("algorithm", "engine", "steps", "beta", "seed", "run")} == {
        "algorithm": "dpo", "engine": "lab", "steps": 12, "beta": 0.5, "seed": 3, "run": "my/run",
    }  # fmt: skip
    assert result["seconds"] > 0
    assert set(result["exact"]) == EXACT
    assert result["scalars"]["grad_norm"] is None  # infinite: JSON has no word for it
    assert "12/12" in err and "loss=" in err and "reward=" in err and "kl=" in err
    run = Run.open(tmp_path / "my/run")
    assert list(run.records()) == list(Toy(steps=12, seed=3, beta=0.5))
    assert run.status["status"] == "finished"
    assert run.backdrop == BACKDROP
    assert run.load_checkpoint(Toy()) == 12


def test_a_tracker_is_told_of_every_record(rlhflab, toy, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tests.runs.test_trackers import read_back

    code, _, err = rlhflab("train", "dpo", "--steps", 12, "--tracker", "tensorboard", "--out", "run")
    assert code == 0, err
    steps = [step for step, _ in read_back(tmp_path / "run")["loss"]]
    assert steps == list(range(1, 13))
    code, _, err = rlhflab("train", "dpo", "--tracker", "tensorflow", "--out", "other")
    assert code == 2 and "tracker must be one of tensorboard, trackio, wandb, got" in one_line(err)
    assert not (tmp_path / "other").exists() and len(toy) == 1


def test_the_config_builds_the_algorithm_again(rlhflab, toy, tmp_path):
    rlhflab("train", "dpo", "--pairs", "fresh", "--label-noise", 0.1, "--out", "a")
    config = Run.open(tmp_path / "a").config
    assert config.pop("algorithm") == "dpo"
    assert config == toy[0]
    assert (config["pairs"], config["label_noise"], config["beta"]) == ("fresh", 0.1, 1.0)
    rlhflab("train", "dpo", "--pairs", 50, "--out", "b")
    assert toy[1]["pairs"] == 50


def test_default_folder_and_words_for_people(rlhflab, toy, tmp_path):
    code, out, _ = rlhflab("train", "dpo")
    assert code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("dpo-")
    assert f"rlhflab report runs/{folder.name}" in out


def test_divergence_stops_with_step_and_knobs_and_keeps_the_checkpoint(rlhflab, toy, tmp_path, monkeypatch):
    monkeypatch.setattr("rlhflab.runs.drive.CHECKPOINT_EVERY", 10)
    code, out, err = rlhflab("train", "dpo", "--steps", 30, "--label-noise", 0.5, "--out", "run", "--json")
    assert (code, out) == (1, "")
    (line,) = (line for line in err.splitlines() if line.startswith("rlhflab: "))
    assert "step 13" in line and "beta=1" in line and "run" in line
    run = Run.open(tmp_path / "run")
    assert run.status["status"] == "diverged"
    assert len(list(run.records())) == 12
    assert run.load_checkpoint(Toy()) == 10


def test_an_early_divergence_leaves_a_checkpoint_too(rlhflab, toy, tmp_path):
    rlhflab("train", "dpo", "--steps", 30, "--label-noise", 0.5, "--out", "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_ctrl_c_keeps_the_run_and_resume_continues_the_same(rlhflab, toy, tmp_path, monkeypatch):
    append = Run.append

    def interrupt_after_step_7(self, record: Record):
        append(self, record)
        if record.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Run, "append", interrupt_after_step_7)
    handler = signal.getsignal(signal.SIGINT)
    assert threading.current_thread() is threading.main_thread()
    code, out, err = rlhflab("train", "dpo", "--steps", 20, "--out", "run", "--json")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "rlhflab: stopped at step 7; continue with: rlhflab train dpo --resume run"
    assert signal.getsignal(signal.SIGINT) is handler
    assert Run.open(tmp_path / "run").status["status"] == "stopped"

    monkeypatch.setattr(Run, "append", append)
    code, out, _ = rlhflab("train", "dpo", "--resume", "run", "--device", "cpu", "--json")
    assert code == 0
    assert json.loads(out)["steps"] == 20
    assert list(Run.open(tmp_path / "run").records()) == list(Toy(steps=20))
    assert toy[1] == {**toy[0], "device": "cpu"}


def test_a_failing_reward_ends_with_one_line_and_code_1_and_goes_on_from_there(
    rlhflab, toy, tmp_path, monkeypatch
):
    load = Toy.__next__

    def fails(self):
        if self.step == 7:
            raise Fault("reward score (score.py, line 4): KeyError: 'my bug'")
        return load(self)

    monkeypatch.setattr(Toy, "__next__", fails)
    code, out, err = rlhflab("train", "dpo", "--steps", 20, "--out", "run", "--json")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == (
        "rlhflab: reward score (score.py, line 4): KeyError: 'my bug'; step 7 is kept; "
        "continue with: rlhflab train dpo --resume run"
    )
    assert Run.open(tmp_path / "run").status["status"] == "failed"
    monkeypatch.setattr(Toy, "__next__", load)
    assert rlhflab("train", "dpo", "--resume", "run")[0] == 0
    assert list(Run.open(tmp_path / "run").records()) == list(Toy(steps=20))


@pytest.mark.parametrize(("rewinds", "kept"), [(True, 7), (False, 0)])
def test_a_second_ctrl_c_acts_at_once_and_says_what_is_kept(rlhflab, toy, monkeypatch, rewinds, kept):
    load = Toy.__next__

    def twice(self):
        if self.step == 7:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return load(self)

    monkeypatch.setattr(Toy, "__next__", twice)
    monkeypatch.setattr(Toy, "rewind", lambda self: rewinds)
    code, out, err = rlhflab("train", "dpo", "--steps", 20, "--out", "run", "--json")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == (
        f"rlhflab: stopped; step {kept} is kept; continue with: rlhflab train dpo --resume run"
    )


def test_settings_changed_by_hand_are_one_line(rlhflab, toy, tmp_path):
    rlhflab("train", "dpo", "--out", "run")
    config = tmp_path / "run" / "config.json"
    for name, value in (
        ("batch_size", 16),
        ("steps", "ten"),
        ("world", 5),
        ("algorithm", None),
        ("bogus", 1),
    ):
        whole = config.read_text()
        config.write_text(json.dumps({**json.loads(whole), name: value}))
        code, out, err = rlhflab("train", "dpo", "--resume", "run")
        assert (code, out) == (
            2,
            "",
        ) and f"config.json has changed since the checkpoint: {name} was" in one_line(err)
        config.write_text(whole)
    assert len(toy) == 1


def test_resuming_a_finished_run_changes_nothing(rlhflab, toy, tmp_path):
    _, first, _ = rlhflab("train", "dpo", "--out", "run", "--json")
    before = (tmp_path / "run" / "records.jsonl").read_bytes()
    code, again, _ = rlhflab("train", "dpo", "--resume", "run", "--json")
    assert code == 0
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == before
    first, again = json.loads(first), json.loads(again)
    assert (again["exact"], again["scalars"]) == (first["exact"], first["scalars"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "dpo", "--beta", "much"], "'--beta'.*much|'--beta'.*number"),
        (["train", "dpo", "--pairs", "few"], "--pairs must be a whole number or fresh, got 'few'"),
        (["train", "dpo", "--beta", "nan"], "beta must be a number > 0, got nan"),
        (["train", "dpo", "--beta", "-1"], "beta must be a number > 0, got -1"),
        (["train", "dpo", "--world", "mars"], "unknown world 'mars'; allowed: micro or a JSONL file"),
        (["train", "dpo", "--resume", "."], "is not a run: it has no config.json"),
        (["train", "dpo", "--resume", ".", "--beta", "2"], "--beta is not allowed with it"),
        (["train", "dpo", "--resume", ".", "--batch-size", "2"], "--batch-size is not allowed with it"),
        (["train", "dpo", "--resume", ".", "--out", "x"], "--out is not allowed with it"),
        (["train", "dpo", "--out", "full"], "--out full exists and is not an empty folder"),
        (["train", "dpo", "--bogus"], "No such option"),
        (["train", "ppp"], "No such command"),
        (["report"], "Missing argument"),
        (["report", "nowhere"], "nowhere is not a run"),
    ],
)
def test_bad_values_end_with_code_2_and_one_line(rlhflab, toy, tmp_path, arguments, says):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    code, out, err = rlhflab(*arguments)
    assert (code, out) == (2, "")
    assert re.search(says, one_line(err)), err
    assert not (tmp_path / "runs").exists()


def test_a_bug_keeps_its_traceback(rlhflab, toy, monkeypatch):
    monkeypatch.setattr(Toy, "__next__", lambda self: [].pop())
    with pytest.raises(IndexError, match="pop from empty list"):
        rlhflab("train", "dpo", "--out", "run")


def test_existing_files_are_named_absolutely_in_the_config(rlhflab, toy, tmp_path):
    (tmp_path / "pairs.jsonl").touch()
    rlhflab("train", "dpo", "--world", "pairs.jsonl")
    assert toy[0]["world"] == str(tmp_path / "pairs.jsonl")


def test_report_writes_the_page_and_says_where(rlhflab, toy, tmp_path):
    rlhflab("train", "dpo", "--out", "run")
    code, out, _ = rlhflab("report", "run", "--out", "page.html")
    assert (code, out) == (0, "page.html\n")
    assert "True reward" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_doctor_says_by_its_exit_code_whether_training_can_work(rlhflab, monkeypatch):
    for works, expected in ((True, 0), (False, 1)):
        monkeypatch.setattr("rlhflab.doctor.doctor", lambda device, works=works: works)
        assert rlhflab("doctor")[0] == expected


@pytest.fixture
def launched(monkeypatch):
    commands = []

    def execv(program, command):
        commands.append(command)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", execv)
    return commands


def test_lab_opens_the_first_notebook(rlhflab, launched, monkeypatch, tmp_path):
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs" / "00_start_here.ipynb").touch()
    monkeypatch.setattr(cli, "_has_browser", lambda: True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    rlhflab("lab")
    assert launched[0][1:] == [
        "-m", "jupyterlab", f"--ServerApp.root_dir={tmp_path}",
        "--LabApp.default_url=/lab/tree/labs/00_start_here.ipynb",
    ]  # fmt: skip
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    monkeypatch.setattr(cli, "_has_browser", lambda: False)
    _, _, err = rlhflab("lab", "--port", 8899)
    assert launched[1][5:] == ["--no-browser", "--port=8899", "--allow-root"]
    assert "address" in err


def test_lab_without_labs_says_what_to_do(rlhflab, launched, monkeypatch, tmp_path):
    monkeypatch.setattr(messages, "__file__", str(tmp_path / "site-packages" / "rlhflab" / "cli" / "x.py"))
    code, _, err = rlhflab("lab")
    assert code == 2
    assert "run this in a clone of the project" in one_line(err)
    assert launched == []


def test_help_is_quick_and_needs_no_heavy_import(root):
    code = (
        "import sys, time; from rlhflab import cli; sys.argv = ['rlhflab', 'train', 'dpo', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: heavy = {'torch', 'transformers', 'plotly', 'numpy'} & set(sys.modules)\n"
        "print(*heavy, time.process_time(), file=sys.stderr)"
    )
    runs = []
    for _ in range(3):  # the quickest: a machine that is busy costs processor time too
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
        )
        *heavy, seconds = done.stderr.split()
        assert "--label-noise" in done.stdout and heavy == []
        runs.append(float(seconds))
        if runs[-1] < 0.7:
            break
    assert min(runs) < 0.7


def helps(name):
    group = typer.main.get_command(cli.app).commands["train"]
    return {option.name: option.help for option in group.get_command(None, name).params}


def shown(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    return {None: "none", "": "nothing"}.get(value, f"{value:g}" if isinstance(value, float) else str(value))


FOUND_WHERE_IT_IS_LOADED = {
    "learning_rate": "1e-5",
    "pairs": "enough for three epochs",
    "warmup": "a tenth of the updates",
}


@pytest.mark.parametrize("name", LANGUAGE)
def test_the_help_of_every_option_shows_the_default_that_holds(name):
    found, recipe = helps(name), LANGUAGE[name]
    assert {"out", "resume", "tracker", "as_json"} <= set(found)
    tiny = recipe()
    real = recipe(model="owner/model", world="owner/name") if "model" in recipe.declared() else tiny
    for setting_ in recipe.declared():
        if setting_ in ("progress", "evaluate"):
            assert setting_ not in found
            continue
        words, value, there = found[setting_], getattr(tiny, setting_), getattr(real, setting_)
        assert words.count("default ") == 1
        assert recipe.declared()[setting_].spec.allowed.partition("number")[2].strip() in words  # its range
        at = words.index("default ")
        in_words = setting_ == "warmup" and "default a tenth of the updates" in words
        assert in_words or re.match(rf"default {re.escape(shown(value))}[.;]", words[at:]), (setting_, words)
        if there != value and setting_ not in ("model", "world"):
            expected = FOUND_WHERE_IT_IS_LOADED.get(setting_, shown(there))
            assert re.search(rf"(real models: |default ){expected}", words), (setting_, words)


@pytest.mark.parametrize("name", CONTROL)
def test_the_help_shows_the_defaults_of_every_control_problem(name):
    found, language = helps(name), LANGUAGE[name]
    usual = CONTROL[name]()
    for setting_ in CONTROL[name].declared():
        if setting_ in ("progress", "world"):
            continue
        words, value = found[setting_], getattr(usual, setting_)
        places = (
            ["only in control, default "]
            if setting_ not in language.declared()
            else ["In control: ", "default "]
        )
        held = words[max(words.find(place) + len(place) for place in places if place in words) :]
        assert re.match(rf"{re.escape(shown(value))}[.;]", held), (setting_, words)
        for world in ("Acrobot-v1", "Pendulum-v1"):
            other = getattr(CONTROL[name](world=world), setting_)
            assert other == value or f"{world}: {shown(other)}" in held, (setting_, world, words)


def test_the_groups_help_lists_all_commands(rlhflab):
    code, out, _ = rlhflab("train", "--help")
    assert code == 0
    for name in LANGUAGE:
        assert re.search(rf"^\s+{name}\s+\w", out, re.MULTILINE)


# The real thing, small: (arguments, what of the exact block must hold)
SMALL = {
    "pretrain": ["--texts", 500, "--steps", 15],
    "sft": ["--texts", 500, "--steps", 10],
    "reward": ["--pairs", 200, "--steps", 10],
    "rejection": ["--steps", 4, "--batch-size", 36, "--updates", 2],
    "reinforce": ["--steps", 4, "--batch-size", 45],
    "trpo": ["--steps", 2, "--batch-size", 45],
    "ppo": ["--steps", 4, "--batch-size", 45],
}


@pytest.mark.parametrize("name", [name for name in LANGUAGE if name != "dpo"])
def test_every_algorithm_runs_and_resumes_from_the_command_line(rlhflab, sft, tmp_path, name):
    code, out, err = rlhflab("train", name, *SMALL[name], "--seed", 1, "--out", "run", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["algorithm"] == name and result["beta"] == 1.0 and result["seed"] == 1
    assert set(result["exact"]) >= EXACT and result["exact"]["efficiency"] <= 1 + 1e-9
    records = (tmp_path / "run" / "records.jsonl").read_bytes()
    assert rlhflab("train", name, "--resume", "run")[0] == 0
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == records
    assert rlhflab("report", "run")[0] == 0


CONTROL_SMALL = {
    "reinforce": ["--envs", 4],
    "trpo": ["--envs", 4, "--horizon", 32, "--max-kl", 0.01],
    "ppo": ["--envs", 4, "--horizon", 32, "--epochs", 2, "--gamma", 0.9],
}


@pytest.mark.parametrize("name", CONTROL)
def test_a_control_world_runs_resumes_and_is_reported_like_any_other(rlhflab, tmp_path, name, monkeypatch):
    small = ["--world", "CartPole-v1", "--steps", 5, *CONTROL_SMALL[name]]
    code, out, err = rlhflab("train", name, *small, "--seed", 1, "--out", "run", "--json")
    assert code == 0, err
    assert "return=" in err
    result = json.loads(out)
    assert result["algorithm"] == name and result["seed"] == 1 and result["steps"] == 5
    assert result["beta"] is None and result["exact"] is None
    assert result["estimated"]["return"] > 5 and result["estimated"]["solved"] == 475
    assert result["scalars"]["env_steps"] > 50

    append = Run.append

    def interrupt_after_step_3(self, record: Record):
        append(self, record)
        if record.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Run, "append", interrupt_after_step_3)
    assert rlhflab("train", name, *small, "--seed", 1, "--out", "cut")[0] == 130
    monkeypatch.setattr(Run, "append", append)
    assert rlhflab("train", name, "--resume", "cut")[0] == 0
    whole, cut = (list(Run.open(tmp_path / folder).records()) for folder in ("run", "cut"))
    assert len(whole) == 5 and cut == whole

    assert rlhflab("report", "run")[0] == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Return of an episode" in page and "True reward" not in page and "token)" not in page


def test_a_reward_run_is_a_reward_for_ppo(rlhflab, sft, tmp_path):
    assert rlhflab("train", "reward", "--pairs", 500, "--steps", 40, "--blind", "film", "--out", "rm")[0] == 0
    code, out, err = rlhflab(
        "train", "ppo", "--reward", "rm", "--steps", 3, "--batch-size", 45, "--json", "--out", "run"
    )
    assert code == 0, err
    assert abs(json.loads(out)["scalars"]["objective/scores"]) < 1
    assert Run.open(tmp_path / "run").config["reward"] == str(tmp_path / "rm")
    assert rlhflab("train", "ppo", "--steps", 1, "--batch-size", 45, "--out", "true")[0] == 0
    by_model, by_truth = (next(iter(Run.open(tmp_path / name).records())).scalars for name in ("run", "true"))
    assert by_model["answer_length"] == by_truth["answer_length"]  # the same answers, and other scores
    assert abs(by_model["objective/scores"] - by_truth["objective/scores"]) > 0.01


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["ppo", "--reward", "love"],
            "reward must be true, model or the folder of a reward model, got 'love'",
        ),
        (["ppo", "--reward", "."], "holds no reward model"),
        (["ppo", "--clip-range", "0"], "clip_range must be a number > 0 and ≤ 10, got 0"),
        (["ppo", "--epochs", "0"], "epochs must be a whole number ≥ 1 and ≤ 50, got 0"),
        (["ppo", "--value", "none"], "value must be one of shared, own, got 'none'"),
        (["trpo", "--max-kl", "-1"], "max_kl must be a number > 0, got -1"),
        (["reinforce", "--world", "mars"], "unknown world 'mars'"),
        (
            ["ppo", "--world", "CartPole-v1", "--clip-range", "-1"],
            "clip_range must be a number > 0 and ≤ 10, got -1",
        ),
        (["trpo", "--world", "CartPole-v1", "--max-kl", "0"], "max_kl must be a number > 0, got 0"),
        (
            ["ppo", "--world", "CartPole-v1", "--beta", "1"],
            "--beta is not a setting of ppo in the world CartPole-v1",
        ),
        (["ppo", "--gamma", "0.9"], "--gamma is not a setting of ppo in a language world"),
        (
            ["dpo", "--world", "CartPole-v1"],
            "unknown world 'CartPole-v1'; use micro, reviews, an existing file",
        ),
        (["reward", "--ranked", "1"], "ranked must be a whole number ≥ 2 and ≤ 16, got 1"),
        (
            ["reward", "--blind", "love"],
            "blind must be one of film, negation, strength, conjunction or nothing",
        ),
        (["reward", "--label-noise", "0.7"], "label_noise must be a number ≥ 0 and ≤ 0.5, got 0.7"),
        (["sft", "--p-noise", "2"], "p_noise must be a number ≥ 0 and ≤ 1, got 2"),
        (["sft", "--batch-size", "0"], "batch_size must be a whole number ≥ 1, got 0"),
        (["pretrain", "--texts", "0"], "texts must be a whole number ≥ 1, got 0"),
    ],
)
def test_bad_values_of_the_other_algorithms_are_one_line_too(rlhflab, sft, tmp_path, arguments, says):
    code, out, err = rlhflab("train", *arguments)
    assert (code, out) == (2, "")
    assert re.search(says, one_line(err)), err
    assert not (tmp_path / "runs").exists()
