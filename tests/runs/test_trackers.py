"""A tracker is told what the records say, under names that do not clash; what is missing is one line."""

from __future__ import annotations

import pytest

from rlhflab.core.record import Record
from rlhflab.runs import trackers
from rlhflab.runs.trackers import Tracker, check_tracker, tracking
from tests.toy import Toy


def read_back(folder):
    """TensorBoard's own reading of a run's folder: name → [(step, value)]."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_reads_back_every_number(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    records = list(Toy(steps=8))
    with tracking("tensorboard", tmp_path, {"beta": 0.3, "pairs": "fresh", "learning_rate": None}) as tracker:
        for record in records:
            tracker.log(record)
    found = read_back(tmp_path)
    for name in records[0].scalars:
        expected = [(record.step, pytest.approx(record.scalars[name], rel=1e-6)) for record in records]
        assert found[name] == expected
    assert found["knobs/beta"] == [(r.step, pytest.approx(r.knobs["beta"])) for r in records]
    evaluated = [(r.step, pytest.approx(r.exact["regret"], rel=1e-6)) for r in records if r.exact]
    assert evaluated and found["exact/regret"] == evaluated


def test_no_name_is_no_tracker(tmp_path):
    with tracking(None, tmp_path, {}) as tracker:
        assert tracker is None
    assert list(tmp_path.iterdir()) == []


def test_the_others_get_project_run_and_settings(monkeypatch, tmp_path):
    from accelerate import tracking as accelerate_tracking

    told = []

    class Noting(accelerate_tracking.GeneralTracker):
        name, requires_logging_directory, tracker = "wandb", False, None

        def __init__(self, project, **settings):
            told.append((project, settings))

        def store_init_configuration(self, values):
            told.append(values)

        def log(self, values, step=None):
            told.append((step, values))

        def finish(self):
            told.append("finished")

    monkeypatch.setitem(accelerate_tracking.LOGGER_TYPE_TO_CLASS, "wandb", Noting)
    monkeypatch.setattr(accelerate_tracking, "get_available_trackers", lambda: ["wandb"])
    with tracking("wandb", tmp_path / "dpo-1", {"seed": 3, "rate": None}) as tracker:
        tracker.log(Record(7, {"loss": 0.5}, {"beta": 1.0}, estimated={"kl": 2.0}))
    assert told == [
        ("rlhflab", {"name": "dpo-1"}),
        {"seed": 3, "rate": "None"},
        (7, {"loss": 0.5, "knobs/beta": 1.0, "estimated/kl": 2.0}),
        "finished",
    ]


def test_unknown_and_missing_trackers_are_one_line(monkeypatch, tmp_path):
    from accelerate import tracking as accelerate_tracking

    with pytest.raises(
        ValueError, match="tracker must be one of tensorboard, trackio, wandb, got 'tensorflow'"
    ):
        Tracker("tensorflow", tmp_path)
    monkeypatch.setattr(accelerate_tracking, "get_available_trackers", lambda: [])
    for name in trackers.TRACKERS:
        with pytest.raises(ValueError) as raised:
            check_tracker(name)
        assert str(raised.value) == f"tracker {name} is not installed: python -m pip install {name}"
