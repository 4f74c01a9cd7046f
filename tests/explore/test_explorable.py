"""What all explorables share: ranged traits and fallbacks in Python, scales and axes in the page."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import pytest
import traitlets

from rlhflab.explore.explorable import Explorable, Number
from tests.node import needs_node, run_module


class Toy(Explorable):
    """An explorable with nothing to show."""

    _script = "beta.js"
    width = Number(1.0, 0.5, 2.0)
    steps = traitlets.Int(3).tag(sync=True)

    def figure(self) -> go.Figure:
        return go.Figure(go.Scatter(y=[self.width]))


def test_the_page_gets_the_ranges_and_values_outside_are_refused() -> None:
    toy = Toy({"curve": [1, 2]}, width=0.7)
    assert toy.data == {"curve": [1, 2], "ranges": {"width": [0.5, 2.0]}}
    for bad in (0.4, 2.1, float("nan"), "wide"):
        with pytest.raises(ValueError, match=r"width must be a number from 0\.5 to 2, got"):
            toy.width = bad  # type: ignore[assignment]
    assert toy.width == 0.7


def test_where_widgets_are_not_there_is_a_figure() -> None:
    data, _ = Toy({}, width=2)._repr_mimebundle_()
    assert data["text/plain"] == "Toy(steps=3, width=2.0)"
    assert "plotly" in data["text/html"]


SCRIPT = """
const log = m.scaleOf({ min: 0.01, max: 100, log: true });
const whole = m.scaleOf({ min: 0, max: 7, step: 1 });
const fine = m.scaleOf({ min: -1, max: 1 });
const at = m.plotLayout({ width: 300, height: 200 }, { x: [0.1, 10], logX: true, y: [-2, 2] });
result = {
  log: [0, 0.25, 0.5, 1].map(log.value), back: log.fraction(log.value(0.3)),
  whole: [0, 0.2, 0.5, 1, 7].map((f) => whole.value(f)), count: whole.count, cut: [whole.clean(-3), whole.clean(4.4)],
  fine: [fine.value(0.5), fine.value(0.12345), fine.clean(9)],
  edges: [at.x(0.1), at.x(1), at.x(10), at.y(-2), at.y(2)], inverse: [at.valueX(at.x(3)), at.valueY(at.y(0.7))],
  logTicks: m.logTicks(0.05, 10), lin: m.linSpace(0, 1, 3), space: m.logSpace(1, 100, 3),
};
"""


@needs_node
def test_scales_and_axes_of_the_page(tmp_path_factory: pytest.TempPathFactory) -> None:
    page: Any = run_module(Toy, SCRIPT, None, tmp_path_factory.mktemp("js"))
    assert page["log"] == [0.01, 0.1, 1, 100] and page["back"] == pytest.approx(0.3, abs=1e-3)
    assert page["whole"] == [0, 1, 4, 7, 7] and page["count"] == 7 and page["cut"] == [0, 4]
    assert page["fine"] == [0, -0.7531, 1]
    assert page["edges"] == pytest.approx([44, 166, 288, 166, 12])
    assert page["inverse"] == pytest.approx([3, 0.7])
    assert page["logTicks"] == [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]
    assert page["lin"] == [0, 0.5, 1] and page["space"] == pytest.approx([1, 10, 100])
