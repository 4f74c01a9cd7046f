"""The plain chart."""

import pytest

from rlhflab.explore.curves import curves


def test_names_are_escaped_and_levels_drawn():
    figure = curves({"<b>x</b>": ([1, 2], [3.0, 4.0])}, "<i>t</i>", "step", "regret", levels={"J*": 0.4})
    assert figure.data[0].name == "&lt;b&gt;x&lt;/b&gt;" and list(figure.data[0].y) == [3.0, 4.0]
    assert figure.layout.title.text == "&lt;i&gt;t&lt;/i&gt;"
    assert figure.layout.shapes[0].y0 == 0.4


def test_a_series_may_have_a_line_of_its_own():
    figure = curves({"a": ([1], [2]), "b": ([1], [2])}, "", "", "", styles={"b": {"dash": "dash"}})
    assert [trace.line.dash for trace in figure.data] == [None, "dash"]
    assert figure.data[0].line.color != figure.data[1].line.color


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="a: as many x as y values are needed, got 2 and 1"):
        curves({"a": ([1, 2], [3])}, "", "", "")
