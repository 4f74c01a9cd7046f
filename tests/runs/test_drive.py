"""What drives a training: a failure keeps the last whole update, and going on gives the run that never failed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch

from rlhflab.algorithms import trpo
from rlhflab.algorithms.optimiser import Optimiser
from rlhflab.boundary import Fault
from rlhflab.data.batches import ShuffledBatches
from rlhflab.recipes import from_config
from rlhflab.runs import drive as driving
from rlhflab.runs import json_files, store
from rlhflab.runs.checkpoint import read_checkpoint
from rlhflab.runs.drive import Checkpoints, begin, drive, resume
from rlhflab.runs.store import Run
from rlhflab.runs.unchanged import require_unchanged
from tests.memory import Failing
from tests.toy import Toy, ToyRecipe
from tests.toy import from_config as toy

ALWAYS = {"steps": 5, "seed": 1, "evaluate_every": 10}
FEW = {"pairs": 16, "batch_size": 8, "progress": False}
TRAININGS = {
    "sft": {"algorithm": "sft", "texts": 64, "batch_size": 8, "progress": False},
    "reward": {"algorithm": "reward", "evaluate": False, **FEW},
    "dpo": {"algorithm": "dpo", **FEW},
    "trl": {"algorithm": "dpo", "engine": "trl", **FEW},
    "ppo": {"algorithm": "ppo", "batch_size": 18, "progress": False},
    "trpo": {"algorithm": "trpo", "batch_size": 18, "progress": False},
    "reinforce": {"algorithm": "reinforce", "batch_size": 18, "progress": False},
    "control": {"algorithm": "ppo", "world": "CartPole-v1", "envs": 2, "horizon": 32},
    "episodes": {"algorithm": "reinforce", "world": "CartPole-v1", "envs": 2},
}


def files(run):
    return [(run.folder / name).read_bytes() for name in ("records.jsonl", "pairs.jsonl")]


def undisturbed(config, folder):
    """The files of a run without a fault, and its algorithm, into which any other state can be loaded."""
    algorithm, run = begin(from_config(config), folder)
    drive(algorithm, run)
    return files(run), algorithm


def layer(model):
    inside = getattr(model, "base_model", model)
    blocks = [m for m in inside.modules() if type(m).__name__ in ("GPT2Block", "LlamaDecoderLayer")]
    return blocks[-1] if blocks else model.net


def in_the_forward_pass(algorithm):
    """Ctrl-C before the weights change: random numbers are drawn, the batch is taken, the episode has gone on."""
    failing = Failing("forward", KeyboardInterrupt())
    layer(getattr(algorithm, "reward_model", None) or algorithm.policy).register_forward_hook(failing)
    failing.on = True


def in_the_evaluation(algorithm):
    judged = algorithm._judged

    def once(record):
        algorithm._judged = judged
        raise KeyboardInterrupt

    algorithm._judged = once


def with_weights_half_changed(algorithm):
    def interrupt(*_):
        hook.remove()
        raise KeyboardInterrupt

    hook = algorithm._optimiser.adam.register_step_post_hook(interrupt)


@pytest.mark.parametrize("name", TRAININGS)
def test_what_is_interrupted_anywhere_goes_on_as_if_nothing_had_happened(name, tmp_path, monkeypatch):
    if name in ("control", "episodes"):
        pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    if name == "trl":
        pytest.importorskip("trl", reason="TRL is not installed")
    config = {**ALWAYS, **TRAININGS[name]}
    whole, other = undisturbed(config, tmp_path / "whole")
    algorithm, run = begin(from_config(config), tmp_path / "run")
    for interrupt, at, kept in (
        (in_the_forward_pass, 1, 1),
        (in_the_evaluation, 2, 2),
        (with_weights_half_changed, 4, 2),  # such weights are no state: the last checkpoint is what there is
    ):

        def arm(record, algorithm=algorithm, interrupt=interrupt, at=at):
            if record.step == at:
                interrupt(algorithm)

        with pytest.raises(KeyboardInterrupt):
            drive(algorithm, run, arm)
        assert (run.status["status"], run.status["checkpoint"]) == ("stopped", kept)
        assert algorithm.step == at
        run, algorithm, other = Run.open(run.folder), other, algorithm
        assert run.load_checkpoint(algorithm) == kept == algorithm.step
    assert drive(algorithm, run)["status"] == "finished"
    assert files(run) == whole


def test_a_line_search_that_is_interrupted_leaves_the_policy_where_it_was(tmp_path, monkeypatch):
    pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    config = {**ALWAYS, "algorithm": "trpo", "world": "CartPole-v1", "envs": 2, "horizon": 32}
    whole, other = undisturbed(config, tmp_path / "whole")
    algorithm, run = begin(from_config(config), tmp_path / "run")
    search = trpo.backtrack

    def interrupt(attempt, *_):
        monkeypatch.setattr(trpo, "backtrack", search)
        attempt(1.0)  # a step that is too long
        raise KeyboardInterrupt

    def arm(record):
        if record.step == 2:
            monkeypatch.setattr(trpo, "backtrack", interrupt)

    with pytest.raises(KeyboardInterrupt):
        drive(algorithm, run, arm)
    assert run.load_checkpoint(other) == 2
    drive(other, run)
    assert files(run) == whole
    assert algorithm.rewind() and list(algorithm) == list(run.records())[2:]  # in memory, too


def test_a_scaled_loss_whose_step_is_left_out_has_changed_the_scale():
    weight = torch.nn.Parameter(torch.ones(1))
    optimiser = Optimiser([weight], scaled=True)
    optimiser.step((weight * float("inf")).sum(), 0.1)
    assert optimiser.writes == 1 and weight.item() == 1.0
    optimiser.step(weight.sum(), 0.1)
    assert optimiser.writes == 2 and weight.item() < 1.0


BAD = """
calls = 0


def score(prompts, answers):
    global calls
    calls += 1
    if calls == 3:
        raise KeyError("my bug")
    return [float(len(answer)) for answer in answers]
"""


@pytest.mark.parametrize("name", ["ppo", "trpo", "reinforce"])
def test_a_reward_that_fails_is_one_line_and_can_be_mended(name, tmp_path, model_folder):
    pairs = [{"prompt": f"Is it {n}? ", "chosen": "Yes.", "rejected": "No."} for n in range(12)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    file = tmp_path / "score.py"
    config = {
        "algorithm": name, "model": str(model_folder("llama")), "world": str(tmp_path / "pairs.jsonl"), "steps": 4,
        "batch_size": 8, "max_new_tokens": 6, "reward": f"{file}:score", "progress": False,
    }  # fmt: skip
    file.write_text(BAD.replace("== 3", "== -1"))
    whole, _ = undisturbed(config, tmp_path / "whole")
    file.write_text(BAD)
    algorithm, run = begin(from_config(config), tmp_path / "run")
    result = drive(algorithm, run)
    assert (result["status"], result["checkpoint"], result["steps"]) == ("failed", 2, 2)
    assert result["error"] == "reward score (score.py, line 5): KeyError: 'my bug' (score.py, line 9)"
    assert run.status["error"] == result["error"]
    file.write_text(BAD.replace("== 3", "== -1"))
    run = Run.open(run.folder)
    assert drive(resume(from_config(run.config), run), run)["status"] == "finished"
    assert files(run) == whole


@pytest.mark.parametrize(
    "at", [40, 150, 217]
)  # in the first rollout, in the first evaluation, in a later rollout
def test_an_environment_that_fails_leaves_no_trace(at, tmp_path):
    gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    from gymnasium.envs.classic_control import CartPoleEnv

    steps = []

    class Fragile(CartPoleEnv):
        def step(self, action):
            steps.append(0)
            if len(steps) == at:
                raise Fault("no power")
            return super().step(action)

    gymnasium.register("Fragile-v0", Fragile, max_episode_steps=50)
    try:
        config = {
            **ALWAYS, "algorithm": "ppo", "world": "Fragile-v0", "envs": 2, "horizon": 32, "evaluate_every": 2
        }  # fmt: skip
        steps += range(1000)
        whole, _ = undisturbed(config, tmp_path / "whole")
        steps.clear()
        algorithm, run = begin(from_config(config), tmp_path / "run")
        result = drive(algorithm, run)
        assert (result["status"], result["error"]) == ("failed", "no power")
        steps += range(1000)
        run = Run.open(run.folder)
        drive(resume(from_config(run.config), run), run)
        assert files(run) == whole
    finally:
        del gymnasium.registry["Fragile-v0"]


def test_a_step_that_ran_out_of_memory_can_be_tried_again(tmp_path):
    """In PPO's second epoch the weights are half changed; before the first, nothing is."""
    config = {**ALWAYS, **TRAININGS["ppo"]}
    whole, other = undisturbed(config, tmp_path / "whole")
    algorithm, run = begin(from_config(config), tmp_path / "run")
    for minibatches, at in ((0, 2), (1, 3)):

        def arm(record, algorithm=algorithm, left=minibatches, at=at):
            step = algorithm._optimiser.step

            def short(*given):
                nonlocal left
                if left == 0:
                    algorithm._optimiser.step = step
                    raise MemoryError
                left -= 1
                return step(*given)

            if record.step == at:
                algorithm._optimiser.step = short

        result = drive(algorithm, run, arm)
        assert (result["status"], result["checkpoint"], result["steps"]) == ("out of memory", 2, at)
        assert algorithm.rewind() == (minibatches == 0)
        run, algorithm, other = Run.open(run.folder), other, algorithm
        run.load_checkpoint(algorithm)
    drive(algorithm, run)
    assert files(run) == whole


def test_a_bug_keeps_its_traceback_and_the_run_its_last_update(tmp_path):
    algorithm, run = begin(from_config({**ALWAYS, **TRAININGS["reward"]}), tmp_path / "run")

    def arm(record):
        if record.step == 2:
            algorithm._update = lambda *_: [].pop()

    with pytest.raises(IndexError) as raised:
        drive(algorithm, run, arm)
    assert raised.value.__notes__ == [f"the run's step 2 is kept in {run.folder}"]
    assert (run.status["status"], run.status["checkpoint"]) == ("failed", 2)
    assert run.status["error"] == "IndexError: pop from empty list"


def test_what_fails_between_two_updates_costs_none(tmp_path):
    """Such as a tracker that loses its server."""
    algorithm, run = begin(from_config({**ALWAYS, **TRAININGS["reward"]}), tmp_path / "run")

    def lose(record):
        if record.step == 3:
            raise ConnectionError("no server")

    with pytest.raises(ConnectionError):
        drive(algorithm, run, lose)
    assert run.status["checkpoint"] == 3 == len(list(run.records()))


# When a checkpoint is due


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but where a test moves it."""

    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

        def __getattr__(self, name):
            return getattr(sys.modules["time"], name)

    found = Clock()
    monkeypatch.setattr(driving, "time", found)
    monkeypatch.setattr(store, "time", found)
    return found


def written(clock, run, step_takes, write_takes, steps, monkeypatch, every=10**6):
    """After which of the steps, of so many seconds each, checkpoints are written, each of which takes so long."""
    found = []

    def save(self, algorithm):
        found.append(algorithm.step)
        clock.now += write_takes
        self.seconds_to_save = write_takes

    monkeypatch.setattr(Run, "save_checkpoint", save)
    toy, checkpoints = Toy(steps=steps), Checkpoints(run, 0, every)
    for _ in toy:
        clock.now += step_takes
        checkpoints.after(toy)
    return found


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", {})


def test_a_minute_is_the_most_that_is_lost(clock, run, monkeypatch):
    assert written(clock, run, 7.0, 0.1, 30, monkeypatch) == [
        8,
        16,
        24,
    ]  # 56 s; a ninth step would end after 63 s


def test_a_step_of_more_than_a_minute_is_kept_at_once(clock, run, monkeypatch):
    assert written(clock, run, 90.0, 0.1, 3, monkeypatch) == [1, 2, 3]


def test_slow_writing_takes_two_percent_of_the_time(clock, run, monkeypatch):
    assert written(clock, run, 10.0, 3.0, 60, monkeypatch) == [5, 20, 35, 50]  # then every 50 × 3 s


def test_every_so_many_steps_too_but_not_for_more_than_two_percent(clock, run, monkeypatch):
    assert written(clock, run, 0.01, 0.001, 300, monkeypatch, every=100) == [100, 200, 300]
    # every hundred in which 0.5 s more would be within 1 s and 2 % of the time
    assert written(clock, run, 0.1, 0.5, 1000, monkeypatch, every=100) == [100, 200, 300, 500, 800, 1000]


def test_the_drive_asks_after_every_step(tmp_path, monkeypatch):
    monkeypatch.setattr(driving, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(driving, "WRITING", 1e9)
    algorithm, run = begin(ToyRecipe(steps=3), tmp_path / "run")
    kept = []
    drive(
        algorithm,
        run,
        lambda record: kept.append(read_checkpoint(tmp_path / "run/checkpoint.safetensors")[0]),
    )
    assert kept == [1, 2, 3]


@pytest.mark.parametrize(("stop", "status"), [(4, "stopped"), (10, "finished")])
def test_the_last_step_is_on_the_disk_however_it_ends(stop, status, tmp_path):
    algorithm, run = begin(ToyRecipe(steps=10), tmp_path / "run")
    found = drive(algorithm, run, lambda record: record.step == stop)
    step, _ = read_checkpoint(tmp_path / "run/checkpoint.safetensors")[:2]
    assert (found["status"], algorithm.step, step) == (status, stop, stop)


# Where nothing can be written


def full(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("what", ["checkpoint", "record", "status"])
def test_a_full_disk_leaves_the_last_checkpoint_whole_and_says_which(what, tmp_path, monkeypatch):
    monkeypatch.setattr(driving, "CHECKPOINT_EVERY", 4)
    algorithm, run = begin(ToyRecipe(), tmp_path / "run")

    def fill(record):
        if record.step == 6 and what == "checkpoint":
            monkeypatch.setattr("rlhflab.runs.checkpoint.save_file", full)
        if record.step == 6 and what == "record":
            monkeypatch.setattr(store, "line_of", full)
        if record.step == 6 and what == "status":
            monkeypatch.setattr(json_files, "dumps", full)

    result = drive(algorithm, run, fill)
    monkeypatch.undo()
    where = {"checkpoint": "checkpoint.safetensors", "record": "records.jsonl", "status": "records.jsonl"}[
        what
    ]
    assert result["status"] == "failed"
    assert result["error"] == f"cannot write {run.folder / where}: No space left on device"
    assert result["checkpoint"] == read_checkpoint(run.folder / "checkpoint.safetensors")[0] == 4
    again = Run.open(run.folder)
    assert again.status.get("status", "failed") == "failed"
    drive(resume(toy(again.config), again), again)
    assert list(again.records()) == list(Toy())


@contextmanager
def files_up_to(size):
    resource = pytest.importorskip("resource", reason="needs POSIX limits")
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_a_file_that_may_grow_no_further_is_such_a_disk(tmp_path):
    algorithm, run = begin(ToyRecipe(steps=40), tmp_path / "run")
    with ExitStack() as stack:
        result = drive(
            algorithm, run, lambda record: record.step == 20 and stack.enter_context(files_up_to(3000))
        )
    assert result["status"] == "failed" and "records.jsonl: File too large" in result["error"]
    assert result["checkpoint"] == 0
    again = Run.open(run.folder)
    drive(resume(toy(again.config), again), again)
    assert list(again.records()) == list(Toy(steps=40))


def test_a_checkpoint_that_finds_no_room_is_one_line(run):
    """safetensors has errors of its own."""
    toy = Toy()
    run.save_checkpoint(toy)
    before = (run.folder / "checkpoint.safetensors").read_bytes()
    toy.weight = torch.zeros(10_000)
    with (
        files_up_to(5000),
        pytest.raises(Fault, match=r"^cannot write .*checkpoint\.safetensors: .*File too large"),
    ):
        run.save_checkpoint(toy)
    assert (run.folder / "checkpoint.safetensors").read_bytes() == before
    assert not list(run.folder.glob(".*"))


def test_a_folder_that_is_gone_has_nothing_to_go_on_from(tmp_path):
    algorithm, run = begin(ToyRecipe(), tmp_path / "run")
    result = drive(algorithm, run, lambda record: record.step == 3 and shutil.rmtree(tmp_path / "run"))
    assert (result["status"], result["checkpoint"]) == ("failed", None)
    assert result["error"].startswith(f"cannot write {tmp_path / 'run'}")


def test_records_are_on_the_disk_before_the_checkpoint_that_counts_on_them(run, monkeypatch):
    toy, synced, fsync, replace = Toy(), [], os.fsync, os.replace
    run.append(next(toy))

    def noted(handle):
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", lambda *paths: (synced.append("renamed"), replace(*paths)))
    run.save_checkpoint(toy)
    before = synced[: synced.index("renamed")]
    assert {"records.jsonl", "pairs.jsonl"} <= set(before)
    assert any("checkpoint" in name for name in before)


# Going on with what has changed


def changed(run, **settings):
    config = json.loads((run.folder / "config.json").read_text()) | settings
    (run.folder / "config.json").write_text(json.dumps(config))
    return Run.open(run.folder)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"beta": 2.0}, "beta was 1.0 and is 2.0"),
        ({"seed": "today"}, 'seed was 0 and is "today"'),
        ({"steps": "ten"}, 'steps was 10 and is "ten"'),
        ({"world": ["micro"]}, 'world was "micro" and is ["micro"]'),
        ({"batch_size": 4}, "batch_size was null and is 4"),
    ],
)
def test_settings_that_were_changed_by_hand_are_named(tmp_path, settings, says):
    config = {"algorithm": "toy", "beta": 1.0, "seed": 0, "steps": 10, "world": "micro"}
    run = Run.create(tmp_path / "run", config)
    run.save_checkpoint(Toy())
    with pytest.raises(Fault) as raised:
        resume(ToyRecipe(), changed(run, **settings))
    assert str(raised.value) == (
        f"{run.folder / 'config.json'} has changed since the checkpoint: {says}; restore it, or start a new run"
    )


def test_a_run_may_be_made_longer_and_its_files_may_move(tmp_path):
    algorithm, run = begin(ToyRecipe(steps=3), tmp_path / "run")
    drive(algorithm, run)
    run = changed(run, steps=5)
    assert drive(resume(toy(run.config), run), run)["steps"] == 5
    require_unchanged(changed(run, world="elsewhere.jsonl"))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_data_that_have_changed_are_refused_in_one_line(tmp_path, kind):
    place = data = tmp_path / "pairs.jsonl"
    if kind == "folder":
        place.mkdir()
        data = place / "part.jsonl"
    data.write_text("one\n")
    run = Run.create(tmp_path / "run", {"world": str(place)})
    run.save_checkpoint(Toy())
    require_unchanged(Run.open(run.folder))
    data.write_text("two\n")
    with pytest.raises(
        Fault, match=r"^.*pairs\.jsonl has changed since the run began \(4 bytes then, 4 bytes now\)"
    ):
        require_unchanged(Run.open(run.folder))
    data.unlink()
    if kind == "file":
        require_unchanged(Run.open(run.folder))  # who reads it says that it is not there


def test_a_state_of_something_else_is_one_line(tmp_path):
    """As where a model's folder holds another model now."""
    run = Run.create(tmp_path / "run", {"algorithm": "toy"})
    toy = Toy()
    toy.weight.data = torch.zeros(5, 5)
    run.save_checkpoint(toy)
    with pytest.raises(
        Fault, match=r"checkpoint\.safetensors does not fit the algorithm that the run's settings build: Run"
    ):
        run.load_checkpoint(Toy())


def test_a_place_in_other_data_is_one_line():
    few, many = ShuffledBatches(16, 4, 0), ShuffledBatches(17, 4, 0)
    many.next()
    with pytest.raises(ValueError, match="it is a position among 17 rows of data, but now there are 16"):
        few.load_state_dict(many.state_dict())
    former = {
        name: value for name, value in many.state_dict().items() if name != "rows"
    }  # of an older version
    former["queue"][0] = 16
    with pytest.raises(ValueError, match="now there are 16"):
        few.load_state_dict(former)


@pytest.mark.parametrize("name", ["config", "environment", "backdrop"])
def test_a_file_that_is_not_ours_any_more_is_named(run, name):
    for text in ("[1]", "{", *(['{"kl": 3}'] if name == "backdrop" else [])):
        (run.folder / f"{name}.json").write_text(text)
        with pytest.raises(ValueError, match=rf"{name}\.json is damaged"):
            Run.open(run.folder)
