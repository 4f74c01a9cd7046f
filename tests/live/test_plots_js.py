"""The page's plots, run under node: every panel is drawn from a frame, and no text of a model gets into a plot."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rlhflab.live.board import Board
from rlhflab.live.page import BoardWidget
from rlhflab.live.panels_dpo import DPO_PANELS
from tests.live.toy import ToyDPO, ToyKnobs

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed: the page's plots are not drawn")

SCRIPT = """
const { setup, frame } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const view = { setup, frame, beta: 0.5, dark: false, text: "#000", ink: "#555" };
const all = (frame) => Object.fromEntries(setup.panels.map((spec) => [spec.id, plotOf(spec, { ...view, frame })]));
const beta = setup.backdrop.beta.map((b) => atBeta(setup.backdrop, "kl", b));
console.log(JSON.stringify({ full: all(frame), empty: all(null), beta, middle: atBeta(setup.backdrop, "kl", 0.5) }));
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    board = Board(
        lambda: ToyDPO(steps=300, pause=0, hostile=True), "plots", driver="blocking", knobs=ToyKnobs
    )
    board.start()
    path: Path = tmp_path_factory.mktemp("js") / "plots.js"
    path.write_text(str(BoardWidget._esm).replace("export default", "const page =") + SCRIPT, "utf-8")
    sent = json.dumps({"setup": board.setup(), "frame": board.frame()})
    done = subprocess.run([str(NODE), path], input=sent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "backdrop": board.backdrop}


def test_every_panel_draws_what_the_frame_has(drawn: Any) -> None:
    for panel in DPO_PANELS:
        plot = drawn["full"][panel.id]
        names = {item["name"] for item in plot["legend"]}
        assert {line.name for line in panel.lines} <= names
        assert plot["traces"] and all(len(trace["x"]) for trace in plot["traces"])
        assert ("yaxis2" in plot["layout"]) == any(line.right for line in panel.lines)
    assert [item["name"] for item in drawn["full"]["reward"]["legend"]] == ["π_θ", "π*", "π_{ref}"]
    assert {item["name"] for item in drawn["full"]["weights"]["legend"]} == {
        "right label",
        "wrong label",
        "½",
    }
    assert "onerror" not in json.dumps(drawn["full"])


def test_every_panel_has_axes_before_there_is_a_frame(drawn: Any) -> None:
    for plot in drawn["empty"].values():
        low, high = plot["layout"]["yaxis"]["range"]
        assert low < high


def test_the_page_and_python_interpolate_the_frontier_alike(drawn: Any) -> None:
    assert drawn["beta"] == pytest.approx(drawn["backdrop"].kl, rel=1e-4)
    assert drawn["middle"] == pytest.approx(drawn["backdrop"].at(0.5).kl, rel=1e-3)
