"""What plots show: the records' numbers, the optimum in force, errors; the same from every drawer."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rlhflab.core.record import Record
from rlhflab.plots import paper
from rlhflab.plots.history import History
from rlhflab.plots.marks import Mark, Plot, Scene, ends, frontier, in_bins, marks
from rlhflab.plots.panel import COLOURS, Line, Panel, as_html
from rlhflab.plots.panels_dpo import IMPLICIT, KL, LOSS, PLANE, REWARD, WEIGHTS, WEIGHTS_OVER_TIME
from rlhflab.plots.panels_policy import CG, LINE_SEARCH, RATIO
from rlhflab.plots.panels_race import REGRET
from rlhflab.plots.still import figure, single
from rlhflab.plots.svg import svg
from rlhflab.runs.scene import scenes
from tests.toy import BACKDROP, Toy


def scene_of(records: list[Record], backdrop=BACKDROP) -> Scene:
    return scenes(records, backdrop, "dpo")[0]


def named(plot: Plot) -> dict[str, Mark]:
    return {mark.name: mark for mark in plot.marks if mark.name}


def test_curves_hold_the_records_numbers_and_what_is_missing_is_left_out() -> None:
    records = list(Toy())
    scene = scene_of(records)
    loss = named(marks(LOSS, scene))["loss"]
    assert list(loss.x) == [record.step for record in records]
    assert loss.y == pytest.approx([record.scalars["loss"] for record in records], rel=1e-4)
    reward = named(marks(REWARD, scene))
    assert list(zip(reward["π_θ"].x, reward["π_θ"].y, strict=True)) == [
        (r.step, r.exact["reward"]) for r in records if r.exact
    ]
    assert list(reward["π_{ref}"].y) == [1.0, 1.0]
    bare = scene_of([replace(record, exact=None, pairs=None) for record in records])
    assert [panel.id for panel in bare.shown()] == ["implicit", "loss"]
    nan = {"kl": math.nan, "reward": math.nan, "regret": math.nan}
    drawn = scene_of([Record(1, {"loss": math.nan}, {"beta": 1.0}, exact=nan)])
    assert list(named(marks(LOSS, drawn))["loss"].y) == [None]
    ElementTree.fromstring(svg(drawn))


def test_the_optimum_follows_the_beta_in_force() -> None:
    records = [replace(r, knobs={"beta": 1.0 if r.step <= 4 else 0.1}) for r in Toy()]
    optimum = named(marks(KL, scene_of(records)))["π* at the β in force"]
    assert list(zip(optimum.x, optimum.y, strict=True)) == [(1, 1.0), (5, 1.0), (5, 4.0), (10, 4.0)]
    errors = (0.1,) * len(BACKDROP.beta)
    known = replace(BACKDROP, reward_se=errors)  # an estimated frontier ends at its smallest β
    records = [replace(r, knobs={"beta": 1.0 if r.step <= 4 else 0.05}) for r in Toy()]
    beyond = named(marks(KL, scene_of(records, known)))["π*, estimate at the β in force"]
    assert (list(beyond.x), list(beyond.y)) == ([1, 5, 5], [1.0, 1.0, None])
    assert [m.name for m in marks(PLANE, scene_of(records, known)).marks if m.symbol == "diamond"] == []


def test_long_curves_are_thinned_and_keep_their_extremes() -> None:
    records = [Record(step, {"loss": 0.5}, {}) for step in range(1, 20_001)]
    records[12_345] = Record(12_346, {"loss": 9.0}, {})
    band, curve = (mark for mark in marks(LOSS, scene_of(records)).marks)
    assert len(curve.x) <= 1001 and max(band.y2) == 9.0 and max(curve.y) < 1.1
    assert len(svg(scene_of(records))) < 100_000


def test_estimates_have_bands_and_error_bars() -> None:
    values = {"reward": 1.0, "reward_se": 0.05, "kl_rb": 0.2, "kl_rb_se": 0.01, "optimum_trusted": 1.0}
    records = [Record(step, {}, {"beta": 1.0}, estimated=values) for step in (1, 2)]
    scene = scene_of(records, replace(BACKDROP, reward_se=(0.1,) * 3))
    band = next(mark for mark in marks(REWARD, scene).marks if mark.kind == "band")
    assert (band.y, band.y2) == (pytest.approx([0.95] * 2), pytest.approx([1.05] * 2))
    plane = marks(PLANE, scene)
    (dots,) = [mark for mark in plane.marks if mark.x_error]
    assert (list(dots.x), list(dots.x_error), list(dots.y_error)) == ([0.2] * 2, [0.01] * 2, [0.05] * 2)
    assert list(dots.text) == ["step 1", "step 2"]
    assert "frontier, estimate ± its error" in named(plane)
    traces = [trace for trace in single(plane).data if trace.error_x.array]
    assert [list(trace.error_y.array) for trace in traces] == [[0.05, 0.05]]
    assert svg(scene).count('stroke-width=".8"') == 1


def test_the_frontier_is_drawn_to_just_beyond_its_reach() -> None:
    (whole,) = frontier(BACKDROP, 100.0)
    assert list(zip(whole.x, whole.y, strict=True)) == [(0.0, 1.0), (0.1, 1.1), (1.0, 2.0), (4.0, 3.0)]
    (cut,) = frontier(BACKDROP, 0.5, "frontier of dpo")
    assert list(cut.x) == [0.0, 0.1, 1.0] and cut.name == "frontier of dpo"


def test_outliers_fall_into_the_outer_bins() -> None:
    values = [1.0] * 98 + [1e9, -1e9, math.nan, None]
    centres, shares, (low, high), some = in_bins(values, (0.8, 1.2), [1e9, 1.0, math.nan])
    assert 0.7 < low < 0.8 and 1.2 < high < 1.3 and low < centres[0] and centres[-1] < high
    assert sum(shares) == 100 and shares[0] == shares[-1] == 1
    assert some[-1] == 1 and sum(some) == 2
    assert in_bins([math.nan]) == ([], [], (0.0, 1.0), [])


def test_arrays_stand_against_each_other_and_between_marks_of_the_knobs() -> None:
    search = {
        "line_search/share": (1.0, 0.8),
        "line_search/kl": (0.03, 0.01),
        "line_search/gain": (-0.1, 0.2),
        "ratio": (0.5, 1.0, 1.1, 9.0),
    }
    record = Record(3, {"trpo/max_kl": 0.02}, {"beta": 1.0, "clip_range": 0.2}, arrays=search)
    scene = scenes([record], BACKDROP, "trpo")[0]
    plot = marks(LINE_SEARCH, scene)
    drawn = {
        mark.name: (mark.right, list(mark.x), list(mark.y)) for mark in plot.marks if mark.kind == "stroke"
    }
    assert drawn["KL"] == (False, [1.0, 0.8], [0.03, 0.01]) and drawn["gain"] == (
        True,
        [1.0, 0.8],
        [-0.1, 0.2],
    )
    assert drawn["δ"][2] == [0.02, 0.02] and plot.step == 3
    assert single(plot).layout.yaxis2.title.text == "gain"
    ratios = marks(RATIO, scene)
    assert sum(ratios.marks[0].y) == 100 and ratios.step == 3
    assert [round(m.x[0], 3) for m in ratios.marks if m.kind == "stroke"] == [1.0, 0.8, 1.2]


def test_ghosts_are_faint_curves_of_the_lines_that_leave_them_and_have_room() -> None:
    lines = (Line("loss", "loss", "fit", ghost=True), Line("rewards/margins", "margin", "policy"))
    series = {name: {"x": [1, 50], "y": [1.0, 0.5]} for name in ("loss", "rewards/margins")}
    ghost = {"label": "β 0.5", "series": series, "trail": {"kl": [0.1, 9.0], "reward": [1.0, 2.0]}}
    scene = replace(scene_of(list(Toy())), ghosts=[ghost])
    plot, plane = marks(Panel("x", "", "", (), (), lines=lines), scene), marks(PLANE, scene)
    for drawn, x, own in ((plot, [1, 50], "fit"), (plane, [0.1, 9.0], "policy")):
        (faint,) = [mark for mark in drawn.marks if mark.name == "β 0.5"]
        assert (list(faint.x), faint.colour, faint.opacity) == (x, COLOURS[own][0], 0.35)
    assert plot.x_range == (0.0, 50.0) and plane.x_range == (pytest.approx(-0.16875), 11.25)
    alone = marks(PLANE, scene_of(list(Toy())))
    furthest = max(kl for kl in scene.data["trail"]["kl"])
    assert alone.x_range[1] == pytest.approx(1.25 * max(furthest, 1.0))  # π* at β = 1 is at a KL of 1


def test_a_vertical_range_has_a_margin_and_does_not_cross_zero_for_it() -> None:
    def around(*values: float | None) -> tuple[float, float]:
        return ends([Mark("stroke", range(len(values)), values)])

    assert around(-1.0, None, 1.0) == pytest.approx((-1.14, 1.14))
    assert around(0.1, 10.1) == pytest.approx((0.0, 10.8)) and around(8.0, 10.0) == pytest.approx(
        (7.86, 10.14)
    )
    assert around(5.0) == (4.5, 5.5) and around(0.0) == (0.0, 0.5) and ends([]) == pytest.approx((0.0, 1.07))
    assert ends([Mark("band", [0, 1], [-1.0, 0.0], [0.0, 1.0])]) == pytest.approx((-1.14, 1.14))


def test_a_level_and_a_histogram_have_room() -> None:
    arrays = {
        "line_search/share": (1.0, 0.8),
        "line_search/kl": (0.03, 0.01),
        "line_search/gain": (-0.1, 0.2),
    }
    plots = {}
    for delta in (0.02, 0.5):
        record = Record(3, {"trpo/max_kl": delta}, {"beta": 1.0}, arrays=arrays)
        plots[delta] = marks(LINE_SEARCH, scenes([record], BACKDROP, "trpo")[0])
    assert plots[0.02].y_range == (0.0, pytest.approx(0.0314)) and plots[0.5].y_range == (
        0.0,
        pytest.approx(0.55),
    )
    ratios = {"ratio": (1.0,) * 3 + (2.0,), "ratio_clipped": (2.0,)}
    record = Record(3, {}, {"beta": 1.0, "clip_range": 0.2}, arrays=ratios)
    plot = marks(RATIO, scenes([record], BACKDROP, "ppo")[0])
    every, clipped = (mark for mark in plot.marks if mark.kind == "bars")
    assert (max(every.y), sum(every.y), sum(clipped.y)) == (75, 100, 25)
    assert [place for place, height in zip(every.x, clipped.y, strict=True) if height] == [
        pytest.approx(2.0, abs=0.1)
    ]
    assert plot.y_range == (0.0, pytest.approx(82.5))


def test_weights_now_and_over_time() -> None:
    records = list(Toy())
    scene = scene_of(records)
    now, heat = marks(WEIGHTS, scene), marks(WEIGHTS_OVER_TIME, scene)
    bars = [mark for mark in now.marks if mark.kind == "bars"]
    batch = scene.data["batch"]
    both = [a + b for a, b in zip(batch["clean"], batch["flipped"], strict=True)]
    assert list(bars[0].y) == both and sum(both) == len(records[-1].pairs.ids)
    assert now.y_range == (0.0, pytest.approx(1.1 * max(both)))
    steps = scene.data["heat"]["x"]
    assert heat.x_range == (0.0, steps[-1]) and list(heat.marks[0].x) == [0.0, *steps]


def test_a_race_keeps_its_errors_in_every_drawing() -> None:
    arrays = {"dpo/regret": (1.0, 0.5), "dpo/lap": (0.0, 1.0), "dpo/regret_se": (0.1, 0.2)}
    scene = scenes([Record(1, {}, {}, arrays=arrays)], None, "race")[0]
    band = next(mark for mark in marks(REGRET, scene).marks if mark.kind == "band")
    assert (band.y, band.y2) == (pytest.approx([0.9, 0.3]), pytest.approx([1.1, 0.7]))


def test_every_drawing_has_the_same_colours() -> None:
    plot = marks(IMPLICIT, scene_of(list(Toy())))
    wanted = {line.name: COLOURS[line.colour][0] for line in IMPLICIT.lines}
    assert {name: mark.colour for name, mark in named(plot).items()} == wanted
    assert {trace.name: trace.line.color for trace in single(plot).data if trace.name} == wanted
    scene = replace(scene_of(list(Toy())), panels=[IMPLICIT])
    assert {trace.name: trace.line.color for trace in figure(scene).data if trace.name} == wanted
    assert all(f'fill="{colour}">{name}' in svg(scene) for name, colour in wanted.items())


def test_names_are_escaped_and_subscripts_set() -> None:
    assert as_html("<b> π_θ") == "&lt;b&gt; π<sub>θ</sub>"
    panel = Panel("x", "a < b", "", (), (), lines=(Line("loss", "<script>", "fit"),))
    scene = replace(scene_of(list(Toy())), panels=[panel])
    drawn = svg(scene)
    ElementTree.fromstring(drawn)
    assert "<script>" not in drawn and "a &lt; b" in drawn
    assert single(marks(panel, scene)).data[0].name == "&lt;script&gt;"


def test_a_figure_is_written_as_svg_or_pdf_or_refused_in_one_line(tmp_path: Path, monkeypatch) -> None:
    scene = scene_of(list(Toy()))
    everything = paper.save_figure(scene, tmp_path / "all.svg").read_text(encoding="utf-8")
    assert all(panel.title in everything for panel in scene.shown())
    for bad, message in (
        ({"path": tmp_path / "a.png"}, r"must end in \.svg or \.pdf, got"),
        ({"path": tmp_path / "a.svg", "panels": ["hello"]}, "panels must be among reward, kl, .*got 'hello'"),
    ):
        with pytest.raises(ValueError, match=message):
            paper.save_figure(scene, **bad)
    monkeypatch.setattr(paper, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="a PDF needs matplotlib: python -m pip install matplotlib"):
        paper.save_figure(scene, tmp_path / "a.pdf")
    assert [path.name for path in tmp_path.iterdir()] == ["all.svg"]


def test_a_pdf_shows_every_panel(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from rlhflab.plots.paper import _figure

    scene = scene_of(list(Toy()))
    drawn = _figure(replace(scene, panels=scene.shown()), "mine")
    titles = [axes.get_title() for axes in drawn.axes if axes.get_title()]
    assert titles == [panel.title for panel in scene.shown()]
    lines = {line.get_label(): line for axes in drawn.axes for line in axes.lines}
    assert list(lines["loss"].get_ydata()) == pytest.approx(list(named(marks(LOSS, scene))["loss"].y))
    path = paper.save_figure(scene, tmp_path / "all.pdf", title="β")
    assert path.read_bytes().startswith(b"%PDF") and "matplotlib.pyplot" not in sys.modules


def test_a_pdf_has_the_axes_of_the_plot() -> None:
    pytest.importorskip("matplotlib")
    from rlhflab.plots.paper import _figure

    arrays = {"cg_residuals": (1.0, 0.1, 0.01), "line_search/share": (1.0,), "line_search/gain": (0.5,)}
    record = Record(1, {"trpo/max_kl": 0.1}, {"beta": 1.0}, arrays={**arrays, "line_search/kl": (0.05,)})
    scene = replace(scenes([record], BACKDROP, "trpo")[0], panels=[CG, LINE_SEARCH])
    drawn = {axes.get_title() or "right": axes for axes in _figure(scene, "").axes}
    for panel, scale in ((CG, "log"), (LINE_SEARCH, "linear")):
        plot, axes = marks(panel, scene), drawn[panel.title]
        assert (axes.get_xlim(), axes.get_ylim()) == (
            pytest.approx(plot.x_range),
            pytest.approx(plot.y_range),
        )
        assert (axes.get_yscale(), axes.get_ylabel()) == (scale, panel.y_title)
    assert drawn["right"].get_ylim() == pytest.approx(marks(LINE_SEARCH, scene).right_range)


def test_a_history_of_a_board_and_one_for_a_file_hold_the_same() -> None:
    history = History(points=10)
    for step in range(1, 500):
        history.add(Record(step, {f"s{i}": float(step) for i in range(30)}, {}, arrays={"a": (1.0,) * 400}))
    short, whole = history.snapshot(), history.snapshot(whole=True)
    assert len(short["series"]["s0"]["y"]) < len(whole["series"]["s0"]["y"]) == len(history.curve("s0"))
    assert len(short["arrays"]["a"]["y"]) == 300 and len(whole["arrays"]["a"]["y"]) == 400
