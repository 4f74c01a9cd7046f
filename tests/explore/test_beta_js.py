"""The mathematics of beta.js, run under node, against Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlhflab.explore import BetaExplorable
from tests.node import needs_node, run_module

pytestmark = needs_node

SCRIPT = """
const { data, betas } = sent;
const prompts = [-1, ...data.prompts.keys()];
const results = prompts.map((prompt) => ({
  stats: betas.map((beta) => m.statsAt(data, prompt, beta)),
  bars: betas.map((beta) => m.barsAt(data, prompt, beta, m.statsAt(data, prompt, beta).logZs)),
  start: m.referenceReward(data, prompt),
  zero: m.crossing(data, prompt, ...data.range),
}));
const round = [0.05, 0.123, 1, 10].map((b) => m.fromFraction(m.toFraction(b, 0.05, 10), 0.05, 10));
const extreme = m.optimumAt([-1000, 1000], [0.5, 0.5], 0.05);
const zeroMass = m.optimumAt([0, 1e6], [1, 0], 0.05);
const scale = [0.003, 0.05, 0.051, 1].map(m.barScale);
result = { results, round, extreme, zeroMass, ticks: m.ticks(-0.3, 2.6, 4), scale };
"""
BETAS = [0.05, 0.2, 0.7, 1.0, 3.0, 10.0]


@pytest.fixture(scope="module")
def widget() -> BetaExplorable:
    random = np.random.default_rng(3)
    logits = random.normal(0, 2, (3, 80))
    logps = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    rewards = np.round(random.uniform(-2.5, 2.5, (3, 80)), 1)
    return BetaExplorable(["a", "b", "c"], [f"answer {i}" for i in range(80)], logps, rewards)


@pytest.fixture(scope="module")
def browser(widget: BetaExplorable, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_module(
        BetaExplorable, SCRIPT, {"data": widget.data, "betas": BETAS}, tmp_path_factory.mktemp("js")
    )


@pytest.mark.parametrize("prompt", [-1, 0, 1, 2])
def test_browser_and_python_agree(widget: BetaExplorable, browser: Any, prompt: int) -> None:
    for beta, stats in zip(BETAS, browser["results"][prompt + 1]["stats"], strict=True):
        o = widget.optimum(beta, prompt)
        assert (stats["reward"], stats["kl"], stats["logZ"]) == pytest.approx(tuple(o), abs=1e-12)
        assert stats["objective"] == pytest.approx(beta * stats["logZ"], abs=1e-9)
        for key in ("chosen", "rejected"):
            mean = np.mean([widget.data[key][i] for i in widget._shown(prompt)])
            assert stats[key] == pytest.approx(mean / beta - o.log_z, abs=1e-9)


def test_bars_agree(widget: BetaExplorable, browser: Any) -> None:
    for prompt, beta in [(-1, 1.0), (0, 0.05), (2, 10.0)]:
        widget.prompt = prompt
        _, _, ref, best = widget._bars(beta)
        bars = browser["results"][prompt + 1]["bars"][BETAS.index(beta)]
        assert bars["ref"] == pytest.approx(ref, abs=1e-12)
        assert bars["best"] == pytest.approx(best, abs=1e-12)
        assert bars["totals"]["best"] == pytest.approx(sum(best))
        assert bars["totals"]["best"] <= 1 + 1e-6


def test_crossing_is_a_zero_of_the_chosen_curve(widget: BetaExplorable, browser: Any) -> None:
    for prompt in (-1, 0, 1, 2):
        zero = browser["results"][prompt + 1]["zero"]
        mean = np.mean([widget.data["chosen"][i] for i in widget._shown(prompt)])
        assert mean / zero - widget.optimum(zero, prompt).log_z == pytest.approx(0, abs=1e-9)


def test_reference_reward_and_helpers(widget: BetaExplorable, browser: Any) -> None:
    expected = np.dot(widget.data["levels"][1], widget.data["masses"][1])
    assert browser["results"][2]["start"] == pytest.approx(expected, abs=1e-12)
    assert browser["round"] == [0.05, 0.123, 1, 10]
    assert browser["ticks"] == pytest.approx([0, 1, 2])
    assert browser["scale"] == [0.005, 0.05, 0.1, 1]


def test_extreme_rewards_stay_finite(browser: Any) -> None:
    assert browser["extreme"]["reward"] == pytest.approx(1000)
    assert browser["extreme"]["kl"] == pytest.approx(np.log(2), abs=1e-9)
    assert browser["zeroMass"] == {"reward": 0, "kl": 0, "logZ": 0}
