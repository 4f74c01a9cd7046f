"""The history keeps what matters and stays flat however long the run."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhflab.core.record import Pairs, Record, Sample
from rlhflab.plots.buckets import rounded
from rlhflab.plots.history import BINS, History
from rlhflab.text import clipped

SERIES = tuple(f"metric/{i}" for i in range(8))


def make_pairs(rng: random.Random, n: int = 32, text: str = "the plot seemed not very good " * 10) -> Pairs:
    return Pairs(
        ids=tuple(rng.randrange(20_000) for _ in range(n)),
        prompts=(text,) * n,
        chosen=(text,) * n,
        rejected=(text,) * n,
        chosen_rewards=tuple(rng.gauss(0, 3) for _ in range(n)),
        rejected_rewards=tuple(rng.gauss(0, 3) for _ in range(n)),
        weights=tuple(rng.random() for _ in range(n)),
        flipped=tuple(rng.random() < 0.1 for _ in range(n)),
    )


def frame_size(history: History) -> int:
    return len(json.dumps(history.snapshot(SERIES), allow_nan=False).encode())


def test_frames_stay_flat_and_small() -> None:
    rng = random.Random(0)
    history = History()
    pool = [make_pairs(rng) for _ in range(50)]
    samples = (Sample("p" * 300, "b" * 300, "a" * 300, 1.0, None),) * 8
    sizes = {}
    for step in range(1, 100_001):
        exact = (
            {"kl": rng.random(), "reward": rng.gauss(0, 1), "regret": rng.random()}
            if step % 20 == 1
            else None
        )
        scalars = {name: rng.gauss(0, 1) for name in SERIES}
        pairs = pool[step % 50] if step % 10 == 0 else None
        history.add(
            Record(step, scalars, {"beta": rng.random()}, pairs, samples if step % 1000 == 0 else (), exact)
        )
        if step in (100, 1000, 1500, 10_000, 100_000):
            sizes[step] = frame_size(history)
    assert max(sizes.values()) <= 50_000, sizes
    late = [size for step, size in sizes.items() if step >= 1000]
    assert max(late) <= 1.2 * min(late), sizes


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=50))
def test_numbers_that_are_not_finite_become_null(values: list[float]) -> None:
    history = History(points=8)
    for step, value in enumerate(values, start=1):
        exact = {"kl": value, "reward": value, "regret": value}
        history.add(Record(step, {"loss": value}, {"beta": 1.0}, exact=exact))
    frame = history.snapshot()
    json.dumps(frame, allow_nan=False)  # raises on NaN and infinity
    if len(values) <= 8:  # a point a step
        for name in ("loss", "exact/kl"):
            shown = [y is not None for y in frame["series"][name]["y"]]
            assert shown == [rounded(value) is not None for value in values]
    assert (frame["exact"]["kl"] is None) == (rounded(values[-1]) is None)


def test_many_series_share_the_points_of_a_frame_up_to_the_greatest_float() -> None:
    history = History(points=10)
    for step in range(1, 11):
        history.add(Record(step, {f"s{i}": 1.7976e308 for i in range(24)}, {}))
    entry = history.snapshot()["series"]["s0"]
    assert len(entry["y"]) == 5 and "Infinity" not in json.dumps(entry)


def test_short_runs_are_shown_as_they_are() -> None:
    history = History()
    for step in range(1, 11):
        history.add(
            Record(step, {"loss": float(step)}, {"beta": 0.1}, exact={"kl": step / 10, "reward": 1.0})
        )
    frame = history.snapshot()
    assert frame["x"] == [list(range(1, 11))]  # one list of steps for all series
    assert frame["series"]["loss"] == {"x": 0, "y": [float(step) for step in range(1, 11)]}
    assert frame["trail"]["kl"] == [step / 10 for step in range(1, 11)]
    assert frame["last"]["loss"] == 10.0 and frame["exact"]["kl"] == 1.0


def test_estimates_are_series_of_their_own_and_never_exact() -> None:
    history = History()
    for step in range(1, 4):
        history.add(Record(step, {}, {"beta": 0.1}, estimated={"reward": float(step), "reward_se": 0.5}))
    frame = history.snapshot()
    assert frame["series"]["estimated/reward"]["y"] == [1.0, 2.0, 3.0]
    assert (
        frame["estimated"] == history.judged == {"reward": 3.0, "reward_se": 0.5}
        and not history.judged_exactly
    )
    assert frame["exact"] == {} and "trail" not in frame


def test_the_trail_keeps_its_first_and_its_newest_point() -> None:
    history = History(points=10)
    for step in range(1, 1000):
        history.add(Record(step, {}, {"beta": 0.1}, exact={"kl": float(step), "reward": 0.0}))
        if step in (1, 2, 17, 500, 999):
            assert (history.trail()[0][0], history.trail()[-1][0]) == (1, step)
    assert len(history.trail()) <= 17


def test_the_heat_map_counts_every_pair_and_keeps_its_columns() -> None:
    rng = random.Random(1)
    history = History(points=10)
    for step in range(1, 96):
        history.add(Record(step, {}, {"beta": 0.1}, make_pairs(rng, 8)))
    heat = history.snapshot()["heat"]
    assert len(heat["z"]) <= 11 and heat["x"][-1] == 95
    assert all(len(column) == BINS and 90 <= sum(column) <= 110 for column in heat["z"])  # percent, rounded


def test_weights_at_the_ends_fall_into_the_outer_bins_and_nan_nowhere() -> None:
    ends = (0.0, 1.0, math.nan)
    pairs = Pairs(
        (1, 2, 3), ("",) * 3, ("",) * 3, ("",) * 3, (0.0,) * 3, (0.0,) * 3, ends, (None, True, None)
    )
    history = History()
    history.add(Record(1, {}, {"beta": 0.1}, pairs))
    batch = history.snapshot()["batch"]
    assert batch["clean"][0] == 1 and batch["flipped"][-1] == 1
    assert sum(batch["clean"]) + sum(batch["flipped"]) == 2


def test_a_column_of_the_heat_map_is_the_percentages_of_all_pairs_right_and_wrong() -> None:
    weights, flipped = (0.01, 0.01, 0.99, 0.51), (None, True, True, False)
    zeros, texts = (0.0,) * 4, ("",) * 4
    history = History()
    history.add(Record(1, {}, {}, Pairs((1, 2, 3, 4), texts, texts, texts, zeros, zeros, weights, flipped)))
    frame = history.snapshot()
    wanted = {0: 50, BINS // 2: 25, BINS - 1: 25}
    assert frame["heat"]["z"] == [[wanted.get(at, 0) for at in range(BINS)]] and frame["heat"]["x"] == [1]
    for name, counts in (("clean", {0: 1, BINS // 2: 1}), ("flipped", {0: 1, BINS - 1: 1})):
        assert frame["batch"][name] == [counts.get(at, 0) for at in range(BINS)]


def test_only_what_covers_several_values_has_extrema_and_texts_four_digits() -> None:
    history = History(points=4)
    for step in range(1, 9):
        pairs = Pairs((1,), ("",), ("",), ("",), (0.2345678,), (0.1,), (0.123456,), (None,))
        history.add(Record(step, {"same": 0.123456, "other": float(step)}, {}, pairs))
    frame = history.snapshot()
    same, other = (frame["series"][name] for name in ("same", "other"))
    assert set(same) == {"x", "y"} and set(same["y"]) == {0.12346}
    assert (other["lo"][0], other["hi"][-1]) == (1, 8)
    assert all(
        low <= mean <= high for low, mean, high in zip(other["lo"], other["y"], other["hi"], strict=True)
    )
    (row,) = frame["pairs"]["heaviest"]
    assert (row["weight"], row["margin"]) == (0.1235, 0.1346)


def test_the_table_has_each_pair_once_as_last_seen_and_sorted() -> None:
    def pairs(weights: tuple[float, ...]) -> Pairs:
        n = len(weights)
        texts = tuple(f"text {i}" for i in range(n))
        return Pairs(tuple(range(n)), texts, texts, texts, (0.0,) * n, (1.0,) * n, weights, (None,) * n)

    history = History()
    history.add(Record(1, {}, {"beta": 0.1}, pairs((0.9, 0.8, 0.1))))
    history.add(Record(2, {}, {"beta": 0.1}, pairs((0.2, 0.8))))
    table = history.snapshot(rows=2)["pairs"]
    assert [(row["id"], row["weight"]) for row in table["heaviest"]] == [(1, 0.8), (0, 0.2)]
    assert [row["id"] for row in table["lightest"]] == [2, 0]
    assert table["known"] == 3 and table["heaviest"][0]["margin"] == -1.0


def test_memory_of_pairs_is_bounded() -> None:
    rng = random.Random(2)
    history = History(pairs=100)
    for step in range(1, 3000):
        history.add(Record(step, {}, {"beta": 0.1}, make_pairs(rng, 4)))
    assert len(history._pending) <= 1024
    assert history.snapshot()["pairs"]["known"] == 100


def test_texts_are_clipped_also_where_letters_take_many_bytes() -> None:
    history = History()
    for text in ("x" * 10_000, "好" * 10_000):
        history.add(Record(1, {}, {"beta": 0.1}, make_pairs(random.Random(3), 64, text)))
        frame = history.snapshot()
        (shown,) = {row["prompt"] for row in frame["pairs"]["heaviest"]}
        assert 16 <= len(shown) <= 160 and shown == text[: len(shown) - 1] + "…"
        (row,) = history.snapshot(rows=1)["pairs"]["heaviest"]  # few have room for more
        assert row["prompt"] == text[:159] + "…"
        assert len(json.dumps(frame, ensure_ascii=False).encode()) < 20_000


def test_moves_of_a_knob_are_marked_and_one_drag_is_one_move() -> None:
    history = History()
    for step in range(1, 201):
        beta = 0.1 if step < 100 else 0.1 + 0.01 * min(step - 99, 8)
        history.add(Record(step, {}, {"beta": beta}))
    assert history.snapshot()["changes"] == [[107, "beta", pytest.approx(0.18)]]


def test_a_frame_carries_the_newest_array_of_each_name_thinned_and_finite() -> None:
    history = History()
    history.add(Record(1, {}, {}, arrays={"ratio": (1.0, 2.0), "residuals": (0.5,)}))
    history.add(Record(2, {}, {}, arrays={"ratio": (math.nan, 1 / 3)}))
    history.add(Record(3, {}, {}, arrays={"x": tuple(range(1000)), "y": tuple(2 * i for i in range(1000))}))
    arrays = history.snapshot()["arrays"]
    assert arrays["residuals"] == {"step": 1, "y": [0.5]} and arrays["ratio"] == {
        "step": 2,
        "y": [None, 0.3333],
    }
    assert len(arrays["x"]["y"]) == 300 and (arrays["x"]["y"][0], arrays["x"]["y"][-1]) == (0, 999)
    assert arrays["y"]["y"] == [2 * x for x in arrays["x"]["y"]]  # still pairs
    assert list(history.snapshot(arrays=["ratio", "unknown"])["arrays"]) == ["ratio"]
    history.clear()
    assert history.snapshot()["arrays"] == {}


def test_the_newest_samples_stay_until_there_are_others() -> None:
    history = History()
    for step, texts in enumerate([("a",), (), ("b", "c"), ()], start=1):
        history.add(
            Record(step, {}, {}, samples=tuple(Sample("x", text, text + "!", 1.0, 2.0) for text in texts))
        )
        frame = history.snapshot()
        shown = [(sample["before"], sample["after"]) for sample in frame["samples"]]
        wanted = {1: ([("a", "a!")], 1), 2: ([("a", "a!")], 1), 3: ([("b", "b!"), ("c", "c!")], 3)}
        assert (shown, frame["samples_step"]) == wanted[min(step, 3)]


def test_clear_forgets_everything() -> None:
    history = History()
    history.add(
        Record(
            1, {"loss": 1.0}, {"beta": 0.1}, make_pairs(random.Random(4)), exact={"kl": 1.0, "reward": 1.0}
        )
    )
    history.clear()
    frame = history.snapshot()
    assert frame["series"] == {} and "pairs" not in frame and "trail" not in frame and history.records == 0


def test_clipping() -> None:
    assert clipped("abcdef", 4) == "abc…" and clipped("abc", 4) == "abc"
