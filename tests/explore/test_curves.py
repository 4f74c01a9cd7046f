"""The plain chart."""

import pytest

from rlhflab.explore.curves import PALETTE, bands, curves


def test_names_are_escaped_and_levels_drawn():
    figure = curves({"<b>x</b>": ([1, 2], [3.0, 4.0])}, "<i>t</i>", "<x>", "<y>", levels={"J*": 0.4})
    assert figure.data[0].name == "&lt;b&gt;x&lt;/b&gt;" and list(figure.data[0].y) == [3.0, 4.0]
    assert figure.layout.title.text == "&lt;i&gt;t&lt;/i&gt;"
    assert figure.layout.xaxis.title.text == "&lt;x&gt;" and figure.layout.yaxis.title.text == "&lt;y&gt;"
    assert figure.layout.shapes[0].y0 == 0.4


def test_a_series_may_have_a_line_of_its_own():
    figure = curves({"a": ([1], [2]), "b": ([1], [2])}, "", "", "", styles={"b": {"dash": "dash"}})
    assert [trace.line.dash for trace in figure.data] == [None, "dash"]
    assert figure.data[0].line.color != figure.data[1].line.color


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="a: as many x as y values are needed, got 2 and 1"):
        curves({"a": ([1, 2], [3])}, "", "", "")


def test_a_band_is_from_quartile_to_quartile_around_the_median():
    runs = [([0, 2], [0.0, 4.0]), ([0, 1, 3], [1.0, 1.0, 7.0]), ([0, 2], [8.0, 8.0])]
    figure = bands({"<a>": runs, "b": runs[:1]}, "t", "x", "y", levels={"known": 5.0})
    low, high, middle, *_ = figure.data
    assert [list(trace.x) for trace in (low, high, middle)] == [
        [0.0, 1.0, 2.0]
    ] * 3  # the first run ends at 2
    assert list(middle.y) == [1.0, 2.0, 4.0]  # of (0, 1, 8), (2, 1, 8) and (4, 4, 8)
    assert list(low.y) == [0.5, 1.5, 4.0] and list(high.y) == [4.5, 5.0, 6.0]
    assert middle.name == "&lt;a&gt;" and len(figure.data) == 6 and figure.layout.shapes[0].y0 == 5.0


def test_runs_of_a_band_must_overlap():
    with pytest.raises(ValueError, match="a: at least one run is needed, each with as many x as y values"):
        bands({"a": [([1, 2], [3])]}, "", "", "")
    with pytest.raises(ValueError, match="a: its runs have no x in common"):
        bands({"a": [([1, 2], [3, 4]), ([5], [3])]}, "", "", "")


def test_a_legend_of_many_names_gets_the_rows_it_needs_between_title_and_plot():
    few, many = (
        curves({f"{'a long name ' * 2}{n}": ([0, 1], [0, n]) for n in range(count)}, "Title", "x", "y")
        for count in (2, 7)
    )  # 7 · 25 + 46 = 221 pixels a name: 3 in a row of 760
    assert many.layout.margin.t - few.layout.margin.t == many.layout.height - few.layout.height == 2 * 20
    assert few.layout.margin.t > 14 + 15 + 20  # the title's distance and size, one row


def test_colours_begin_again_where_there_are_more_names():
    names = [f"n{k}" for k in range(len(PALETTE) + 2)]
    lines = curves({name: ([0, 1], [1, 2]) for name in names}, "t", "x", "y").data
    middles = [
        trace for trace in bands({n: [([0, 1], [1, 2])] for n in names}, "t", "x", "y").data if trace.name
    ]
    for traces in (lines, middles):
        assert [trace.name for trace in traces if trace.name in names] == names
        colours = [trace.line.color for trace in traces if trace.name in names]
        assert colours == [PALETTE[k % len(PALETTE)] for k in range(len(names))]
