"""The board without a browser: frames, setup, ghosts, buttons, still pictures. The page itself: tests/browser."""

from __future__ import annotations

import base64
import gc
import gzip
import json
import math
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from rlhflab.core.knobs import Knob
from rlhflab.core.recipe import Recipe
from rlhflab.core.record import Record
from rlhflab.live import board as board_module
from rlhflab.live import page as page_module
from rlhflab.live.board import Board
from rlhflab.live.controls import Choice, Dials, describe
from rlhflab.live.page import BoardWidget, send_plotly
from rlhflab.live.sources import Source
from rlhflab.plots.panel import COLOURS, Line, Panel, arrays_of, series_of
from rlhflab.plots.panels import PANELS
from rlhflab.plots.panels_dpo import DPO_PANELS, PLANE
from tests.live.toy import ToyDPO, ToyKnobs, toy_backdrop
from tests.real_records import long_run, names_in


@pytest.fixture(autouse=True)
def boards_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RLHFLAB_DRIVER", raising=False)
    yield
    for board in list(board_module._boards.values()):
        board.close()
    board_module._boards.clear()  # no ghosts from one test in the next
    for thread in threading.enumerate():
        if thread.name.startswith("rlhflab"):
            thread.join(5)


def blocking(steps: int = 60, name: str = "test", **settings: Any) -> Board:
    return Board(
        lambda: ToyDPO(steps=steps, pause=0), name=name, driver="blocking", knobs=ToyKnobs, **settings
    )


def watch(board: Board) -> list[dict[str, Any]]:
    """Collect the messages that the board sends to its page."""
    sent: list[dict[str, Any]] = []
    board.widget.send = lambda content, buffers=None: sent.append(
        json.loads(json.dumps(content, allow_nan=False))
    )
    return sent


def tell(board: Board, **message: Any) -> None:
    board._page._on_message(board.widget, {"view": "page", **message}, [])


def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


def test_a_page_that_says_hello_gets_the_setup_and_the_newest_frame() -> None:
    board = blocking()
    board.start()
    sent = watch(board)
    tell(board, op="hello")
    setup, frame = sent[0], sent[1]
    assert setup["op"] == "setup" and [panel["id"] for panel in setup["panels"]][:2] == ["reward", "kl"]
    assert [control["name"] for control in setup["controls"]] == ["beta", "learning_rate"]
    assert len(setup["backdrop"]["beta"]) == 60
    assert (frame["op"], frame["state"], frame["step"], frame["steps"]) == ("frame", "finished", 60, 60)
    written = names_in(list(ToyDPO(steps=60, pause=0)))
    assert set(frame["data"]["series"]) == written & set(series_of(board.panels)) != set()


def test_frames_and_setup_stay_small() -> None:
    board = blocking(steps=3000)
    for _ in range(6):
        board.start()
    assert len(json.dumps(board.frame(), allow_nan=False).encode()) <= 50_000
    assert len(json.dumps(board.setup()).encode()) <= 50_000
    assert 1000 < len(board.widget.picture) <= 20_000
    assert len(board.ghosts) == 4


def test_the_pump_sends_while_training_moves_and_rests_with_it() -> None:
    board = Board(lambda: ToyDPO(steps=100_000, pause=0.001), name="test", knobs=ToyKnobs)
    sent = watch(board)
    tell(board, op="hello")
    tell(board, op="do", what="start")
    until(lambda: len({m["step"] for m in sent if m["op"] == "frame"}) > 3)
    tell(board, op="knob", name="beta", value=2.5)
    until(lambda: sent[-1].get("knobs", {}).get("beta") == {"value": 2.5, "rev": 1, "by": "page"})
    tell(board, op="do", what="pause")
    until(lambda: sent[-1].get("state") == "paused")
    time.sleep(0.15)
    seen = len(sent)
    time.sleep(0.3)
    assert len(sent) == seen  # nothing moves, nothing is sent
    tell(board, op="do", what="step")
    until(lambda: sent[-1].get("step") == sent[seen - 1]["step"] + 1 and sent[-1]["state"] == "paused")
    tell(board, op="do", what="stop")
    until(lambda: sent[-1].get("state") == "stopped")
    tell(board, op="do", what="reset")
    until(lambda: sent[-1].get("state") == "idle" and sent[-1]["data"]["records"] == 0)
    assert len(board.ghosts) == 1


def test_a_slow_page_gets_fewer_frames() -> None:
    board = Board(lambda: ToyDPO(steps=100_000, pause=0.001), name="test")
    sent = watch(board)
    tell(board, op="hello")
    tell(board, op="draw", ms=300)
    board.start()
    until(lambda: sum(m["op"] == "frame" and m["state"] == "running" for m in sent) > 0)
    first = len(sent)
    time.sleep(1.0)
    assert len(sent) - first <= 3  # 10 without the report
    until(lambda: len(sent) > first)


def test_an_error_is_shown_and_the_board_starts_again() -> None:
    makes = iter([ToyDPO(fail_at=5, pause=0), ToyDPO(steps=5, pause=0)])
    board = Board(lambda: next(makes), name="test")
    board.start()
    with pytest.raises(RuntimeError, match="NaN"):
        board.wait(10)
    error = board.frame()["error"]
    assert (
        error["title"] == "RuntimeError: the loss became NaN at step <b>5</b>"
        and "Traceback" in error["traceback"]
    )
    board.start()
    assert board.wait(10) and board.state == "finished" and board.frame()["error"] is None


def test_a_refused_knob_is_reported_on_the_page_and_raised_in_a_cell() -> None:
    board = blocking()
    tell(board, op="knob", name="beta", value=-1)
    assert board.frame()["notice"] == "beta must be a number > 0, got -1"
    assert board.player.knobs["beta"] == 0.3
    with pytest.raises(ValueError, match="beta must be a number > 0"):
        board.set(beta=float("nan"))
    board.set(beta=0.7)
    assert board.frame()["notice"] == "" and board.frame()["knobs"]["beta"] == {
        "value": 0.7,
        "rev": 2,
        "by": "python",
    }


def test_running_the_cell_again_stops_the_former_board_and_keeps_its_curves() -> None:
    first = Board(lambda: ToyDPO(pause=0.001, beta=0.5), name="lesson")
    first.start()
    until(lambda: first.history.records > 20)
    second = blocking(name="lesson")
    assert first.state == "stopped"
    second.start()
    ghosts = second.setup()["ghosts"]
    assert [ghost["label"] for ghost in ghosts] == ["β 0.5"]
    assert set(ghosts[0]["series"]) == {"exact/reward", "exact/kl"}
    tell(second, op="clear_ghosts")
    assert second.setup()["ghosts"] == []
    names = [t.name for t in threading.enumerate() if t.name.startswith("rlhflab")]
    assert names == []


def test_ghosts_are_for_boards_of_the_same_algorithm() -> None:
    class Other(ToyDPO):
        name = "ppo"

    blocking(name="lesson", steps=30).start()
    other = Board(lambda: Other(steps=30, pause=0), "lesson", driver="blocking")
    other.start()
    assert other.setup()["ghosts"] == [] and other.algorithm.name == "ppo"
    again = blocking(name="lesson", steps=30)
    again.start()
    assert [ghost["algorithm"] for ghost in again.setup()["ghosts"]] == ["dpo"]


def test_another_choice_while_a_cell_waits_goes_on_with_the_new_training() -> None:
    choices = {"steps": Choice("steps", {10_000: "many", 30: "few"})}
    board = Board(lambda steps: ToyDPO(steps=steps, pause=0.002), "waited", driver="thread", choices=choices)
    board.start()
    returned: list[bool] = []
    cell = threading.Thread(target=lambda: returned.append(board.wait(20)))
    cell.start()
    until(lambda: board.frame()["awaited"] and board.history.step > 3)
    tell(board, op="choose", name="steps", at=1)
    cell.join(20)
    assert returned == [True] and (board.state, board.history.step) == ("finished", 30)
    assert not board.frame()["awaited"]
    board.close()


def test_a_choice_builds_the_training_anew_and_names_the_ghost_it_leaves() -> None:
    built: list[tuple[int, str]] = []

    def make(ranked: int, blind: str) -> ToyDPO:
        built.append((ranked, blind))
        return ToyDPO(steps=20, pause=0, beta=0.5)

    choices = {
        "ranked": Choice("K", {2: "2", 4: "4"}, "Answers a ranking."),
        "blind": Choice("blind to", {"": "nothing", "film": "the film"}, always_named=True),
    }
    board = Board(make, "form", driver="blocking", choices=choices)
    tell(board, op="choose", name="ranked", at=1)  # before the start nothing is built
    assert built == [] and board.frame()["choices"] == {"ranked": 1, "blind": 0}
    board.start()
    tell(board, op="choose", name="blind", at=1)
    assert built == [(4, ""), (4, "film")] and board.state == "finished" and board.frame()["step"] == 20
    assert [ghost["label"] for ghost in board.setup()["ghosts"]] == ["β 0.5, K 4, blind to nothing"]
    assert board.setup()["choices"][1] == {
        "name": "blind", "label": "blind to", "help": "", "options": ["nothing", "the film"],
    }  # fmt: skip
    for name, at in (("ranked", 7), ("ranked", "1"), ("ranked", -1), ("nonsense", 0)):
        tell(board, op="choose", name=name, at=at)
    assert len(built) == 2
    with pytest.raises(ValueError, match="ranked must be one of 2, 4, got 3"):
        board.choose(ranked=3)
    with pytest.raises(ValueError, match="unknown choice 'size'; known: ranked, blind"):
        board.choose(size=3)


def test_a_ghost_of_a_diverged_run_holds_finite_points_only() -> None:
    first = blocking(name="lesson", panels=(PLANE,))
    nan = {"kl": math.nan, "reward": math.nan}
    for step, exact in enumerate([{"kl": 0.1, "reward": 1.0}, {"kl": 0.2, "reward": 2.0}, nan], start=1):
        first.history.add(Record(step, {}, {"beta": 0.5}, exact=exact))
    second = blocking(name="lesson", panels=(PLANE,))
    assert second.setup()["ghosts"][0]["trail"] == {"kl": [0.1, 0.2], "reward": [1.0, 2.0]}
    second.start()
    assert second.widget.picture


def test_sinks_get_every_record() -> None:
    records: list[Record] = []
    board = blocking(steps=7, sinks=[records.append])
    board.run()
    assert [record.step for record in records] == list(range(1, 8))


def test_replay_shows_a_stored_run() -> None:
    algorithm = ToyDPO(steps=50, pause=0)
    records = list(algorithm)
    board = Board.replay(records, toy_backdrop())
    frame = board.frame()
    assert (frame["state"], frame["step"], frame["data"]["records"]) == ("finished", 50, 50)
    assert len(board.setup()["backdrop"]["kl"]) == 60

    class Stored:
        backdrop = toy_backdrop()

        def records(self) -> Iterator[Record]:
            return iter(records)

    assert Board.replay(Stored()).backdrop is Stored.backdrop


def test_a_run_that_is_continued_is_shown_from_its_first_step() -> None:
    first = blocking(20)
    first.step(8)
    half = first.algorithm
    records: list[Record] = []

    before = [Record(step, {"loss": 1.0}, {}) for step in range(1, 9)]
    second = Board(
        Source(lambda: half, before=before), "test", driver="blocking", knobs=ToyKnobs, sinks=[records.append]
    )
    assert second.history.step == 8 and second.state == "idle"
    assert first.algorithm is None and half is not None  # a closed board lets go of its model
    second.start()
    assert (second.state, second.history.step) == ("finished", 20)
    assert [record.step for record in records] == list(range(9, 21)) and len(second.ghosts) == 1
    second.reset()
    assert second.history.step == 0


@pytest.mark.parametrize("driver", ["thread", "blocking"])
@pytest.mark.parametrize("away", ["close", "reset"])
def test_a_model_that_failed_is_let_go_though_its_error_is_remembered(driver: Any, away: str) -> None:
    board = Board(lambda: ToyDPO(fail_at=3, pause=0), "failing", driver=driver, knobs=ToyKnobs)
    with pytest.raises(RuntimeError) as remembered:
        board.start()
        board.wait()
    model = weakref.ref(board.algorithm)
    getattr(board, away)()
    gc.collect()
    assert model() is None and "NaN" in str(remembered.value)


def test_the_still_pictures_show_what_the_records_have() -> None:
    board = blocking(steps=200)
    board.start()
    figure = board.figure()
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles == [panel.title for panel in of_board("dpo")]
    assert len(figure.data) > 20
    picture = board.widget.picture
    ElementTree.fromstring(picture)
    assert all(panel.title in picture for panel in of_board("dpo"))

    records = [replace(record, exact=None, pairs=None) for record in ToyDPO(steps=30, pause=0)]
    plain = Board.replay(records, panels=DPO_PANELS)
    titles = [annotation.text for annotation in plain.figure().layout.annotations]
    assert titles == ["Implicit rewards", "Margin and accuracy", "Loss and regret"]


def test_front_ends_without_widgets_get_a_figure() -> None:
    board = blocking()
    data, _ = board._repr_mimebundle_()
    assert (
        "application/vnd.jupyter.widget-view+json" in data and "text/html" not in data
    )  # nothing to see yet
    board.start()
    data, _ = board._repr_mimebundle_()
    assert len(data["application/vnd.plotly.v1+json"]["data"]) > 20
    assert re.match(r'<img [^<>]*src="data:image/svg\+xml;base64,[^<>"]*">$', data["text/html"])
    assert data["text/plain"] == "Board('test', finished, step 60 of 60)"


def test_model_text_is_never_part_of_a_page_or_picture() -> None:
    board = Board(lambda: ToyDPO(steps=30, pause=0, hostile=True), name="test", driver="blocking")
    board.start()
    assert "<img src=x" in board.frame()["data"]["pairs"]["lightest"][0]["chosen"]  # data, for textContent
    assert "onerror" not in board.widget.picture and "onerror" not in board.figure().to_json()
    source = str(BoardWidget._esm)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", source)


def test_still_pictures_escape_titles() -> None:
    board = blocking(title="<script>x</script>")
    board.start()
    assert "<script>" not in board.widget.picture


def test_plotly_travels_gzipped_and_in_pieces_on_colab(monkeypatch: pytest.MonkeyPatch) -> None:
    source = b"window.Plotly = {};" * 50_000
    monkeypatch.setattr(page_module, "plotly_source", lambda: gzip.compress(source, 0))
    sent: list[tuple[dict[str, Any], Any]] = []

    class Widget:
        def send(self, content: dict[str, Any], buffers: Any = None) -> None:
            sent.append((content, buffers))

    send_plotly(Widget())
    assert sent[0][0] == {"op": "plotly"} and gzip.decompress(sent[0][1][0]) == source
    sent.clear()
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    send_plotly(Widget())
    assert [content["part"] for content, _ in sent] == list(range(sent[0][0]["parts"]))
    assert all(len(content["text"]) <= 256_000 and not buffers for content, buffers in sent)
    assert gzip.decompress(base64.b64decode("".join(content["text"] for content, _ in sent))) == source


def test_controls_and_dials() -> None:
    controls = describe(ToyKnobs.specs)
    assert controls[0]["label"] == "β" and controls[0]["at_most"] is None and controls[1]["at_most"] == 1.0
    json.dumps(controls, allow_nan=False)
    dials = Dials()
    dials.moved("beta", by="page")
    dials.moved("beta")
    assert dials.frame({"beta": 0.1, "learning_rate": 1e-3}) == {
        "beta": {"value": 0.1, "rev": 2, "by": "python"},
        "learning_rate": {"value": 1e-3, "rev": 0, "by": ""},
    }

    assert dials.frame({"beta": 0.7})["beta"] == {"value": 0.7, "rev": 3, "by": "algorithm"}
    dials.moved("beta", by="page")
    assert dials.frame({"beta": 0.9})["beta"] == {"value": 0.9, "rev": 4, "by": "page"}


def test_the_value_that_an_algorithm_was_built_with_is_a_move_for_the_page() -> None:
    board = Board(lambda: ToyDPO(steps=3, pause=0, beta=0.7), "test", driver="blocking", knobs=ToyKnobs)
    assert board.frame()["knobs"]["beta"] == {
        "value": 0.3,
        "rev": 0,
        "by": "",
    }  # the default, before it is built
    board.start()
    assert board.frame()["knobs"]["beta"] == {"value": 0.7, "rev": 1, "by": "algorithm"}


def test_controls_say_what_is_allowed() -> None:
    budget = Knob(default=2, low=1, high=10, at_least=1, at_most=20, whole=True, log=False)
    (control,) = describe({"epochs": budget})
    assert (control["at_least"], control["whole"], control["at_most"]) == (1, True, 20)
    assert control["allowed"] == "a whole number ≥ 1 and ≤ 20"


@pytest.mark.parametrize("name", PANELS)
def test_panels_are_well_formed(name: str) -> None:
    panels = PANELS[name]
    assert len({panel.id for panel in panels}) == len(panels)
    for panel in panels:
        assert panel.caption.endswith((".", "?")) and len(panel.caption) <= 110, panel.caption
        assert panel.formula and panel.symbols
        assert all(line.colour in COLOURS for line in panel.lines)


def of_board(name: str) -> tuple[Panel, ...]:
    return tuple(panel for panel in PANELS[name] if not panel.report_only)


def test_a_board_picks_the_panels_of_its_algorithm() -> None:
    class PPO(Recipe):
        algorithm = name = "ppo"

        def build(self) -> ToyDPO:
            return ToyDPO(steps=3, pause=0)

    board = Board(PPO(), "test", driver="blocking")
    assert board.panels == of_board("ppo")  # by the name of the recipe, until there is an algorithm
    mark = board.setup_mark()
    board.start()
    assert board.panels == of_board("dpo") and board.setup_mark() != mark
    board.reset()
    assert board.panels == of_board("dpo")
    assert blocking().panels == ()  # a source without a name
    assert blocking(panels=(PLANE,)).panels == (PLANE,)


def test_a_control_run_gets_panels_in_the_words_of_control() -> None:
    class Stored:
        config = {"algorithm": "ppo", "world": "CartPole-v1"}

        def records(self) -> list[Record]:
            return long_run("ppo-control", 3)

    assert Board.replay(Stored()).panels == PANELS["ppo-control"]

    class PPO(Recipe):
        algorithm = "ppo"
        name = "ppo-control"

    assert Board(PPO(), "test", driver="blocking").panels == PANELS["ppo-control"]
    for name in ("reinforce-control", "ppo-control", "trpo-control"):
        words = json.dumps([panel.to_dict() for panel in PANELS[name]], ensure_ascii=False)
        assert not re.search("token|answer|prompt|β|reference it", words)


@pytest.mark.parametrize("name", PANELS)
def test_a_stored_run_gets_the_panels_of_its_algorithm_all_filled_in_small_frames(name: str) -> None:
    class Stored:
        config = {"algorithm": name}
        backdrop = toy_backdrop()

        def records(self) -> list[Record]:
            return long_run(name)

    board = Board.replay(Stored())
    written, panels = names_in(long_run(name)), of_board(name)
    assert board.panels == panels
    data = board.frame()["data"]
    assert set(data["series"]) == set(series_of(panels)) & written
    assert set(data["arrays"]) == set(arrays_of(panels)) & written
    assert all(len(array["y"]) <= 300 for array in data["arrays"].values())
    assert len(json.dumps(board.frame(), allow_nan=False).encode()) <= 50_000
    assert len(json.dumps(board.setup()).encode()) <= 50_000
    picture = board.picture()
    ElementTree.fromstring(picture)
    assert len(picture) <= 20_000 and all(escape(panel.title) in picture for panel in panels)
    titles = [annotation.text for annotation in board.figure().layout.annotations]
    assert titles == [panel.title for panel in panels]


def test_an_algorithm_of_ones_own_brings_its_panels_or_gets_general_ones() -> None:
    class Mine(ToyDPO):
        name = "mine"

    board = Board(lambda: Mine(steps=5, pause=0), "mine", driver="blocking")
    assert board.panels == ()
    mark = board.setup_mark()
    board.start()
    titles = [panel.title for panel in board.panels]
    assert {"Reward against KL", "Rewards", "Loss", "KL"} <= set(titles) and "True reward" not in titles
    assert board.setup_mark() != mark  # the page is told
    written = names_in(list(Mine(steps=5, pause=0)))
    assert set(board.frame()["data"]["series"]) == written == set(series_of(board.panels))
    board.reset()
    assert [panel.title for panel in board.panels] == titles

    class Drawn(Mine):
        panels = (PLANE,)

    own = Board(lambda: Drawn(steps=5, pause=0), "own", driver="blocking")
    own.start()
    assert own.panels == (PLANE,)
    assert blocking(panels=DPO_PANELS[:1]).panels == DPO_PANELS[:1]


def test_a_figure_for_a_paper(tmp_path: Path) -> None:
    board = blocking(steps=30)
    with pytest.raises(ValueError, match="nothing to draw yet"):
        board.save_figure(tmp_path / "empty.svg")
    board.start()
    drawn = board.save_figure(tmp_path / "two.svg", panels=["kl", "reward"], title="<mine>").read_text(
        "utf-8"
    )
    ElementTree.fromstring(drawn)
    assert 0 < drawn.index("KL from the reference") < drawn.index("True reward") and "Loss" not in drawn


def test_a_new_panel_needs_nothing_but_its_specification() -> None:
    panel = Panel(
        id="norm",
        title="Gradient norm",
        caption="Should stay finite.",
        formula=("‖∇L‖",),
        symbols=(("L", "the loss"),),
        lines=(Line("grad_norm", "norm", "fit"),),
    )
    board = blocking(panels=(panel,))
    board.start()
    assert list(board.frame()["data"]["series"]) == ["grad_norm"]
    assert len(board.figure().data) >= 1


def test_a_board_that_was_waited_for_has_its_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module.Page, "_pump", lambda self: None)  # nobody looks
    board = Board(lambda: ToyDPO(steps=5, pause=0), name="test", driver="thread", knobs=ToyKnobs)
    board.start()
    assert board.wait(30) and board.widget.picture.startswith("<svg")
