"""A knob never takes a value that a running loop must not see."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhflab.core.knobs import Knob, Knobs


class Example(Knobs):
    specs = {"beta": Knob(default=0.1, low=0.01, high=10.0), "clip_range": Knob(0.2, 0.05, 0.5, at_most=1.0)}


def test_defaults_and_given_values():
    assert Example().snapshot() == {"beta": 0.1, "clip_range": 0.2}
    assert Example(beta=3).snapshot() == {"beta": 3.0, "clip_range": 0.2}


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf, "much", None, [1.0], "nan"])
def test_bad_value_is_refused_and_the_former_one_kept(value):
    knobs = Example(beta=0.5)
    with pytest.raises(ValueError, match=r"^beta must be a number > 0, got ") as error:
        knobs.beta = value
    assert repr(value) in str(error.value)
    assert "\n" not in str(error.value)
    assert knobs.beta == 0.5


def test_upper_bound_is_allowed_and_named():
    knobs = Example(clip_range=1.0)
    assert knobs.clip_range == 1.0
    with pytest.raises(ValueError, match=r"clip_range must be a number > 0 and ≤ 1, got 1.5"):
        knobs.clip_range = 1.5


def test_whole_numbers_and_inclusive_bounds():
    epochs = Knob(default=2, low=1, high=8, at_least=1, at_most=20, whole=True)
    assert epochs.validate("epochs", 3) == 3.0 and epochs.validate("epochs", 1) == 1.0
    for bad in (0, 2.5, 21):
        with pytest.raises(ValueError, match=f"epochs must be a whole number ≥ 1 and ≤ 20, got {bad}"):
            epochs.validate("epochs", bad)
    assert Knob(default=1, low=0, high=1, at_least=0, at_most=1).validate("gae_lambda", 0) == 0.0


def test_values_beyond_the_slider_are_allowed():
    assert Example(beta=1000).beta == 1000.0


@pytest.mark.parametrize("act", [lambda: Example(gamma=1), lambda: setattr(Example(), "gamma", 1)])
def test_unknown_knob_is_refused_with_the_known_ones(act):
    with pytest.raises(ValueError, match="unknown knob gamma; known: beta, clip_range"):
        act()


def test_reading_an_unknown_knob_is_an_attribute_error():
    assert not hasattr(Example(), "gamma")


@given(st.floats(min_value=1e-300, allow_nan=False, allow_infinity=False))
def test_a_snapshot_does_not_move_with_the_knob(value):
    knobs = Example()
    before = knobs.snapshot()
    knobs.beta = value
    assert before["beta"] == 0.1
    assert knobs.snapshot()["beta"] == value
