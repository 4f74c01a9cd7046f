"""A run on disk gives back what was put in, continues exactly, and survives being killed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from rlhflab.core.record import Pairs, Record
from rlhflab.runs.checkpoint import write_checkpoint
from rlhflab.runs.store import Run, default_run_folder
from tests.toy import BACKDROP, Toy


def take(toy, run, steps):
    for _ in range(steps):
        run.append(next(toy))


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", {"steps": 10, "beta": 1.0}, BACKDROP)


def test_what_was_put_in_comes_back(run):
    records = list(Toy())
    for record in records:
        run.append(record)
    opened = Run.open(run.folder)
    assert list(opened.records()) == records
    assert records[0].scalars["grad_norm"] == math.inf
    assert opened.config == {"steps": 10, "beta": 1.0}
    assert opened.backdrop == BACKDROP
    assert opened.environment == run.environment
    assert opened.environment["packages"]["torch"].startswith(torch.__version__.split("+")[0])


def test_files_hold_plain_json_and_each_text_once(run):
    take(Toy(), run, 10)
    text = (run.folder / "records.jsonl").read_text()
    assert '"prompts"' not in text and "good" not in text and "bad" not in text
    for line in text.splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    ids = [json.loads(line)["id"] for line in (run.folder / "pairs.jsonl").read_text().splitlines()]
    assert sorted(ids) == [0, *range(2, 22)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_come_back(run, value):
    run.append(Record(1, {"loss": value}, {"beta": 1.0}, exact={"kl": value}))
    (record,) = run.records()
    assert repr((record.scalars["loss"], record.exact["kl"])) == repr((value, value))


def test_a_pair_id_with_other_texts_is_refused_and_nothing_written(run):
    def pairs(*chosen):
        n = len(chosen)
        return Pairs(
            tuple(range(n)), ("p",) * n, chosen, ("r",) * n, (0.0,) * n, (0.0,) * n, (0.5,) * n, (None,) * n
        )

    run.append(Record(1, {}, {}, pairs("a")))
    for opened in (run, Run.open(run.folder)):
        with pytest.raises(ValueError, match="pair 0 was already recorded with other texts"):
            opened.append(Record(2, {}, {}, pairs("b", "c")))
    run.append(Record(2, {}, {}, pairs("a", "d")))
    assert [record.pairs.chosen for record in run.records()] == [("a",), ("a", "d")]


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_torn_last_line_is_dropped_and_written_over(run, cut):
    toy = Toy()
    records = [next(toy) for _ in range(4)]
    for record in records[:3]:
        run.append(record)
    path = run.folder / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    opened = Run.open(run.folder)
    assert list(opened.records()) == records[:2]
    opened.append(records[3])
    assert list(opened.records()) == [*records[:2], records[3]]


@pytest.mark.parametrize(
    "damage",
    [b"{\n", b"[]\n", b'{"step": 1}\n', b'{"step":1,"scalars":{},"knobs":{},"pairs":{"ids":[77]}}\n'],
)
def test_other_damage_is_named_with_file_and_line(run, damage):
    take(Toy(), run, 3)
    path = run.folder / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + damage + lines[2])
    with pytest.raises(ValueError) as error:
        list(Run.open(run.folder).records())
    assert str(error.value).startswith(f"{path}:2: not ")


def test_create_refuses_what_is_there(run, tmp_path):
    with pytest.raises(ValueError, match="holds a run;"):
        Run.create(run.folder, {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="holds other files"):
        Run.create(tmp_path / "other", {})
    with pytest.raises(ValueError, match="is a file"):
        Run.create(tmp_path / "other" / "thesis.tex", {})
    with pytest.raises(ValueError, match="JSON values only"):
        Run.create(tmp_path / "new", {"device": torch.device("cpu")})
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    assert Run.create(tmp_path / "empty", {}).backdrop is None


def test_open_refuses_what_is_no_run(tmp_path):
    with pytest.raises(ValueError, match=r"is not a run: it has no config\.json"):
        Run.open(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        Run.open(tmp_path)


def test_default_folders_never_clash(tmp_path):
    folders = {default_run_folder("dpo", tmp_path) for _ in range(5)}
    assert len(folders) == 5
    assert all(folder.is_dir() and folder.name.startswith("dpo-") for folder in folders)


def test_status(run):
    assert run.status == {}
    run.finish("diverged", step=3)
    assert (run.status["status"], run.status["step"]) == ("diverged", 3)


def test_state_comes_back_exactly(run):
    toy = Toy()
    take(toy, run, 3)
    run.save_checkpoint(toy)
    fresh = Toy(seed=99)
    assert Run.open(run.folder).load_checkpoint(fresh) == 3
    assert torch.equal(fresh.weight, toy.weight)
    assert math.isnan(fresh.odd.pop("nan"))
    assert fresh.odd == {"none": None, "flag": True, "pair": (1, [2.5, "x"])}
    assert list(fresh) == list(toy)


def test_resuming_drops_later_records_and_continues_the_same(tmp_path):
    whole = list(Toy())
    run, toy = Run.create(tmp_path / "run", {}), Toy()
    take(toy, run, 4)
    run.save_checkpoint(toy)
    take(toy, run, 3)
    run.finish("stopped")

    opened, toy = Run.open(run.folder), Toy(seed=5)
    assert opened.load_checkpoint(toy) == 4
    assert opened.status == {}
    assert list(opened.records()) == whole[:4]
    take(toy, opened, 6)
    assert list(opened.records()) == whole
    assert list(Run.open(run.folder).records()) == whole


def test_resuming_may_draw_other_texts_for_dropped_ids(tmp_path):
    run, toy = Run.create(tmp_path / "run", {}), Toy()
    take(toy, run, 2)
    run.save_checkpoint(toy)
    take(toy, run, 1)
    run.load_checkpoint(toy)
    record = next(toy)
    changed = replace(record, pairs=replace(record.pairs, chosen=("other", "texts", record.pairs.chosen[2])))
    run.append(changed)
    assert list(run.records())[2] == changed


def test_resuming_without_a_checkpoint_starts_again(run):
    toy = Toy()
    take(toy, run, 2)
    again = Toy()
    assert run.load_checkpoint(again) == 0
    assert list(run.records()) == []
    assert again.step == 0


def test_a_failed_save_keeps_the_former_checkpoint(run):
    toy = Toy()
    take(toy, run, 2)
    run.save_checkpoint(toy)
    before = (run.folder / "checkpoint.safetensors").read_bytes()
    toy.state_dict = lambda: {"weight": toy.weight, "model": {"net": toy}}
    with pytest.raises(ValueError, match=r"state\.model\.net is a Toy"):
        run.save_checkpoint(toy)
    assert (run.folder / "checkpoint.safetensors").read_bytes() == before
    assert not list(run.folder.glob(".*"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_a_checkpoint_may_be_read_by_whoever_may_read_the_run(run):
    run.save_checkpoint(Toy())
    modes = {(run.folder / name).stat().st_mode for name in ("config.json", "checkpoint.safetensors")}
    assert len(modes) == 1


def test_a_damaged_checkpoint_is_named_and_drops_nothing(run):
    take(Toy(), run, 2)
    (run.folder / "checkpoint.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is not a checkpoint"):
        run.load_checkpoint(Toy())
    assert len(list(run.records())) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("checkpoints", [1, 2, 5])
def test_a_killed_run_continues_to_the_same_records(tmp_path, root, checkpoints):
    code = f"from tests.toy import train_without_end; train_without_end({str(tmp_path / 'run')!r})"
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True) as child:
        announced = [child.stdout.readline() for _ in range(checkpoints)][-1]
        child.kill()  # somewhere in the steps, or in the checkpoint, that come next
        announced = int((child.stdout.read().split() or [announced])[-1])
    assert child.returncode == -9

    run, toy = Run.open(tmp_path / "run"), Toy(steps=10**9)
    found = list(run.records())
    step = run.load_checkpoint(toy)
    assert announced <= step <= announced + 7
    assert step <= len(found) <= step + 7 + 1
    take(toy, run, 20)
    uninterrupted = Toy(steps=step + 20)
    assert list(run.records()) == list(uninterrupted)


def test_a_state_with_keys_that_no_checkpoint_can_hold_is_named(tmp_path):
    with pytest.raises(ValueError, match="moments has keys that are neither strings nor integers"):
        write_checkpoint(tmp_path / "state.safetensors", {"moments": {0.5: 1.0}}, 1)
    assert not list(tmp_path.iterdir())
