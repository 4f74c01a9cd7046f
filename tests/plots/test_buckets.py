"""A curve keeps its extrema and every step, in a fixed number of buckets."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhflab.plots.buckets import Curve, rounded


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=400),
    st.integers(min_value=2, max_value=20),
)
def test_a_curve_keeps_extrema_means_and_every_step(values: list[float], capacity: int) -> None:
    curve = Curve(capacity)
    for step, value in enumerate(values, start=1):
        curve.add(step, value)
    buckets = curve.buckets()
    assert len(buckets) <= capacity + 1
    assert min(b[3] for b in buckets) == min(values)
    assert max(b[4] for b in buckets) == max(values)
    assert sum(b[1] for b in buckets) == len(values)
    assert math.isclose(sum(b[2] for b in buckets), sum(values), rel_tol=1e-9, abs_tol=1e-3)
    steps = [b[0] for b in buckets]
    assert steps == sorted(set(steps)) and steps[-1] == len(values)


def test_every_bucket_covers_its_own_steps() -> None:
    values = [random.Random(step).gauss(0, 1) for step in range(1, 778)]
    curve = Curve(capacity=10)
    for step, value in enumerate(values, start=1):
        curve.add(step, value)
    first = 0
    for last, n, total, low, high in curve.buckets():
        mine = values[first:last]
        assert (n, low, high) == (len(mine), min(mine), max(mine))
        assert total == pytest.approx(sum(mine))
        first = last


def test_rounding() -> None:
    assert rounded(0.123456789) == 0.12346 and rounded(math.inf) is None and rounded(None) is None


def test_full_buckets_double_their_width() -> None:
    curve, spans = Curve(capacity=4), {}
    for step in range(1, 41):
        curve.add(step, 1.0)
        ends = [0, *(b[0] for b in curve.buckets())]
        spans[step] = [end - begin for begin, end in itertools.pairwise(ends)]
    assert spans[4] == [1] * 4 and spans[5] == [2, 1, 1, 1] and spans[8] == [2] * 4
    assert spans[10] == [4, 2, 2, 2] and spans[11] == [4, 2, 2, 2, 1] and spans[16] == [4] * 4
    assert spans[20] == [8, 4, 4, 4] and spans[40] == [16, 8, 8, 8]


def test_a_frame_shows_means_with_five_digits_and_extrema_with_four() -> None:
    curve = Curve()
    curve.add(7, 123456.0)
    assert curve.shown() == [(7, 123460.0, 123500.0, 123500.0)]
