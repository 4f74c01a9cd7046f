"""Records and backdrops survive JSON and cannot be changed."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhflab.core.record import Backdrop, Pairs, Record, Sample, regret_in_words
from tests.toy import BACKDROP

PAIRS = Pairs((4, 9), ("a", "b"), ("c", "d"), ("e", "f"), (0.1, -2.0), (0.0, 1.5), (0.5, 0.97), (None, True))
FULL = Record(
    step=3,
    scalars={"loss": 0.69},
    knobs={"beta": 0.1},
    pairs=PAIRS,
    samples=(Sample("p", "before", "after"), Sample("p", "b", "a", -1.0, 2.5)),
    exact={"kl": 0.25},
    estimated={"reward": 0.5, "reward_se": 0.1},
)
floats = st.floats(allow_nan=False)


def test_full_record_survives_json():
    assert Record.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL


def test_empty_parts_are_left_out():
    bare = Record(1, {"loss": 1.0}, {})
    assert bare.to_dict() == {"step": 1, "scalars": {"loss": 1.0}, "knobs": {}}
    assert Record.from_dict(bare.to_dict()) == bare


@given(
    st.dictionaries(st.text(), floats),
    st.dictionaries(st.text(), floats),
    st.none() | st.dictionaries(st.text(), floats),
)
def test_any_numbers_survive_json(scalars, knobs, exact):
    record = Record(1, scalars, knobs, exact=exact)
    assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_to_dict_shares_nothing_with_the_record():
    FULL.to_dict()["scalars"]["loss"] = 0.0
    FULL.to_dict()["pairs"]["ids"].append(1)
    assert FULL.scalars["loss"] == 0.69
    assert FULL.pairs == PAIRS


def test_record_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.step = 4


def test_backdrop_survives_json():
    backdrop = Backdrop((0.1, 1.0), (3.0, 0.5), (2.0, 1.0), (1.7, 0.5), -0.25)
    assert Backdrop.from_dict(json.loads(json.dumps(backdrop.to_dict()))) == backdrop


def test_the_optimum_is_interpolated_in_log_beta():
    for i, beta in enumerate(BACKDROP.beta):
        exact = (BACKDROP.reward[i], BACKDROP.kl[i], BACKDROP.objective[i])
        assert BACKDROP.at(beta) == pytest.approx(exact)
    assert BACKDROP.at(math.sqrt(0.1)) == pytest.approx((2.5, 2.5, 1.8))
    assert BACKDROP.at(1e9) == (1.1, 0.1, 0.1) and BACKDROP.at(1e-9) == (3.0, 4.0, 2.6)
    single = Backdrop(beta=(1.0,), kl=(2.0,), reward=(3.0,), objective=(1.0,), ref_reward=0.0)
    assert single.at(0.5) == single.at(1.0) == single.at(2.0) == (3.0, 2.0, 1.0)


def test_older_runs_stay_readable_and_their_kl_has_no_error_bar():
    old = {"kl_k3": 4.5, "kl_k3_se": 0.02, "reward": 1.0, "reward_se": 0.1, "optimum_trusted": 0.0}
    assert Record(1, {}, {}, estimated=old).place == (4.5, 1.0, 0.0, 0.1)
    new = {**old, "kl_rb": 5.0, "kl_rb_se": 0.06}
    assert Record(1, {}, {}, estimated=new).place == (5.0, 1.0, 0.06, 0.1)
    curves = {name: [0.5, 1.0] for name in ("beta", "kl", "reward", "objective", "kl_se", "reward_se")}
    backdrop = Backdrop.from_dict({**curves, "ref_reward": 0.0})
    assert backdrop.reward_se == (0.5, 1.0) and not backdrop.knows(0.4) and backdrop.knows(0.6)


def test_a_regret_in_words_is_a_number_or_a_bound():
    known = {"regret": 0.12, "regret_se": 0.034, "optimum": 0.5, "ref_reward": -0.25}
    assert regret_in_words(known) == "regret 0.120 ± 0.034 of 0.750 at the start"
    bound = {"regret_at_least": 0.5, "optimum_at_least": 2.25, "ref_reward": 0.0}
    assert regret_in_words(bound) == "regret at least 0.500, as J* is at least 2.250"


def test_what_was_judged_has_one_set_of_names_however_it_was_judged():
    exact = Record(1, {}, {}, exact={"kl": 0.5, "reward": 1.0})
    assert (exact.judged, exact.judged_exactly) == ({"kl": 0.5, "reward": 1.0}, True)
    values = {"reward": 1.0, "reward_se": 0.1, "kl_rb": 0.4, "kl_rb_se": 0.02, "ess": 9.0}
    sampled = Record(1, {}, {}, estimated=values)
    assert list(sampled.judged.items()) == [
        ("reward", 1.0), ("reward_se", 0.1), ("kl", 0.4), ("kl_se", 0.02), ("ess", 9.0),
    ]  # fmt: skip
    assert not sampled.judged_exactly and sampled.estimated == values
    older = Record(1, {}, {}, estimated={"kl_k3": 0.3, "kl_k3_se": 0.01, "reward": 1.0})
    assert older.judged == {"kl": 0.3, "reward": 1.0}
    weighed = {"kl": 0.7, "reward": 1.0, "reward_se": 0.1, "optimum_trusted": 1.0}
    assert Record(1, {}, {}, estimated=weighed).judged == weighed
    assert Record(1, {}, {}, estimated=weighed).place == (0.7, 1.0, 0.0, 0.1)
    assert Record(1, {}, {}, estimated={**weighed, "optimum_trusted": 0.0}).place is None
    nothing = Record(1, {}, {})
    assert nothing.judged == {} and not nothing.judged_exactly and nothing.place is None
