"""Runs that a board drives: folders, checkpoints, the end, going on exactly, letting models go."""

import gc
import weakref

import pytest

from rlhflab.boundary import Fault
from rlhflab.core.algorithm import TrainingDiverged
from rlhflab.runs.checkpoint import read_checkpoint
from rlhflab.runs.kept import KeptRuns
from rlhflab.runs.store import Run
from tests.toy import Toy, ToyRecipe, from_config

TOY = ToyRecipe()


def drive(kept, algorithm, steps=None):
    """What a board's player does: hand on every record."""
    records = []
    for record in algorithm:
        kept(record)
        records.append(record)
        if steps is not None and record.step == steps:
            break
    return records


def test_a_run_is_kept_to_its_end(tmp_path):
    kept = KeptRuns(TOY, tmp_path, every=4)
    algorithm = kept.make()
    assert list(tmp_path.iterdir()) == []  # nothing before the first update
    records = drive(kept, algorithm, steps=9)
    assert read_checkpoint(kept.run.folder / "checkpoint.safetensors")[0] == 8
    records += drive(kept, algorithm)
    run = Run.open(kept.run.folder)
    assert kept.run.folder.parent == tmp_path and kept.run.folder.name.startswith("toy-")
    assert (
        list(run.records()) == records and run.backdrop == algorithm.backdrop and run.config == TOY.config()
    )
    assert run.status["status"] == "finished" and run.status["scalars"] == records[-1].scalars
    assert read_checkpoint(run.folder / "checkpoint.safetensors")[0] == 10


def test_going_on_gives_the_run_that_was_never_stopped(tmp_path):
    whole = list(Toy())
    kept = KeptRuns(TOY, tmp_path)
    algorithm = kept.make()
    drive(kept, algorithm, steps=6)
    folder = kept.save()
    drive(kept, algorithm, steps=7)  # after the checkpoint: lost
    other = KeptRuns.open(from_config, folder)
    other.prepare()
    assert [record.step for record in other.run.records()] == [1, 2, 3, 4, 5, 6]
    drive(other, other.make())
    assert list(Run.open(folder).records()) == whole
    # after a reset a new run begins beside it
    drive(other, other.make(), steps=2)
    assert other.run.folder != folder and other.run.folder.parent == folder.parent
    assert len(list(Run.open(folder).records())) == 10


def test_a_failure_on_a_board_keeps_the_last_update(tmp_path):
    whole = list(Toy())
    kept = KeptRuns(TOY, tmp_path)
    kept.failed(Fault("nothing has been made"))  # nor is anything kept
    algorithm = kept.make()
    drive(kept, algorithm, steps=6)
    kept.failed(Fault("no power"))
    run = Run.open(kept.run.folder)
    assert (run.status["status"], run.status["error"], run.status["checkpoint"]) == ("failed", "no power", 6)
    other = KeptRuns.open(from_config, run.folder)
    algorithm = other.make()
    algorithm.rewind = lambda: False  # as with weights half changed
    drive(other, algorithm, steps=8)
    other.failed(Fault("no power again"))
    assert other.run.status["checkpoint"] == 6
    algorithm.halfway = True
    with pytest.raises(ValueError, match=r"begun to change the weights; .* has the checkpoint of step 6"):
        other.save()
    another = KeptRuns.open(from_config, run.folder)
    drive(another, another.make())
    assert list(run.records()) == whole


def test_a_divergence_on_a_board_keeps_no_such_weights(tmp_path):
    kept = KeptRuns(TOY, tmp_path, every=4)
    algorithm = kept.make()
    drive(kept, algorithm, steps=6)
    kept.failed(TrainingDiverged("the loss is nan"))
    assert kept.run.status["status"] == "diverged"
    assert read_checkpoint(kept.run.folder / "checkpoint.safetensors")[0] == 4


def test_a_run_that_has_ended_stays_so(tmp_path):
    kept = KeptRuns(TOY, tmp_path)
    records = drive(kept, kept.make())
    other = KeptRuns.open(from_config, kept.run.folder)
    assert drive(other, other.make()) == []
    assert other.run.status["status"] == "finished" and other.run.status["steps"] == 10
    assert list(other.run.records()) == records


def test_with_another_choice_a_new_run_begins(tmp_path):
    kept = KeptRuns(TOY, tmp_path)
    first = kept.make()
    drive(kept, first, steps=4)
    folder = kept.save()
    other = KeptRuns.open(from_config, folder)
    algorithm = other.make(beta=0.5)
    assert (algorithm.step, algorithm.knobs.beta) == (0, 0.5)
    drive(other, algorithm, steps=1)
    assert other.run.folder != folder and other.run.config["beta"] == 0.5
    assert len(list(Run.open(folder).records())) == 4


def test_what_is_closed_holds_nothing_and_writes_nothing(tmp_path, monkeypatch):
    build, made = ToyRecipe.build, []

    def noted(self):
        toy = build(self)
        made.append(weakref.ref(toy))
        return toy

    monkeypatch.setattr(ToyRecipe, "build", noted)
    kept = KeptRuns(TOY, tmp_path)
    kept.prepare()
    assert made[0]() is not None
    kept.close()
    gc.collect()
    assert made[0]() is None
    algorithm = kept.make()
    drive(kept, algorithm, steps=3)
    kept.close()
    with pytest.raises(AssertionError):  # a board's thread whose last step was long
        kept(next(algorithm))
    assert len(list(Run.open(kept.run.folder).records())) == 3


def test_what_was_prepared_is_used_once_and_only_where_it_was_chosen(tmp_path, monkeypatch):
    built, build = [], ToyRecipe.build
    monkeypatch.setattr(ToyRecipe, "build", lambda self: built.append(self) or build(self))
    kept = KeptRuns(TOY, tmp_path)
    assert kept.prepare() == {}
    first = kept.make(beta=1.0)
    assert len(built) == 1 and first.step == 0
    assert kept.make() is not first and len(built) == 2
    kept.prepare()
    assert kept.make(beta=0.5).knobs.beta == 0.5 and built[-1] == TOY.but(beta=0.5)
    drive(kept, kept.make(beta=0.5), steps=1)
    assert kept.run.config["beta"] == 0.5


def test_only_the_board_keeps_a_model_alive(tmp_path):
    kept = KeptRuns(TOY, tmp_path)
    kept.prepare()
    algorithm = kept.make()
    there = weakref.ref(algorithm)
    drive(kept, algorithm, steps=2)
    del algorithm
    gc.collect()
    assert there() is None
    with pytest.raises(ValueError, match="nothing to save"):
        kept.save()


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(ValueError, match="nothing to save before the first update"):
        KeptRuns(TOY, tmp_path).save()
    with pytest.raises(ValueError, match="every must be ≥ 1 step, got 0"):
        KeptRuns(TOY, tmp_path, every=0)
    with pytest.raises(ValueError, match="is not a run"):
        KeptRuns.open(from_config, tmp_path)
