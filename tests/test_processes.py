"""Two processes do what one does with the same batch; one of them writes, none waits for ever.

The sums of two processes are made in another order than those of one, so they differ in the last bit. AdamW divides a
gradient by its own size, which makes such a difference in a small gradient a larger one in its weight: it grows from
step to step, hence the two tolerances.
"""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from rlhflab import processes
from rlhflab.algorithms.ppo import PPO
from rlhflab.engines.choice import engine_class
from rlhflab.runs.store import Run
from tests.launched import END

LAUNCH = (
    sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", "2",
    "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
    "-m",
)  # fmt: skip
SHIFT = {"mean_reward", "min_reward", "max_reward"}  # no pair says anything of it: rounding alone moves it
FIRST, LATER = {"rel": 1e-5, "abs": 2e-6}, {"rel": 1e-3, "abs": 1e-4}


@pytest.fixture
def launch(root, tmp_path):
    """Run a module in two processes in an empty folder; returns exit code, stdout, lines on stderr."""

    def call(*arguments):
        ended = subprocess.run(
            [*LAUNCH, *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True, timeout=300,
            env={**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        return ended.returncode, ended.stdout, ended.stderr.replace("\r", "\n").splitlines()

    return call


@pytest.fixture
def two(launch):
    """Call `rlhflab train` in two processes; returns exit code, stdout, lines on stderr."""
    return lambda *arguments: launch("rlhflab", "train", *arguments)


@pytest.fixture
def two_in_turn(launch, tmp_path):
    """Make several such calls, one after the other in the same processes; returns what each gives, by name."""

    def call(calls):
        file = tmp_path / "calls.json"
        file.write_text(json.dumps({name: ["train", *map(str, given)] for name, given in calls.items()}))
        code, out, err = launch("tests.launched", file)
        assert code == 0, err
        file.unlink()
        return dict(
            zip(calls, zip(parts(calls, out.splitlines()), parts(calls, err), strict=True), strict=True)
        )

    return call


def parts(calls, lines):
    """The lines of each call, all of which ended well."""
    found = [[]]
    for line in lines:
        if line.startswith(END):
            assert line == f"{END}{list(calls)[len(found) - 1]} 0", found[-1]
            found.append([])
        elif line:
            found[-1].append(line)
    return found[:-1]


def assert_same_course(one, other):
    """Two runs' records tell of the same training."""
    one, other = (list(Run.open(folder).records()) for folder in (one, other))
    assert len(one) == len(other) > 1
    for wanted, found in zip(one, other, strict=True):
        near = FIRST if found.step == 1 else LATER
        assert found.scalars.keys() == wanted.scalars.keys()
        for name in wanted.scalars.keys() - SHIFT:
            assert found.scalars[name] == pytest.approx(wanted.scalars[name], **near), (found.step, name)
        if wanted.pairs:
            assert found.pairs.ids == wanted.pairs.ids and found.pairs.chosen == wanted.pairs.chosen
            assert found.pairs.weights == pytest.approx(wanted.pairs.weights, **near)
        assert found.arrays.keys() == wanted.arrays.keys()
        if "ratio" in wanted.arrays:
            assert found.arrays["ratio"] == pytest.approx(wanted.arrays["ratio"], **near)
    last, same = one[-1].exact or {}, other[-1].exact or {}
    assert same == pytest.approx(last, rel=1e-2, abs=1e-4)


def test_two_processes_do_what_one_does(rlhflab, two_in_turn):
    every = ("--steps", 8, "--evaluate-every", 50, "--json")
    calls = {
        "dpo": ("dpo", "--batch-size", 17, "--pairs", 100, *every),
        "fresh": ("dpo", "--batch-size", 16, "--pairs", "fresh", *every),
        "reward": ("reward", "--batch-size", 17, "--pairs", 100, "--ranked", 3, *every),
        "ppo": ("ppo", "--batch-size", 41, "--minibatches", 2, *every),
    }
    for name, settings in calls.items():
        assert rlhflab("train", *settings, "--out", f"one-{name}")[0] == 0
    said = two_in_turn({name: (*settings, "--out", name) for name, settings in calls.items()})
    assert sorted(os.listdir(".")) == sorted([*calls, *(f"one-{name}" for name in calls)])
    for name, (out, err) in said.items():
        assert len(out) == 1 and json.loads(out[0])["run"] == name
        assert_same_course(f"one-{name}", name)
        assert Run.open(name).environment["processes"] == 2
        assert sum("0/8 [" in line for line in err) == 1, name  # one bar


def test_two_processes_train_the_adapters_of_a_real_architecture(
    rlhflab, two_in_turn, model_folder, tmp_path
):
    rows = [
        {"prompt": f"Is it {'very ' * (n % 5)}{n}?", "chosen": f"Yes,{' yes' * (n % 3)}.", "rejected": "No."}
        for n in range(20)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "mine.py").write_text(
        "def score(prompts, answers):\n    return [len(a) / 10 for a in answers]\n"
    )
    every = (
        "--model", model_folder("llama"), "--world", "pairs.jsonl", "--lora", "--lora-rank", 4, "--steps", 4,
        "--batch-size", 6,
    )  # fmt: skip
    calls = {
        "dpo": ("dpo", *every, "--pairs", 9),
        "ppo": ("ppo", *every, "--reward", "mine.py:score", "--max-new-tokens", 6),
    }
    for name, settings in calls.items():
        assert rlhflab("train", *settings, "--out", f"one-{name}")[0] == 0
    for name, (_, err) in two_in_turn({n: (*given, "--out", n) for n, given in calls.items()}).items():
        assert_same_course(f"one-{name}", name)
        assert (tmp_path / name / "model" / "adapter_model.safetensors").is_file()
        notes = Run.open(name).environment["notes"].values()
        assert all(err.count(f"rlhflab: {note}") == 1 for note in notes), name


def test_interrupted_processes_stop_together_and_go_on(root, two, tmp_path):
    train = [
        "rlhflab",
        "train",
        "dpo",
        "--steps",
        "3000",
        "--pairs",
        "50",
        "--batch-size",
        "8",
        "--out",
        "run",
    ]
    launched = subprocess.Popen(
        [*LAUNCH, *train], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)}, start_new_session=True, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    records = tmp_path / "run" / "records.jsonl"
    try:
        until = time.monotonic() + 60
        while not (records.exists() and records.stat().st_size > 2000):
            assert time.monotonic() < until and launched.poll() is None
            time.sleep(0.1)
        os.killpg(launched.pid, signal.SIGINT)  # as a terminal does
        _, err = launched.communicate(timeout=60)
    finally:
        if launched.poll() is None:
            os.killpg(launched.pid, signal.SIGKILL)
    run = Run.open(tmp_path / "run")
    assert run.status["status"] == "stopped", err
    step = run.status["steps"]
    assert [record.step for record in run.records()] == list(range(1, step + 1))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, "steps": step + 3}))
    code, _, lines = two("dpo", "--resume", "run")
    assert code == 0, lines
    assert [record.step for record in run.records()] == list(range(1, step + 4))


def test_what_one_process_cannot_do_ends_all(two, model_folder, tmp_path):
    (tmp_path / "pairs.jsonl").write_text(
        json.dumps({"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."})
    )
    (tmp_path / "mine.py").write_text(
        "import os\n\n\ndef score(prompts, answers):\n    return [1 / (1 - int(os.environ['RANK']))] * len(answers)\n"
    )
    code, _, err = two(
        "ppo", "--model", model_folder("llama"), "--world", "pairs.jsonl", "--reward", "mine.py:score", "--lora",
        "--batch-size", 4, "--max-new-tokens", 3, "--steps", 2,
    )  # fmt: skip
    assert code != 0
    assert sum("ZeroDivisionError: division by zero" in line for line in err) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ("sft",),
            "rlhflab: sft on micro trains in one process; only reward, dpo, ppo on language can use several",
        ),
        (("dpo", "--batch-size", 1), "batch_size must be ≥ 2, a row for each of 2 processes, got 1"),
    ],
)
def test_what_several_processes_do_not_do_is_one_line(two, tmp_path, settings, words):
    code, out, err = two(*settings)
    assert code != 0 and not out and not list(tmp_path.iterdir())
    said = [line for line in err if line.startswith("rlhflab: ")]
    assert len(said) == 1 and words in said[0]


def test_a_launcher_is_refused_where_it_makes_no_sense(rlhflab, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="one process"):
        engine_class("trl", PPO)
    code, _, err = rlhflab("sweep", "--algorithms", "dpo", "--out", "grid")
    assert code == 2 and err == "rlhflab: a sweep starts its own processes: start it without a launcher\n"


def test_accelerate_starts_one_process_where_it_is_told_cpu(rlhflab, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    code, _, err = rlhflab("train", "dpo", "--beta", 0)
    assert code == 2 and "accelerate launch --cpu starts just one" in err.splitlines()[0]


def test_only_the_first_of_several_processes_says_what_is_wrong(rlhflab, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        code, _, err = rlhflab("train", "dpo", "--steps", "many")
        assert code == 2
        said.append(err.count("rlhflab: "))
    assert said == [1, 0]


def test_more_processes_than_gpus_are_one_line(rlhflab, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    code, _, err = rlhflab("train", "dpo")
    assert code == 2 and err.startswith(
        "rlhflab: 2 processes need a GPU each, and torch sees 1: start 1, or give"
    )


@pytest.mark.parametrize("first", [True, False])
def test_who_comes_first_lets_the_others_come_where_it_failed(monkeypatch, first):
    did = []
    state = SimpleNamespace(
        num_processes=2, is_local_main_process=first, wait_for_everyone=lambda: did.append("waited")
    )
    monkeypatch.setattr(processes, "_state", state)
    with pytest.raises(OSError, match="no space"), processes.main_first():
        did.append("worked")
        raise OSError("no space")
    assert did == (["worked", "waited"] if first else ["waited", "worked"])


@pytest.mark.parametrize("rows", [4, 5, 6, 17])
def test_shares_cover_the_batch(monkeypatch, rows):
    monkeypatch.setattr(processes, "count", lambda: 4)
    parts = [list(range(rows)[processes.share(rows, of)]) for of in range(4)]
    assert [row for part in parts for row in part] == list(range(rows))
    assert {len(part) for part in parts} <= {processes.largest_share(rows), processes.largest_share(rows) - 1}
    with pytest.raises(ValueError, match="a row for each of 4 processes, got 3"):
        processes.require_rows(3)


def test_a_process_alone_has_everything():
    values = torch.arange(3.0, requires_grad=True)
    assert processes.whole(values, 3) is values and processes.total(values) is values
    assert processes.share(5) == slice(0, 5) and processes.largest(7) == 7
    assert processes.agree(True) and not processes.agree(False)
    with pytest.raises(OSError, match="gone"), processes.together():
        raise OSError("gone")


def test_bools_are_gathered_as_numbers_and_come_back_as_bools(monkeypatch):
    def gather(parts, filled):
        assert filled.dtype == torch.uint8 and filled.tolist() == [1, 0, 1]
        parts[0].copy_(filled)
        parts[1].copy_(torch.tensor([0, 1, 9]))

    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather", gather)
    found = processes.whole(torch.tensor([True, False, True]), 6)
    assert found.dtype == torch.bool and found.tolist() == [True, False, True, False, True, True]


@pytest.mark.parametrize(
    ("error", "why"),
    [("\n  reset by peer\nat 0x1", "reset by peer"), ("", "RuntimeError"), (" \n", "RuntimeError")],
)
def test_a_process_that_is_lost_is_one_line(error, why):
    with pytest.raises(processes.ProcessLost, match=rf"cannot be reached \({why}\)$"), processes._meeting():
        raise RuntimeError(error)
