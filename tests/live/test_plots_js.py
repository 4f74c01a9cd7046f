"""The page's plots, run under node: every panel is drawn from a frame, and no text of a model gets into a plot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhflab.core.record import Record
from rlhflab.live.board import Board
from rlhflab.live.page import BoardWidget
from rlhflab.plots.marks import in_bins
from rlhflab.plots.panel import Line, Panel
from rlhflab.plots.panels import PANELS
from rlhflab.plots.panels_dpo import DPO_PANELS
from tests.live.toy import ToyDPO, ToyKnobs, toy_backdrop
from tests.node import needs_node, run_module
from tests.real_records import long_run, names_in

pytestmark = needs_node

SCRIPT = """
const { setup, frame } = sent;
const view = { setup, frame, beta: 0.5, dark: false, text: "#000", ink: "#555" };
const all = (frame) => Object.fromEntries(setup.panels.map((spec) => [spec.id, m.plotOf(spec, { ...view, frame })]));
const bins = m.inBins([3, null, 1, 1, 1.1, 0.9, 50], [0.8, 1.2], [3, null, 50]);
const beta = setup.backdrop.beta.map((b) => m.atBeta(setup.backdrop, "kl", b));
const middle = m.atBeta(setup.backdrop, "kl", 0.5);
const ranges = [[0, 2], [-1, 1], [0.69315, 0.69335], [3, 3], [0, 0]].map(m.padded);
result = { full: all(frame), empty: all(null), bins, beta, middle, ranges };
"""


def draw(board: Board, folder: Path, script: str = SCRIPT) -> Any:
    sent = {"setup": board.setup(), "frame": board.frame()}
    return {**run_module(BoardWidget, script, sent, folder), "backdrop": board.backdrop}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    board = Board(
        lambda: ToyDPO(steps=300, pause=0, hostile=True), "plots", driver="blocking", knobs=ToyKnobs
    )
    board.start()
    return draw(board, tmp_path_factory.mktemp("js"))


def shown(panel: Panel) -> list[Line]:
    """The panel's curves in a world that can be enumerated."""
    return [line for line in panel.lines if not line.series.startswith("estimated/")]


def of_board(name: str) -> list[Panel]:
    return [panel for panel in PANELS[name] if not panel.report_only]


def test_estimates_are_drawn_with_their_errors(tmp_path: Path) -> None:
    estimated = {"reward": 1.0, "reward_se": 0.2, "ref_reward": 0.5, "kl_rb": 0.3, "kl_rb_se": 0.1}
    records = [
        Record(step, {"objective/scores": 1.0}, {"beta": 0.3}, estimated=estimated) for step in (1, 2, 3)
    ]
    board = Board.replay(records, toy_backdrop(), name="estimates", panels=PANELS["ppo"])
    plot = draw(board, tmp_path)["full"]["reward"]
    names = [item["name"] for item in plot["legend"]]
    assert names[:3] == ["score (proxy)", "π_θ, estimate ± its error", "π_{ref}, estimate"]
    bands = [trace["y"] for trace in plot["traces"] if trace.get("line", {}).get("width") == 0]
    assert bands[-2:] == [pytest.approx([0.8] * 3), pytest.approx([1.2] * 3)]


def test_every_panel_draws_what_the_frame_has(drawn: Any) -> None:
    for panel in of_board("dpo"):
        plot = drawn["full"][panel.id]
        names = {item["name"] for item in plot["legend"]}
        assert {line.name for line in shown(panel)} <= names
        assert plot["traces"] and all(len(trace["x"]) for trace in plot["traces"])
        assert ("yaxis2" in plot["layout"]) == any(line.right for line in shown(panel))
    assert [item["name"] for item in drawn["full"]["reward"]["legend"]] == ["π_θ", "π*", "π_{ref}"]
    assert {item["name"] for item in drawn["full"]["weights"]["legend"]} == {
        "right label",
        "wrong label",
        "½",
    }
    assert "onerror" not in json.dumps(drawn["full"])


def test_every_panel_has_axes_before_there_is_a_frame(drawn: Any) -> None:
    assert list(drawn["empty"]) == [panel.id for panel in of_board("dpo")]
    for plot in drawn["empty"].values():
        low, high = plot["layout"]["yaxis"]["range"]
        assert low < high


def test_the_page_and_python_interpolate_the_frontier_alike(drawn: Any) -> None:
    assert drawn["beta"] == pytest.approx(drawn["backdrop"].kl, rel=1e-4)
    assert drawn["middle"] == pytest.approx(drawn["backdrop"].at(0.5).kl, rel=1e-3)


@pytest.mark.parametrize("name", [name for name in PANELS if name != "dpo"])
def test_the_panels_of_every_algorithm_are_drawn_with_all_their_curves(name: str, tmp_path: Path) -> None:
    records = long_run(name, 40)
    drawn = draw(Board.replay(records, toy_backdrop(), name=name, panels=PANELS[name]), tmp_path)
    written = names_in(records)
    for panel in of_board(name):
        plot, empty = drawn["full"][panel.id], drawn["empty"][panel.id]
        curves = [line for line in panel.lines if line.series in written]
        assert {line.name for line in curves} <= {item["name"] for item in plot["legend"]}
        assert len(plot["traces"]) >= max(1, len(curves))
        assert ("yaxis2" in plot["layout"]) == any(line.right for line in panel.lines)
        assert empty["layout"]["yaxis"]["range"][0] < empty["layout"]["yaxis"]["range"][1]


def test_general_panels_are_drawn_like_any_others(tmp_path: Path) -> None:
    records = [replace(record, scalars={**record.scalars, "my/own": 1.0}) for record in long_run("ppo", 40)]
    board = Board.replay(records, toy_backdrop(), name="mine")
    drawn = draw(board, tmp_path)["full"]
    written = names_in(records)
    shown = {line.series for panel in board.panels for line in panel.lines}
    assert "my/own" in shown and shown == {name for name in written if not name.endswith("/scores_std")}
    for panel in board.panels:
        if panel.lines:
            assert {line.name for line in panel.lines} <= {item["name"] for item in drawn[panel.id]["legend"]}


def test_an_array_that_is_older_than_the_curves_says_its_step(tmp_path: Path) -> None:
    *older, last = [replace(record, arrays={"scatter/true": (0.0, 1.0), "scatter/model": (0.5, 0.6)})
                    for record in long_run("reward", 40)]  # fmt: skip
    board = Board.replay([*older, replace(last, arrays={})], toy_backdrop(), panels=PANELS["reward"])
    legend = draw(board, tmp_path)["full"]["scatter"]["legend"]
    assert [item["name"] for item in legend] == ["answers", "equal", "step 39"]


def test_the_ratios_stand_between_marks_of_the_clip_range_in_force(tmp_path: Path) -> None:
    arrays = {"ratio": tuple(0.9 + i / 1280 for i in range(256)), "ratio_clipped": (1.3,) * 9}
    record = Record(1, {"loss": 1.0}, {"clip_range": 0.2}, arrays=arrays)
    board = Board.replay([record], toy_backdrop(), panels=PANELS["ppo"])
    ratio = draw(board, tmp_path)["full"]["ratio"]
    assert {item["name"]: item.get("value") for item in ratio["legend"]} == {
        "ratio": None, "clipped": None, "1 − ε": pytest.approx(0.8), "1 + ε": pytest.approx(1.2),
    }  # fmt: skip
    free, clipped, *marks = ratio["traces"]
    assert [trace["x"] for trace in marks] == [[1, 1], [0.8, 0.8], [1.2, 1.2]]
    assert sum(free["y"] + clipped["y"]) == pytest.approx(100) and sum(clipped["y"]) == pytest.approx(
        100 * 9 / 256
    )


def test_the_page_and_python_make_the_same_histogram(drawn: Any) -> None:
    centres, shares, ends, part = in_bins([3, None, 1, 1, 1.1, 0.9, 50], [0.8, 1.2], [3, None, 50])
    assert drawn["bins"]["part"] == pytest.approx(part) and sum(part) == pytest.approx(100 * 2 / 6)
    assert drawn["bins"]["x"] == pytest.approx(centres) and drawn["bins"]["y"] == pytest.approx(shares)
    assert drawn["bins"]["ends"] == pytest.approx(ends)


def test_an_axis_is_a_little_longer_than_its_values_and_not_too_short_for_its_labels(drawn: Any) -> None:
    wide, around, narrow, one, zero = drawn["ranges"]
    assert wide == pytest.approx([0, 2.16]) and around == pytest.approx([-1.16, 1.16])
    assert sum(narrow) / 2 == pytest.approx(0.69325) and narrow[1] - narrow[0] == pytest.approx(
        0.005 * 0.69335
    )
    assert one == pytest.approx([2.7, 3.3]) and zero == [0, 0.5]


def test_estimates_have_error_bars_and_no_optimum_beyond_what_is_known(tmp_path: Path) -> None:
    exact = toy_backdrop()
    errors = tuple(0.1 for _ in exact.beta)
    known = [i for i, beta in enumerate(exact.beta) if beta >= 1]
    curves = {
        name: tuple(getattr(exact, name)[i] for i in known) for name in ("beta", "kl", "reward", "objective")
    }
    backdrop = replace(exact, **curves, reward_se=errors[: len(known)])
    values = {"kl_rb": 0.2, "kl_rb_se": 0.01, "reward": 0.5, "reward_se": 0.05, "optimum_trusted": 1.0}
    records = [Record(step, {"loss": 0.5}, {"beta": 0.5}, estimated=values) for step in (1, 2)]
    for beta, marks in ((0.5, 0), (2.0, 1)):  # the page's β
        board = Board.replay(records, backdrop, panels=DPO_PANELS)
        script = SCRIPT.replace("beta: 0.5", f"beta: {beta}")
        plots = draw(board, tmp_path, script)["full"]
        traces = plots["plane"]["traces"]
        (trail,) = [trace for trace in traces if "error_x" in trace]
        assert (trail["error_x"]["array"], trail["error_y"]["array"]) == ([0.01, 0.01], [0.05, 0.05])
        assert sum(trace.get("marker", {}).get("symbol") == "diamond" for trace in traces) == marks
        legend = [item["name"] for item in plots["plane"]["legend"]]
        assert "frontier, estimate ± its error" in legend and "π_θ now, ± error" in legend
        assert sum(item["name"] == "π*, estimate" for item in plots["kl"]["legend"]) == marks
        assert board.picture().count("<polyline") > 4
