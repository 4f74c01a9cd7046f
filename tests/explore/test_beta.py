"""The β explorable: its numbers against brute force, its payload, its errors, its fallback."""

from __future__ import annotations

import html
import itertools
import json
import re
import sys
from typing import Any

import numpy as np
import pytest
import torch

from rlhflab.explore import BetaExplorable
from rlhflab.explore.beta_data import MAX_BETA, MIN_BETA, chosen_rejected_means, levels_of, merge_levels
from rlhflab.objectives.optimum import log_partition

BETAS = (MIN_BETA, 0.2, 0.7, 1.0, 3.0, MAX_BETA)


def world(prompts: int = 3, answers: int = 60, levels: int = 7, seed: int = 0) -> tuple[Any, ...]:
    """Prompts, answers, log π_ref and rewards; few distinct rewards, so that levels hold several answers."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (prompts, answers))
    logps = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    rewards = np.round(random.integers(0, levels, (prompts, answers)) / (levels - 1) * 5 - 2.5, 6)
    return [f"prompt {i}" for i in range(prompts)], [f"answer {j}" for j in range(answers)], logps, rewards


def brute_force(logps: np.ndarray, rewards: np.ndarray, beta: float) -> tuple[float, float, float]:
    """E[r], KL and log Z by the definition, answer by answer."""
    z = np.sum(np.exp(logps) * np.exp(rewards / beta))
    best = np.exp(logps) * np.exp(rewards / beta) / z
    return float(best @ rewards), float(best @ (np.log(best) - logps)), float(np.log(z))


@pytest.mark.parametrize("beta", BETAS)
def test_optimum_equals_brute_force_over_answers(beta: float) -> None:
    widget = BetaExplorable(*world())
    _, _, logps, rewards = world()
    rows = [brute_force(row, r, beta) for row, r in zip(logps, rewards, strict=True)]
    for prompt, row in enumerate(rows):
        assert widget.optimum(beta, prompt) == pytest.approx(row, abs=1e-6)
    assert widget.optimum(beta, -1) == pytest.approx(tuple(np.mean(rows, axis=0)), abs=1e-6)


def test_objective_is_beta_log_z_and_the_frontier_has_slope_beta() -> None:
    widget = BetaExplorable(*world())
    for beta in BETAS:
        o = widget.optimum(beta)
        assert o.reward - beta * o.kl == pytest.approx(beta * o.log_z, abs=1e-12)
        a, b = widget.optimum(beta * 1.0001), widget.optimum(beta / 1.0001)
        assert (b.kl - a.kl > 1e-9) == (beta > MIN_BETA)  # at the smallest there is nothing left to gain
        if beta > MIN_BETA:
            assert (b.reward - a.reward) / (b.kl - a.kl) == pytest.approx(beta, rel=1e-3)


def test_answers_of_zero_probability_count_for_nothing() -> None:
    widget = BetaExplorable(["x"], ["y", "never"], [[0.0, -np.inf]], [[0.0, 9.0]])
    assert widget.optimum(MIN_BETA) == pytest.approx((0.0, 0.0, 0.0))
    assert widget._bars(MIN_BETA)[3] == [0.0, 1.0]


def test_pair_means_equal_brute_force_over_pairs_of_answers() -> None:
    _, _, logps, rewards = world(answers=25)
    p, r = np.exp(logps[0]), rewards[0]
    chosen = rejected = total = 0.0
    for i, j in itertools.product(range(25), repeat=2):
        mass = 2 * p[i] * p[j] / (1 + np.exp(r[j] - r[i]))  # y_w = i, y_l = j, drawn in either order
        chosen, rejected, total = chosen + mass * r[i], rejected + mass * r[j], total + mass
    assert total == pytest.approx(1)
    means = chosen_rejected_means(*levels_of(torch.tensor(logps[0]), torch.tensor(r)))
    assert means == pytest.approx((chosen, rejected), abs=1e-12)


def test_chosen_log_ratio_is_exact_and_falls_below_zero_at_small_beta() -> None:
    _, _, logps, rewards = world(answers=25)
    p, r = np.exp(logps[0]), rewards[0]
    mean, _ = chosen_rejected_means(*levels_of(torch.tensor(logps[0]), torch.tensor(r)))
    chosen_mass = 2 * p * (p[None, :] / (1 + np.exp(r[None, :] - r[:, None]))).sum(1)
    found = []
    for beta in (0.1, 10.0):
        log_z = brute_force(logps[0], r, beta)[2]
        log_ratio = r / beta - log_z
        found.append(mean / beta - log_z)
        assert found[-1] == pytest.approx(float(chosen_mass @ log_ratio), abs=1e-9)
    assert found[0] < 0 < found[1]


def test_merging_keeps_the_mean_and_bounds_the_error() -> None:
    random = np.random.default_rng(1)
    levels = torch.tensor(np.sort(random.normal(0, 1, 3000)))
    masses = torch.tensor(random.dirichlet(np.ones(3000)))
    merged = merge_levels(levels, masses, 200)
    assert len(merged[0]) <= 200
    assert float(merged[1].sum()) == pytest.approx(1)
    assert float(merged[0] @ merged[1]) == pytest.approx(float(levels @ masses), abs=1e-12)
    width = float(levels[-1] - levels[0]) / 200
    for beta in (0.2, 1.0):
        loss = float(
            log_partition(masses.log(), levels, beta) - log_partition(merged[1].log(), merged[0], beta)
        )
        assert 0 <= loss <= width**2 / (8 * beta**2)
    assert merge_levels(levels, masses, 3000)[0] is levels


def test_bars_are_probabilities_and_hold_what_grows() -> None:
    prompts, answers, logps, rewards = world()
    widget = BetaExplorable(prompts, answers, logps, rewards, beta=MIN_BETA, top=4)
    texts, r, ref, best = widget._bars(MIN_BETA)
    assert len(texts) == 6
    assert r == sorted(r, reverse=True)
    exact = np.exp(logps[0] + rewards[0] / MIN_BETA - brute_force(logps[0], rewards[0], MIN_BETA)[2])
    index = [answers.index(text) for text in texts]
    assert ref == pytest.approx(np.exp(logps[0])[index], rel=1e-6)
    assert best == pytest.approx(exact[index], rel=1e-4, abs=1e-9)
    assert answers[int(exact.argmax())] in texts
    assert set(np.array(answers)[np.argsort(-logps[0])[:4]]) <= set(texts)


def test_an_answer_that_is_likely_in_between_has_its_bar() -> None:
    """exp(r/β): 'safe' is likeliest for the largest β, 'best' for the smallest, 'middle' at 0.1."""
    ref = np.array([[0.9, 0.1 - 1e-5 - 1e-15, 1e-5, 1e-15]])
    rewards = np.array([[0.0, 0.0, 1.5, 3.0]])
    widget = BetaExplorable(["x"], ["safe", "other", "middle", "best"], np.log(ref), rewards, beta=0.1, top=1)
    assert widget._bars(0.1)[0] == ["middle", "safe"]  # there is room for one beside π_ref's own
    rows = re.findall(r"<tr><th>([\d.]+)</th>", widget._table())
    assert [float(beta) for beta in rows] == [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]


def test_tensors_are_taken_as_they_come() -> None:
    prompts, answers, logps, rewards = world()
    tensors = torch.tensor(logps, requires_grad=True), torch.tensor(rewards, dtype=torch.float32)
    a, b = BetaExplorable(prompts, answers, *tensors), BetaExplorable(prompts, answers, logps, rewards)
    assert a.optimum() == pytest.approx(b.optimum(), abs=1e-6)


@pytest.mark.parametrize("kind", ["few", "continuous"])
def test_payload_is_small_for_the_whole_world(kind: str) -> None:
    prompts, answers, logps, rewards = world(9, 22_621, levels=500)
    if kind == "continuous":
        rewards = rewards + np.random.default_rng(2).normal(0, 0.1, rewards.shape)
    answers = [f"{text} — né «naïve» words" for text in answers]
    widget = BetaExplorable(prompts, answers, logps, rewards)
    assert len(json.dumps(widget.get_state("data"), ensure_ascii=False, allow_nan=False).encode()) <= 100_000
    assert widget.data["merged"] > 0
    for beta in (0.2, 1.0, 5.0):
        expected = brute_force(logps[0], rewards[0], beta)
        assert widget.optimum(beta) == pytest.approx(expected, abs=2e-3)


def test_few_levels_are_all_sent() -> None:
    widget = BetaExplorable(*world())
    assert widget.data["merged"] == 0
    assert [len(levels) for levels in widget.data["levels"]] == [7, 7, 7]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w[2].__imul__(1.01), r"must sum to 1 .* for prompt \d \('prompt \d'\)"),
        (lambda w: w[2].__setitem__((1, 2), np.nan), r"NaN at \(1, 2\)"),
        (lambda w: w[3].__setitem__((2, 5), np.inf), r"rewards must be finite, got inf at \(2, 5\)"),
        (lambda w: w[1].pop(), r"\(3, 59\), got \(3, 60\) and \(3, 60\)"),
        (lambda w: w[0].clear(), "at least one prompt"),
    ],
)
def test_bad_tables_are_refused_in_one_line(change: Any, message: str) -> None:
    arguments = world()
    change(arguments)
    with pytest.raises(ValueError, match=message) as error:
        BetaExplorable(*arguments)
    assert "\n" not in str(error.value)


def test_shapes_that_differ_are_both_named() -> None:
    prompts, answers, logps, rewards = world()
    with pytest.raises(ValueError, match=r"got \(3, 60\) and \(3, 59\)"):
        BetaExplorable(prompts, answers, logps, rewards[:, :-1])


@pytest.mark.parametrize("beta", [0, -1, 11, float("nan"), float("inf"), "big", None])
def test_bad_beta_is_refused(beta: Any) -> None:
    with pytest.raises(ValueError, match=r"beta must be a number from 0\.05 to 10, got"):
        BetaExplorable(*world(), beta=beta)
    if isinstance(beta, (int, float)):
        widget = BetaExplorable(*world())
        with pytest.raises(ValueError, match="beta must be"):
            widget.beta = float(beta)
        assert widget.beta == 1.0


@pytest.mark.parametrize("beta", [0, -1, float("nan")])
def test_optimum_refuses_bad_beta(beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be a finite number > 0"):
        BetaExplorable(*world()).optimum(beta)


def test_bad_top_prompt_and_too_many_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="top must be an integer from 1 to 40, got 0"):
        BetaExplorable(*world(), top=0)
    widget = BetaExplorable(*world())
    with pytest.raises(ValueError, match="prompt must be from 0 to 2, or -1"):
        widget.prompt = 3
    with pytest.raises(ValueError, match="pass fewer prompts"):
        BetaExplorable(*world(prompts=60, answers=200, levels=1000))


def test_fallback_shows_untrusted_texts_as_text() -> None:
    _, _, logps, rewards = world()
    evil = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    widget = BetaExplorable([evil] * 3, [evil] * 60, logps, rewards)
    data, _ = widget._repr_mimebundle_()
    assert list(data)[:2] == ["text/plain", "application/vnd.jupyter.widget-view+json"]
    assert "<img" not in data["text/html"]
    assert "alert(2)</script>" not in data["text/html"]
    assert html.escape(evil) in widget._table()
    assert "<script" not in widget._table()
    assert len(data["text/html"]) < 60_000


def test_colab_gets_the_widget_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    widget = BetaExplorable(*world())
    monkeypatch.setitem(sys.modules, "google.colab", object())  # type: ignore[arg-type]
    data, _ = widget._repr_mimebundle_()
    assert set(data) == {"text/plain", "application/vnd.jupyter.widget-view+json"}


def test_view_never_reads_texts_as_html() -> None:
    source = str(BetaExplorable._esm)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", source
    )
    assert "http" not in source.replace("http://www.w3.org", "")


def test_figure_shows_the_current_beta_and_prompt() -> None:
    widget = BetaExplorable(*world(), beta=0.3)
    widget.prompt = -1
    figure = widget.figure()
    named = {trace.name: trace for trace in figure.data if trace.name}
    now = widget.optimum()
    assert (named["π* at β = 0.3"].x[0], named["π* at β = 0.3"].y[0]) == pytest.approx((now.kl, now.reward))
    assert {"π<sub>ref</sub>", "π*", "frontier", "chosen", "rejected"} <= set(named)
    assert "all prompts" in figure.layout.title.text


def test_one_prompt_and_one_answer_are_enough() -> None:
    widget = BetaExplorable(["x"], [""], [[0.0]], [[2.0]], beta=2)
    assert widget.optimum() == pytest.approx((2.0, 0.0, 1.0))
    assert widget.figure().data
