"""The mathematics of trust_region.js, run under node, against the functions that TRPO uses; and the widget."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhflab.explore.trust_region import TrustRegionExplorable
from rlhflab.explore.two_states import PARAMETERS, evaluate, logits_of, mean_kl, theta_of, trpo_step
from tests.node import needs_node, run_module

CASES = [
    (a, b, max_kl, parameters)
    for a, b in ((1.5, -1.5), (0.0, 0.0), (-3.0, 3.0), (4.0, -2.0))
    for max_kl in (0.001, 0.05, 0.5)
    for parameters in PARAMETERS
]
SCRIPT = """
const { problem, matrices } = sent.data;
const results = sent.cases.map(([a, b, maxKl, parameters]) => {
  const matrix = matrices[parameters];
  const step = m.stepFrom([a, b], maxKl, matrix, problem);
  const { natural, plain, ...rest } = step;
  return { ...rest, full: natural.step, scale: natural.scale, predicted: natural.predicted, plain: plain.step,
    ...m.borders(step, maxKl, 24), path: m.pathFrom([a, b], maxKl, matrix, problem, "natural", 5) };
});
const grid = Array.from({ length: 21 }, (_, j) => Array.from({ length: 21 }, (_, i) => Math.hypot(i - 10, j - 10)));
result = { results, circle: m.contour(grid, 6), far: m.meanKl([800, -800], [-800, 800], [0.5, 0.5]) };
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Any:
    sent = {"data": TrustRegionExplorable().data, "cases": CASES}
    return run_module(TrustRegionExplorable, SCRIPT, sent, tmp_path_factory.mktemp("js"))


@needs_node
def test_browser_and_trpo_agree(browser: Any) -> None:
    for (a, b, max_kl, parameters), found in zip(CASES, browser["results"], strict=True):
        logits = torch.tensor([a, b], dtype=torch.float64)
        exact = evaluate(logits)
        assert found["objective"] == pytest.approx(float(exact.objective), abs=1e-12)
        assert found["visits"] == pytest.approx(exact.visits.tolist(), abs=1e-12)
        assert found["preference"] == pytest.approx(exact.preference.tolist(), abs=1e-12)
        step = trpo_step(theta_of(logits, parameters), max_kl, parameters)
        assert found["scale"] == pytest.approx(step.scale, rel=1e-6)
        assert found["lambda"] == pytest.approx(1 / step.scale, rel=1e-6)
        full = logits_of(step.scale * step.natural, parameters)
        assert found["full"] == pytest.approx(full.tolist(), rel=1e-6)
        assert found["predicted"] == pytest.approx(
            float(step.gradient @ (step.scale * step.natural)), rel=1e-6
        )
        assert found["plain"] == pytest.approx(logits_of(step.plain, parameters).tolist(), rel=1e-6)
        trials = [(t["share"], t["gain"], t["kl"], t["accepted"]) for t in found["trials"]]
        assert [t[3] for t in trials] == [t.accepted for t in step.trials]
        for mine, theirs in zip(trials, step.trials, strict=True):
            assert mine[:3] == pytest.approx(theirs[:3], rel=1e-5, abs=1e-12)
        assert found["path"][1] == pytest.approx(logits_of(step.theta, parameters).tolist(), rel=1e-6)


@needs_node
def test_the_borders_are_at_exactly_delta(browser: Any) -> None:
    for (a, b, max_kl, _), found in zip(CASES, browser["results"], strict=True):
        old = torch.tensor([a, b], dtype=torch.float64)
        ball, ellipse = (torch.tensor(found[name], dtype=torch.float64) for name in ("ball", "ellipse"))
        assert ball.shape == ellipse.shape == (25, 2)
        assert mean_kl(old.expand_as(ball), ball).tolist() == pytest.approx([max_kl] * len(ball), rel=1e-6)
        quadratic = ((ellipse - old) ** 2 * torch.tensor(found["fisher"], dtype=torch.float64)).sum(1) / 2
        assert quadratic.tolist() == pytest.approx([max_kl] * len(ball), rel=1e-9)


@needs_node
def test_level_lines_and_numbers_far_out(browser: Any) -> None:
    assert len(browser["circle"]) > 30
    for x0, y0, x1, y1 in browser["circle"]:
        for x, y in ((x0, y0), (x1, y1)):
            assert ((x - 10) ** 2 + (y - 10) ** 2) ** 0.5 == pytest.approx(6, abs=0.05)
    assert browser["far"] == pytest.approx(800.0)


def test_the_widget_refuses_what_it_does_not_know_and_draws_without_a_page() -> None:
    widget = TrustRegionExplorable((2, -2), max_kl=0.1, parameters="mixed")
    with pytest.raises(ValueError, match="parameters must be one of separate, stretched, mixed, got 'polar'"):
        widget.parameters = "polar"
    with pytest.raises(ValueError, match="landscape must be one of J, surrogate, got 'V'"):
        widget.landscape = "V"
    with pytest.raises(ValueError, match=r"max_kl must be a number from 0\.001 to 0\.5, got 2"):
        TrustRegionExplorable(max_kl=2)
    with pytest.raises(ValueError, match="logit_b must be a number from -5 to 5, got 7"):
        TrustRegionExplorable((0, 7))
    figure = widget.figure()
    natural = next(trace for trace in figure.data if trace.name == "natural gradient, full step")
    logits = torch.tensor([2.0, -2.0], dtype=torch.float64)
    assert (natural.x[0], natural.y[0]) == pytest.approx(theta_of(logits, "mixed").tolist())
    step = widget.step()
    end = theta_of(logits, "mixed") + step.scale * step.natural
    assert (natural.x[1], natural.y[1]) == pytest.approx(end.tolist())
