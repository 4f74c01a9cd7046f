"""The plots: every one that the records can fill, no other, with the records' numbers."""

from __future__ import annotations

import math
from dataclasses import replace

from rlhflab.core.record import Record
from rlhflab.plots.drawing import POINTS, in_bins
from rlhflab.runs.figures import figures
from tests.toy import BACKDROP, Toy

ALL = [
    "True reward", "KL from the reference", "Reward against KL", "Efficiency", "Regret", "Implicit rewards",
    "Margins and accuracy", "Loss", "Gradient weights, last batch", "Gradient weights over time",
]  # fmt: skip


def dpo_records(steps=10):
    for record in Toy(steps=steps):
        extra = {
            "rewards/chosen_std": 0.5,
            "rewards/rejected_std": 0.5,
            "rewards/margins": 0.1,
            "rewards/accuracies": 0.6,
        }
        yield replace(record, scalars={**record.scalars, **extra})


def test_all_plots_of_a_full_run():
    assert [plot.title for plot in figures(list(dpo_records()), BACKDROP)] == ALL


def test_missing_parts_are_left_out():
    assert figures([]) == []
    assert [plot.title for plot in figures([Record(1, {"loss": 0.5}, {})])] == ["Loss"]
    nan = {"kl": math.nan, "reward": math.nan, "efficiency": math.nan, "regret": math.nan}
    assert figures([Record(1, {"loss": math.nan}, {}, exact=nan)], BACKDROP) == []
    titles = [plot.title for plot in figures([replace(record, exact=None) for record in dpo_records()])]
    assert titles == ALL[5:]


def test_curves_hold_the_records_numbers():
    records = list(dpo_records())
    plots = {plot.title: plot.figure for plot in figures(records, BACKDROP)}
    loss = plots["Loss"].data[0]
    assert list(loss.x) == [record.step for record in records]
    assert list(loss.y) == [record.scalars["loss"] for record in records]
    reward = plots["True reward"].data[0]
    assert list(zip(reward.x, reward.y, strict=True)) == [
        (r.step, r.exact["reward"]) for r in records if r.exact
    ]


def test_the_optimum_follows_the_beta_in_force():
    records = [replace(r, knobs={"beta": 1.0 if r.step <= 4 else 0.1}) for r in dpo_records()]
    (kl,) = (plot.figure for plot in figures(records, BACKDROP) if plot.title == "KL from the reference")
    optimum = kl.data[1]
    assert optimum.name == "optimum at this β"
    assert list(zip(optimum.x, optimum.y, strict=True)) == [(1, 1.0), (4, 1.0), (5, 4.0), (10, 4.0)]


def test_long_curves_are_thinned_and_keep_their_extremes():
    records = [Record(step, {"loss": 0.5}, {}) for step in range(1, 20_001)]
    records[12_345] = Record(12_346, {"loss": 9.0}, {})
    (plot,) = figures(records)
    assert len(plot.figure.data[0].x) <= POINTS
    assert (12_346, 9.0) in zip(plot.figure.data[0].x, plot.figure.data[0].y, strict=True)


def test_what_policy_optimisation_and_reward_models_record_is_shown():
    arrays = {"ratio": (0.5, 1.0, 1.1, 9.0), "cg_residuals": (1.0, 0.1)}
    scalars = {
        "objective/scores": 1.0,
        "policy/clipfrac_avg": 0.1,
        "loss/value_avg": 0.2,
        "trpo/kl_old": 0.01,
    }
    records = [Record(step, scalars, {"beta": 1.0, "clip_range": 0.2}, arrays=arrays) for step in (1, 2)]
    plots = {plot.title: plot for plot in figures(records, BACKDROP)}
    assert list(plots) == [
        "Score and KL of the batch", "Clip fraction", "Trust region", "Value function", "Ratios",
        "Conjugate gradient",
    ]  # fmt: skip
    ratios = plots["Ratios"].figure
    assert [round(line.x0, 3) for line in ratios.layout.shapes] == [0.8, 1.0, 1.2]
    assert sum(ratios.data[0].y) == 100 and plots["Ratios"].caption.startswith("Step 2.")

    truth = tuple(float(i) for i in range(5))
    arrays = {"scatter/true": truth, "scatter/model": truth}
    exact = {"reward": 1.0, "kl": 0.5, "rank_correlation": 0.9}
    scalars = {"loss": 0.6, "eval/loss": 0.7, "accuracy": 0.6, "margin": 0.2}
    plots = {
        p.title: p for p in figures([Record(1, scalars, {"beta": 1.0}, exact=exact, arrays=arrays)], BACKDROP)
    }
    assert {"Rank correlation", "Loss", "Accuracy", "Margin", "Model against truth"} <= set(plots)
    assert [trace.name for trace in plots["Loss"].figure.data] == ["training", "held out"]
    assert "optimal for the reward model" in plots["True reward"].caption


def test_outliers_fall_into_the_outer_bins():
    values = [1.0] * 98 + [1e9, -1e9, math.nan, None]
    centres, shares, (low, high), some = in_bins(values, (0.8, 1.2), [1e9, 1.0, math.nan])
    assert 0.7 < low < 0.8 and 1.2 < high < 1.3 and low < centres[0] and centres[-1] < high
    assert sum(shares) == 100 and shares[0] == shares[-1] == 1
    assert some[-1] == 1 and sum(some) == 2
    assert in_bins([math.nan]) == ([], [], (0.0, 1.0), [])


def estimated(step, beta=1.0, **more):
    values = {
        "reward": 0.3 * step,
        "kl_rb": 0.1 * step,
        "regret": 0.5,
        "ref_reward": 0.0,
        "optimum_trusted": 1.0,
    }
    errors = {"reward_se": 0.05, "kl_rb_se": 0.01, "regret_se": 0.06}
    return Record(step, {"objective/kl": 0.1}, {"beta": beta}, estimated=values | errors | more)


def test_estimates_are_drawn_with_their_errors_and_no_optimum_beyond_what_is_known():
    errors = (0.1,) * len(BACKDROP.beta)
    backdrop = replace(BACKDROP, reward_se=errors)
    plots = {plot.title: plot for plot in figures([estimated(1), estimated(2)], backdrop)}
    assert list(plots)[:4] == ["True reward", "KL from the reference", "Reward against KL", "Regret"]
    plane = plots["Reward against KL"]
    assert "Estimates" in plane.caption and "exact" not in plane.caption
    by_name = {trace.name: trace for trace in plane.figure.data}
    run = by_name["this run, ± its errors"]
    assert (list(run.x), list(run.error_x.array), list(run.error_y.array)) == (
        [0.1, 0.2],
        [0.01] * 2,
        [0.05] * 2,
    )
    assert by_name["frontier, estimate ± its error"].mode == "lines" and "optimum at β = 1" in by_name
    assert [trace.name for trace in plots["KL from the reference"].figure.data if trace.name] == [
        "batch", "estimate ± its error", "optimum at this β",
    ]  # fmt: skip

    beyond = BACKDROP.beta[0] / 2  # the estimated frontier ends before
    plots = {plot.title: plot for plot in figures([estimated(1, beyond), estimated(2, beyond)], backdrop)}
    for title in ("Reward against KL", "True reward"):
        assert not any("optimum" in (trace.name or "") for trace in plots[title].figure.data)
    weighted = {"kl": 9.0, "kl_se": 1.0, "optimum_trusted": 0.0}
    values = {k: v for k, v in estimated(1).estimated.items() if "rb" not in k} | weighted
    untrusted = figures([Record(1, {}, {"beta": 1.0}, estimated=values)], backdrop)
    assert "Reward against KL" not in {plot.title for plot in untrusted}


def test_supervised_training_shows_the_language_and_trpo_its_line_search():
    exact = {"cross_entropy": 2.0, "entropy": 1.8, "grammatical": 0.7, "grammatical_texts": 0.8}
    plots = {plot.title: plot for plot in figures([Record(1, {"loss": 2.1}, {}, exact=exact)])}
    assert list(plots) == ["Clean language", "Loss"]
    curves = {trace.name: list(trace.y) for plot in plots.values() for trace in plot.figure.data}
    assert curves == {
        "the policy": [0.7], "the texts": [0.8], "batch": [2.1], "over the language, exact": [2.0],
        "entropy of the language": [1.8],
    }  # fmt: skip
    assert "ln 2" not in plots["Loss"].caption

    arrays = {
        "line_search/share": (1.0, 0.8),
        "line_search/kl": (0.03, 0.01),
        "line_search/gain": (-0.1, 0.2),
    }
    records = [Record(3, {"trpo/max_kl": 0.02}, {"beta": 1.0}, arrays=arrays)]
    search = {plot.title: plot for plot in figures(records)}["Line search"].figure
    found = {trace.name: (trace.yaxis, list(trace.x), list(trace.y)) for trace in search.data}
    assert found == {
        "KL(π_old‖π_θ)": (None, [1.0, 0.8], [0.03, 0.01]),
        "gain": ("y2", [1.0, 0.8], [-0.1, 0.2]),
        "δ": ("y", [0.8, 1.0], [0.02, 0.02]),
    }
