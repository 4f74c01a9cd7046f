"""A run as a DataFrame: every number in its place, one row a step."""

from __future__ import annotations

import math

import pytest

from rlhflab.core.record import Record
from rlhflab.runs import frame
from rlhflab.runs.store import Run
from tests.toy import BACKDROP, Toy


def test_a_row_is_a_step_and_what_it_lacks_is_nan(tmp_path):
    pytest.importorskip("pandas")
    run = Run.create(tmp_path / "run", {"algorithm": "dpo"}, BACKDROP)
    records = list(Toy())
    for record in records:
        run.append(record)
    table = run.frame()
    assert list(table.index) == list(range(1, 11)) and table.index.name == "step"
    assert list(table["loss"]) == [record.scalars["loss"] for record in records]
    assert list(table["knob/beta"]) == [1.0] * 10
    assert list(table["exact/reward"].dropna().index) == [2, 4, 6, 8, 10]
    assert table["judged/kl"].equals(table["exact/kl"].rename("judged/kl"))
    assert table["grad_norm"].max() == math.inf  # as it was recorded
    assert {str(kind) for kind in table.dtypes} == {"float64"}


def test_estimates_have_their_own_names_and_those_of_what_was_judged():
    pytest.importorskip("pandas")
    estimated = {"kl_rb": 0.5, "kl_rb_se": 0.1}
    table = frame.frame_of([Record(7, {"loss": 1.0}, {"beta": 0.3}, estimated=estimated)])
    assert table.loc[7].to_dict() == {
        "loss": 1.0, "knob/beta": 0.3, "estimated/kl_rb": 0.5, "estimated/kl_rb_se": 0.1, "judged/kl": 0.5,
        "judged/kl_se": 0.1,
    }  # fmt: skip
    assert frame.frame_of([]).empty


def test_without_pandas_there_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(frame, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs pandas: python -m pip install pandas"):
        frame.frame_of([])
