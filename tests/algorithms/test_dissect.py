"""A TRPO step taken apart is the step that TRPO takes."""

import pytest
import torch

pytest.importorskip("gymnasium")

from rlhflab import recipes
from rlhflab.algorithms.dissect import dissect


@pytest.fixture
def run():
    run = recipes.TRPOControl(world="CartPole-v1", steps=9, seed=3).build()
    next(run)
    next(run)
    return run


def test_the_step_is_trpos_own_and_the_policy_stays(run):
    twin = recipes.TRPOControl(world="CartPole-v1", steps=9, seed=3).build()
    twin.load_state_dict(run.state_dict())
    before = [p.detach().clone() for p in run.task.policy_parameters()]
    found = dissect(run, iterations=(3, 10), max_kl=0.25, points=11)
    assert all(torch.equal(p, q) for p, q in zip(before, run.task.policy_parameters(), strict=True))

    record = next(twin)  # acts on the same rollout, with ten iterations
    s = record.scalars
    radius = s["trpo/max_kl"] ** 0.5
    assert found.slopes[1] * radius * s["trpo/share"] == pytest.approx(s["trpo/predicted_gain"], rel=1e-4)
    assert found.residuals == pytest.approx(record.arrays["cg_residuals"], rel=1e-4)
    assert found.slopes[0] < found.slopes[1]  # nearer to the natural gradient, more predicted gain


def test_near_the_start_the_quadratic_model_is_right(run):
    found = dissect(run, max_kl=1e-4, points=3)
    assert len(found.kls) == len(found.gains) == len(found.slopes) == 5 and found.radii[0] == 0
    assert len(dissect(run, max_kl=1e-4, points=2).radii) == 2
    for kls, gains, slope in zip(found.kls, found.gains, found.slopes, strict=True):
        assert kls[0] == pytest.approx(0, abs=1e-7) and gains[0] == 0
        assert kls[-1] == pytest.approx(1e-4, rel=0.3)  # predicted with damping, in single precision
        assert gains[-1] == pytest.approx(slope * found.radii[-1], rel=0.2)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"iterations": (5, 2)}, "iterations must be ascending and ≥ 1"),
        ({"iterations": ()}, "iterations must be ascending and ≥ 1"),
        ({"max_kl": 0}, "max_kl must be a finite number > 0"),
        ({"points": 1}, "points must be ≥ 2"),
    ],
)
def test_bad_values_are_one_line(run, bad, message):
    with pytest.raises(ValueError, match=message):
        dissect(run, **bad)
