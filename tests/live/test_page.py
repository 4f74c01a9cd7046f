"""What a page is sent and when, without a browser or a thread: the clock is the test's."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from rlhflab.core.record import Backdrop
from rlhflab.live import page as page_module
from rlhflab.live.page import Page, thin_backdrop
from tests.toy import BACKDROP


class Player:
    state, driver, notice, awaited, heard, rate = "running", "blocking", "", False, "", 0.0
    stopping = False
    knobs: dict[str, float] = {}

    def hear(self) -> None:
        pass


class Shown:
    """A board whose messages are numbered."""

    name, notice = "test", ""

    def __init__(self) -> None:
        self.player, self.history, self.mark, self.made = Player(), SimpleNamespace(records=1), 0, 0

    @property
    def state(self) -> str:
        return self.player.state

    def setup(self) -> dict[str, Any]:
        return {"op": "setup", "mark": self.mark}

    def setup_mark(self) -> int:
        return self.mark

    def frame(self) -> dict[str, Any]:
        return {"op": "frame", "records": self.history.records}

    def picture(self) -> str:
        self.made += 1
        return f"picture {self.made}"

    def _repr_mimebundle_(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {}

    def _repr_html_(self) -> str:
        return ""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(
        page_module, "time", SimpleNamespace(monotonic=lambda: found.now, sleep=sys.modules["time"].sleep)
    )
    return found


@pytest.fixture
def page(clock: Any) -> Page:
    found = Page(Shown())  # type: ignore[arg-type]
    found.sent = []  # type: ignore[attr-defined]
    found.widget.send = lambda content, buffers=None: found.sent.append(content["op"])  # type: ignore[attr-defined]
    return found


def news(page: Any) -> list[str]:
    page.sent.clear()
    page._send_news()
    return list(page.sent)


def tell(page: Page, **message: Any) -> None:
    page._on_message(page.widget, message, [])


def test_a_page_gets_what_is_new_and_its_setup_again_every_few_seconds(page: Any, clock: Any) -> None:
    assert news(page) == []  # nobody is there
    tell(page, op="hello")
    assert page.sent == ["setup", "frame"]
    assert news(page) == ["setup", "frame"] and news(page) == []
    page._board.history.records += 1
    assert news(page) == ["frame"] and news(page) == []
    page._board.mark += 1  # such as another choice
    assert news(page) == ["setup"]
    clock.now += 4.0
    assert news(page) == []
    clock.now += 0.1
    assert news(page) == ["setup"] and news(page) == []


def test_a_page_that_is_silent_gets_everything_unasked(page: Any, clock: Any, monkeypatch: Any) -> None:
    """From when it is put into an output until it says hello; plotly.js after 0.8, 4 and 12 seconds."""
    monkeypatch.setattr(page_module, "send_plotly", lambda widget: widget.send({"op": "plotly"}))
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: None)
    monkeypatch.setattr(page, "on_change", lambda: None)  # no thread
    page.display()
    assert news(page) == ["setup", "frame"] and news(page) == ["frame"]
    pushed = []
    for tenths in range(1, 200):
        clock.now = 1000 + tenths / 10
        pushed += [tenths] * ("plotly" in news(page))
    assert pushed == [9, 41, 121]
    tell(page, op="hello")
    page.display()  # again, where it is heard already
    clock.now += 20
    assert "plotly" not in news(page)


def test_plotly_is_sent_when_asked_for(page: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(page_module, "send_plotly", lambda widget: widget.send({"op": "plotly"}))
    threads = []
    monkeypatch.setattr(
        page_module.threading,
        "Thread",
        lambda target, args, daemon: (
            threads.append((target, args)) or SimpleNamespace(start=lambda: target(*args))
        ),
    )
    tell(page, op="plotly")
    assert page.sent == ["plotly"] and len(threads) == 1


@pytest.mark.parametrize(("ms", "seconds"), [(250, 0.25), (5000, 1.0), (-3, 0.0)])
def test_how_long_a_page_draws_is_told_in_milliseconds(page: Any, ms: int, seconds: float) -> None:
    tell(page, op="draw", ms=ms)
    assert page._draw_seconds == seconds
    tell(page, op="hello")  # of a page that has drawn nothing yet
    assert page._draw_seconds == 0.0


def test_a_picture_is_taken_every_ten_seconds_and_at_every_rest(page: Any, clock: Any) -> None:
    news(page)
    assert page.widget.picture == "picture 1"
    for seconds, records, number in ((9, 2, 1), (2, 3, 2), (11, 3, 2), (11, 4, 3)):
        clock.now += seconds
        page._board.history.records = records
        news(page)
        assert page.widget.picture == f"picture {number}"
    for state, number in (("paused", 4), ("running", 4), ("finished", 5)):
        page._board.player.state = state
        news(page)
        assert page.widget.picture == f"picture {number}"


def test_a_frontier_is_sent_in_five_digits_at_200_points_and_must_ascend() -> None:
    many = tuple(at / 7 for at in range(1, 301))
    sent = thin_backdrop(Backdrop(many, many[::-1], many, many, 1 / 3, reward_se=many))
    assert sent["beta"] == sent["reward_se"] and len(sent["beta"]) == len(sent["kl"]) == 200
    assert (sent["beta"][0], sent["beta"][-1], sent["kl"][0], sent["ref_reward"]) == (
        0.14286,
        42.857,
        42.857,
        0.33333,
    )
    assert thin_backdrop(BACKDROP) == {
        "beta": [0.1, 1.0, 10.0], "kl": [4.0, 1.0, 0.1], "reward": [3.0, 2.0, 1.1], "objective": [2.6, 1.0, 0.1],
        "ref_reward": 1.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="a backdrop's beta must ascend"):
        thin_backdrop(BACKDROP.__class__(**{**vars(BACKDROP), "beta": (1.0, 1.0, 2.0)}))
