"""The importance-sampling explorable: closed forms against quadrature, its page against Python, its errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhflab.explore.importance import MOST, REPETITIONS, ImportanceExplorable
from rlhflab.objectives.importance import gaussian_weights
from tests.node import needs_node, run_module

# mean and standard deviation of q, then of p
CASES = [(0.0, 1.2, 1.0, 1.0), (-1.0, 2.0, 0.5, 0.7), (2.0, 0.8, 1.5, 1.1), (0.0, 1.0, 0.0, 1.0)]


@pytest.mark.parametrize("case", CASES)
def test_the_closed_forms_are_the_integrals(case: tuple[float, ...]) -> None:
    mean, std, target_mean, target_std = case
    a = torch.linspace(-60, 60, 600_001, dtype=torch.float64)
    logq, logp = (
        torch.distributions.Normal(*torch.tensor(pair, dtype=torch.float64)).log_prob(a)
        for pair in ((mean, std), (target_mean, target_std))
    )
    square = (2 * logp - logq).exp()  # q·w²

    def integral(values: torch.Tensor) -> float:
        return float(torch.trapezoid(values, a))

    known = gaussian_weights(*case)
    assert known.second_moment == pytest.approx(integral(square), rel=1e-6)
    assert known.value_std**2 == pytest.approx(integral(square * a**2) - target_mean**2, rel=1e-6)
    assert known.normalised_std**2 == pytest.approx(integral(square * (a - target_mean) ** 2), rel=1e-6)


@pytest.mark.parametrize("normalised", [False, True])
def test_the_estimates_spread_as_the_closed_form_says(normalised: bool) -> None:
    view = ImportanceExplorable(1.0, 1.0, 0.4, 1.3, samples=MOST, normalised=normalised)
    estimates, ess = view.estimates()
    known = view.closed_form()
    sd = (known.normalised_std if normalised else known.value_std) / MOST**0.5
    assert abs(estimates.mean() - 1.0) < 4 * sd / REPETITIONS**0.5 + (
        0.02 if normalised else 0
    )  # and its bias
    assert float(estimates.std()) == pytest.approx(sd, rel=0.2)
    assert float(ess.mean()) == pytest.approx(MOST / known.second_moment, rel=0.05)


def test_where_the_variance_is_infinite_the_measured_size_does_not_tell() -> None:
    view = ImportanceExplorable(0.0, 1.0, 0.0, 0.6, samples=50)
    assert view.closed_form() == (float("inf"),) * 3
    assert view.estimates()[1].mean() > 25


def test_bad_values_are_one_line() -> None:
    with pytest.raises(ValueError, match="samples must be from 2 to 100, got 1"):
        ImportanceExplorable(samples=1)
    with pytest.raises(ValueError, match=r"std must be a number from 0\.5 to 3, got 0\.1"):
        ImportanceExplorable(std=0.1)
    assert len(ImportanceExplorable().figure().data) == 3
    assert len(ImportanceExplorable().data["noise"]) < 60_000


SCRIPT = """
const noise = m.noiseOf(sent.data);
result = sent.cases.map((values) => {
  const found = m.estimatesOf(values, noise, sent.data.repetitions, sent.data.most);
  return { ...found, ...m.momentsOf(values), finite: m.momentsOf(values).second < Infinity };
});
result.push(m.countIn([-1, 0, 0.1, 0.5, 1, 1.1, NaN], 0, 1, 2), [m.meanOf([1, 2, 6]), m.spreadOf([1, 2, 6])]);
"""


@needs_node
def test_the_page_and_python_agree(tmp_path_factory: pytest.TempPathFactory) -> None:
    views = [
        ImportanceExplorable(),
        ImportanceExplorable(-1.0, 0.7, 0.3, 2.0, samples=7, normalised=True),
        ImportanceExplorable(1.0, 2.0, 0.0, 1.0),
    ]
    names = ("target_mean", "target_std", "mean", "std", "samples", "normalised")
    sent = {"data": views[0].data, "cases": [{name: getattr(view, name) for name in names} for view in views]}
    *found, counted, (mean, spread) = run_module(
        ImportanceExplorable, SCRIPT, sent, tmp_path_factory.mktemp("js")
    )
    for view, page in zip(views, found, strict=True):
        estimates, ess = view.estimates()
        assert page["estimates"] == pytest.approx(estimates.tolist(), abs=1e-9)
        assert page["sizes"] == pytest.approx(ess.tolist(), abs=1e-6)
        known: Any = view.closed_form()
        assert page["finite"] == (known.second_moment < float("inf"))
        if page["finite"]:
            wanted = known.normalised_std if view.normalised else known.value_std
            assert (page["second"], page["spread"]) == pytest.approx((known.second_moment, wanted))
    assert counted == {"counts": [2, 2], "below": 1, "above": 2}
    assert (mean, spread) == pytest.approx((3, 7**0.5))
