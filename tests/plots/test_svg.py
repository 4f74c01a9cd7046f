"""Where each kind of mark is drawn in a panel of 310 × 220, whose plot is 50…268 across and 24…186 down."""

from __future__ import annotations

import pytest

from rlhflab.plots.marks import Mark, Plot
from rlhflab.plots.panel import Panel
from rlhflab.plots.svg import _Frame, _shape


def drawn(mark: Mark, **axes: object) -> str:
    plot = Plot(Panel("x", "", "", (), ()), x_range=(0.0, 2.0), y_range=(0.0, 1.0))
    for name, value in axes.items():
        setattr(plot, name, value)
    return _shape(mark, _Frame(plot, 24), 100)


@pytest.mark.parametrize(
    ("mark", "shape"),
    [
        (Mark("stroke", [0, None, 1, 2], [0, 9, 0.5, 1]), 'points="50.0,186.0 159.0,105.0 268.0,24.0"'),
        (Mark("stroke", [0, 4], [0, 1]), 'points="50.0,186.0 268.0,105.0"'),  # cut at the right end
        (Mark("band", [0, 2], [0, 0], [0.5, 1]), 'points="50.0,186.0 268.0,186.0 268.0,24.0 50.0,105.0"'),
        (Mark("bars", [1], [0.5]), 'd="M60.9 186V105.0h196.2V186z"'),  # 0.9 of 218 wide
        (Mark("dots", [1], [0.5], width=4.4), '<circle cx="159.0" cy="105.0" r="2.0"/>'),
        (Mark("dots", [1], [0.5], width=4.4, symbol="diamond"), 'd="M159.0 103.0l2.0 2.0-2.0 2.0-2.0-2.0z"'),
        (Mark("dots", [1], [0.5], x_error=[0.5], y_error=[0.25]), 'd="M104.5 105.0H213.5M159.0 145.5V64.5"'),
        (Mark("stroke", [0, 2], [-5, 5]), 'points="50.0,189.2 268.0,20.8"'),  # just outside
    ],
)
def test_a_mark_is_where_its_numbers_are(mark: Mark, shape: str) -> None:
    assert shape in drawn(mark)


def test_a_heat_map_has_five_shades() -> None:
    """Of two columns and two bins; a percentage of 9 is one shade, 36 and more are the last."""
    found = drawn(Mark("heat", [0, 1, 2], z=[[100, 4], [18, 9]], colour="#123456"))
    assert found == (
        '<path d="M50 105h109v81h-109z" fill="#123456" opacity="1.0"/>'
        '<path d="M159 105h109v81h-109z" fill="#123456" opacity="0.5"/>'
        '<path d="M159 24h109v81h-109z" fill="#123456" opacity="0.25"/>'
    )
    many = drawn(Mark("heat", range(121), z=[[100], [0], [0], [0]] * 30))  # four steps a column
    assert many.count("M") == 30 and 'opacity="0.75"' in many


def test_the_other_axes() -> None:
    right = Mark("stroke", [0, 2], [0, 10], right=True)
    assert 'points="50.0,186.0 268.0,105.0"' in drawn(right, right_range=(0.0, 20.0))
    logs = {"log": True, "y_range": (0.1, 10.0), "x_log": True, "x_range": (1.0, 100.0)}
    assert 'points="50.0,186.0 159.0,105.0 268.0,24.0"' in drawn(
        Mark("stroke", [1, 10, 100], [0.1, 1, 10]), **logs
    )
