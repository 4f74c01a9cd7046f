"""The board: an algorithm in training, to look at and to steer, in any notebook.

A `Board` joins a `Player` (which trains), a `History` (which remembers in flat memory) and one widget (which draws in
the browser). A pump thread sends at most ten frames a second, fewer where the page needs longer to draw; frames are
stateless, so whatever was missed does not matter. The page draws with plotly.js, which it gets once from the installed
plotly package. Nothing here waits for the page, and the training thread never writes to the view.
"""

from __future__ import annotations

import base64
import functools
import gzip
import json
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from rlhflab.algorithms.algorithm import Algorithm
from rlhflab.algorithms.knobs import Knobs
from rlhflab.algorithms.record import Backdrop, Record
from rlhflab.live import still
from rlhflab.live.controls import Dials, describe
from rlhflab.live.panels import COLOURS, PANELS, Panel, ghost_series, series_of
from rlhflab.live.player import ENDED, Driver, Player
from rlhflab.runs.buckets import rounded
from rlhflab.runs.history import History

FRAME_INTERVAL = 0.1  # seconds between frames, at least
PICTURE_INTERVAL = 10.0  # seconds between pictures for opening without a kernel
MAX_GHOSTS = 4
_CHUNK = 256_000  # Colab drops binary buffers and limits messages: text in pieces there

_STATIC = Path(__file__).parent / "static"
_boards: weakref.WeakValueDictionary[str, Board] = weakref.WeakValueDictionary()
_boards_lock = threading.Lock()


def static_source(*names: str) -> str:
    """Return the JavaScript or CSS files of live/static as one text."""
    return "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in names)


@functools.cache
def plotly_source() -> bytes:
    """Return the plotly.js of the installed plotly package, gzipped (1.5 MB)."""
    from plotly.offline import get_plotlyjs

    return gzip.compress(get_plotlyjs().encode(), compresslevel=6)


def send_plotly(widget: Any) -> None:
    """Send plotly.js to the page of `widget`: one binary buffer, on Colab pieces of text."""
    source = plotly_source()
    if "google.colab" not in sys.modules:
        widget.send({"op": "plotly"}, buffers=[source])
        return
    text = base64.b64encode(source).decode()
    parts = [text[at : at + _CHUNK] for at in range(0, len(text), _CHUNK)]
    for number, part in enumerate(parts):
        widget.send({"op": "plotly", "part": number, "parts": len(parts), "text": part})


class BoardWidget(anywidget.AnyWidget):
    """The widget behind a board; everything but the picture travels in messages of its own."""

    _esm = f"const BOARD_CSS = {json.dumps(static_source('board.css'))};\n" + static_source(
        "common.js", "board.js"
    )
    _css = """
    .jp-OutputArea:has(.rlhf-host) .rlhf-saved, .cell_container:has(.rlhf-host) .rlhf-saved,
    .rlhf-colab .rlhf-saved { display: none; }
    """
    picture = traitlets.Unicode("").tag(sync=True)
    """An SVG of the newest state, for pages opened without a kernel."""


class Board:
    """A live view of one algorithm; shown where it is the last expression of a cell.

    Args:
        make: builds a fresh algorithm, `lambda: build_dpo(beta=0.3)`; runs on the training thread.
        name: a board with the same name is stopped, closed, and leaves its curves as ghosts on this one.
        title: heading; the name where none is given.
        sinks: called with every record on the training thread, `run.append` for instance.
        ghosts: whether former runs leave faint curves.
        autostart: start at once.
        driver: "auto", "thread", "poll" or "blocking"; see player.py.
        knobs: the algorithm's Knobs class, so that its sliders show before it is built.
        panels: the plots.

    >>> board = Board(lambda: build_dpo(), knobs=DPOKnobs)      # doctest: +SKIP
    >>> board.start()                                           # doctest: +SKIP
    >>> board.set(beta=0.3)                                     # doctest: +SKIP
    """

    def __init__(
        self,
        make: Callable[[], Algorithm],
        name: str = "dpo",
        title: str | None = None,
        sinks: Iterable[Callable[[Record], Any]] = (),
        ghosts: bool = True,
        autostart: bool = False,
        driver: Driver = "auto",
        knobs: type[Knobs] | None = None,
        panels: tuple[Panel, ...] = PANELS,
    ) -> None:
        self.name = name
        self.title = title or name
        self.panels = panels
        self.history = History()
        self._ghosts: list[dict[str, Any]] = []
        self._keep_ghosts = ghosts
        self._series = series_of(panels)
        self._dials = Dials()
        self._view_notice = ""
        self._runs = 0  # resets so far
        self._knobs_seen: Mapping[str, float] = {}
        self._views = 0  # pages that have said hello
        self._shown_at: float | None = None  # when it was put into an output that no page has answered from
        self._setup_time = 0.0
        self._plotly_pushes = 0
        self._draw_seconds = 0.0
        self._backdrop: Backdrop | None = None
        self._setup_sent: Any = None
        self._sent: Any = None
        self._picture_time = 0.0
        self._picture_of: Any = None
        self._display_id: str | None = None
        self._closed = False
        self._wake = threading.Event()
        self._pump_thread: threading.Thread | None = None
        self._lock = threading.Lock()
        with _boards_lock:
            former, _boards[name] = _boards.get(name), self
        if former is not None:
            former.close()
            if ghosts:
                former._leave_ghost()
                self._ghosts = former._ghosts
        self.player = Player(
            make,
            [self.history.add, self._note_knobs, *sinks],
            driver,
            name,
            specs=knobs.specs if knobs is not None else None,
            on_change=self._on_change,
        )
        self.widget = BoardWidget()
        self.widget.on_msg(self._on_message)
        if autostart:
            self.start()

    @classmethod
    def replay(
        cls,
        run: Any,
        backdrop: Backdrop | None = None,
        name: str = "replay",
        title: str | None = None,
        **settings: Any,
    ) -> Board:
        """Return a board that shows a stored run, whole.

        Args:
            run: a `Run` (its records and backdrop are read) or an iterable of records.
            backdrop: the exact truth, where `run` brings none.
            name, title, settings: as for Board.
        """
        records = list(run.records() if hasattr(run, "records") else run)
        if backdrop is None:
            backdrop = getattr(run, "backdrop", None)
        board = cls(lambda: _Stored(records, backdrop), name, title or "stored run", **settings)
        board._backdrop = backdrop
        for record in records:
            board.history.add(record)
        board.player.finish_without_running(_Stored(records, backdrop, step=len(records)))
        return board

    # ---- steering ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, go on after a pause, or start afresh after the end."""
        if self.player.state in ENDED:
            self.reset()
        self.player.start()
        self._settle_if_blocking()

    def pause(self) -> None:
        """Rest after the step under way."""
        self.player.pause()

    def resume(self) -> None:
        """Go on after a pause."""
        self.player.resume()
        self._settle_if_blocking()

    def step(self, steps: int = 1) -> None:
        """Make one step (or `steps`) and rest after it."""
        if self.player.state not in ENDED:
            self.player.step(steps)
            self._settle_if_blocking()

    def stop(self) -> None:
        """End the run."""
        self.player.stop()

    def reset(self) -> None:
        """Stop, throw the algorithm away and begin anew; the curves stay as ghosts, the knobs where they are."""
        self.player.reset()  # first: from here on no record of the former run comes in
        self._leave_ghost()
        self.history.clear()
        self._runs += 1
        self._wake.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the training rests (see Player.wait); raises what the algorithm raised."""
        try:
            return self.player.wait(timeout)
        finally:
            if self.player.state in ENDED:
                self._settle()

    def run(self, timeout: float | None = None) -> bool:
        """Show the board, start, and wait; on Colab this is how to watch it live."""
        self._ipython_display_()
        self.start()
        return self.wait(timeout)

    def set(self, **knobs: float) -> None:
        """Turn knobs: `board.set(beta=0.3)`; raises ValueError in one line where a value is not allowed."""
        for name, value in knobs.items():
            self.player.set_knob(name, value)
            self._dials.moved(name)
        self._view_notice = ""
        self._wake.set()

    def clear_ghosts(self) -> None:
        """Forget the curves of former runs."""
        self._ghosts = []
        self._wake.set()

    def close(self) -> None:
        """Stop the run, join its thread, and close all views."""
        if self._closed:
            return
        self.player.stop()
        self._closed = True
        self._wake.set()
        pump = self._pump_thread
        if pump is not None and pump is not threading.current_thread():
            pump.join(5)
        self.widget.close()

    # ---- looking -----------------------------------------------------------------------------------------------

    @property
    def algorithm(self) -> Algorithm | None:
        """The algorithm in training; None before it is built."""
        return self.player.algorithm

    @property
    def state(self) -> str:
        """idle, preparing, running, paused, stopped, finished or error."""
        return self.player.state

    @property
    def backdrop(self) -> Backdrop | None:
        """The exact frontier, as soon as there is one; it outlives a reset."""
        algorithm = self.player.algorithm
        found = getattr(algorithm, "backdrop", None) if algorithm is not None else None
        if found is not None:
            self._backdrop = found
        return self._backdrop

    def figure(self) -> Any:
        """Return the whole board as a static plotly Figure."""
        return still.figure(self._scene(), title=self.title)

    def frame(self) -> dict[str, Any]:
        """Return the newest state as one message: JSON-able, under 50 kB."""
        player = self.player
        error = player.error
        return {
            "op": "frame",
            "state": "stopping" if player.stopping else player.state,
            "step": player.steps_done,
            "steps": player.steps,
            "rate": rounded(player.rate, 3),
            "left": rounded(player.seconds_left, 3),
            "notice": player.notice or self._view_notice,
            "error": None
            if error is None
            else {"title": f"{type(error).__name__}: {error}"[:600], "traceback": player.traceback},
            "run": self._runs,
            "knobs": self._dials.frame(player.knobs),
            "data": self.history.snapshot(self._series),
        }

    def _scene(self) -> still.Scene:
        knobs = {**self.player.knobs, **self.history.knobs}
        return still.Scene(
            self.panels, self.history.snapshot(self._series), self.backdrop, knobs.get("beta"), self._ghosts
        )

    def _setup(self) -> dict[str, Any]:
        backdrop = self.backdrop
        return {
            "op": "setup",
            "title": self.title,
            "panels": [panel.to_dict() for panel in self.panels],
            "colours": {name: list(pair) for name, pair in COLOURS.items()},
            "controls": describe(self.player.specs),
            "backdrop": None if backdrop is None else _thin_backdrop(backdrop),
            "ghosts": self._ghosts,
            "polled": self.player.driver == "poll",
        }

    def _leave_ghost(self) -> None:
        if not self._keep_ghosts or self.history.records < 2:
            return
        series = {}
        for name in ghost_series(self.panels):
            points = _thin([(b[0], b[2] / b[1]) for b in self.history.curve(name) if b[1]])
            if len(points) > 1:
                series[name] = {"x": [p[0] for p in points], "y": [rounded(p[1], 4) for p in points]}
        trail = _thin([(kl, reward) for _, kl, reward in self.history.trail()])
        if not series and len(trail) < 2:
            return
        beta = self.history.knobs.get("beta")
        ghost = {
            "label": "" if beta is None else f"β {beta:.3g}",
            "series": series,
            "trail": {"kl": [rounded(p[0], 4) for p in trail], "reward": [rounded(p[1], 4) for p in trail]},
        }
        self._ghosts = [*self._ghosts, ghost][-MAX_GHOSTS:]

    def _note_knobs(self, record: Record) -> None:
        """On the training thread: the first record with a turned knob is sent without waiting for its turn."""
        if record.knobs != self._knobs_seen:
            self._knobs_seen = record.knobs
            self._wake.set()

    # ---- the pump ----------------------------------------------------------------------------------------------

    def _on_change(self) -> None:
        """Called by the player after a change of state, from any thread."""
        self._wake.set()
        with self._lock:
            if self._pump_thread is None and not self._closed and self.player.driver != "blocking":
                self._pump_thread = threading.Thread(
                    target=self._pump, name=f"rlhflab-{self.name}-pump", daemon=True
                )
                self._pump_thread.start()

    def _pump(self) -> None:
        """Send what is new, not more often than the page can draw; sleep while nothing moves."""
        while True:
            moving = self.player.state in ("running", "preparing")
            # the page rests between draws too, so that they take a third of its time
            interval = max(FRAME_INTERVAL, 1.5 * self._draw_seconds) if self._views else 0.3
            watched = self._views or self._shown_at is not None
            self._wake.wait(interval - FRAME_INTERVAL if moving and watched else None)
            self._wake.clear()
            if self._closed:
                return
            try:
                self._send_news()
            except Exception as error:  # a view that cannot be drawn must not end the training
                self._view_notice = f"The view could not be updated: {type(error).__name__}: {error}"
            time.sleep(FRAME_INTERVAL)  # never more than ten a second, whatever wakes this thread

    def _send_news(self) -> None:
        state = self.player.state
        if not self._views:
            self._push_to_silent_page()
        if self._views or self._shown_at is not None:
            self._send_setup_if_new()
            notice = self.player.notice or self._view_notice
            mark = (
                self.history.records,
                state,
                self.player.stopping,
                self.player.knobs,
                notice,
                self.player.rate,
            )
            if mark != self._sent or not self._views:
                self._sent = mark
                self.widget.send(self.frame())
        if state in ENDED:
            self._settle()
        elif state == "paused" or time.monotonic() - self._picture_time > PICTURE_INTERVAL:
            self._take_picture()

    def _push_to_silent_page(self) -> None:
        """Where cells run one after the other, a page cannot ask for anything: send it what it needs unasked."""
        if self._shown_at is None:
            return
        now = time.monotonic()
        if now - self._setup_time > 1.5:
            self._setup_sent = None
        if self._plotly_pushes < 3 and now - self._shown_at > (0.8, 4.0, 12.0)[self._plotly_pushes]:
            self._plotly_pushes += 1
            send_plotly(self.widget)

    def _send_setup_if_new(self) -> None:
        mark = (id(self.backdrop), tuple(self.player.specs), id(self._ghosts))
        # Again every few seconds: a page opened again may have lost its hello.
        if mark != self._setup_sent or time.monotonic() - self._setup_time > 4:
            self._setup_sent = mark
            self._setup_time = time.monotonic()
            self.widget.send(self._setup())

    def _take_picture(self) -> None:
        """Put a small picture into the widget's state: what a page without a kernel shows."""
        with self._lock:
            mark = (self.history.records, self.player.state)
            self._picture_time = time.monotonic()
            if mark == self._picture_of or not self.history.records or self._closed:
                return
            self._picture_of = mark
        self.widget.picture = still.svg(self._scene(), title=f"{self.title} · step {self.history.step}")

    def _settle(self) -> None:
        """After the end: leave a picture, in the widget's state and in the notebook's output."""
        self._take_picture()
        with self._lock:
            display_id, self._display_id = self._display_id, None
        if display_id is not None and self.history.records:
            from IPython.display import update_display

            update_display({"text/html": self._saved_html()}, display_id=display_id, raw=True)

    def _settle_if_blocking(self) -> None:
        if self.player.driver == "blocking" and self.player.state in (*ENDED, "paused"):
            self._settle()

    # ---- the page ----------------------------------------------------------------------------------------------

    def _on_message(self, _widget: Any, content: Mapping[str, Any], _buffers: Any) -> None:
        """A message from the page; may come on the main thread or on a subshell's, and must return soon."""
        op = content.get("op")
        if op == "hello":
            self._views += 1
            self._shown_at = None
            self._draw_seconds = 0.0
            self._on_change()
            self.widget.send(self._setup())
            self.widget.send(self.frame())
        elif op == "plotly":
            threading.Thread(target=send_plotly, args=(self.widget,), daemon=True).start()
        elif op == "draw":
            self._draw_seconds = min(1.0, max(0.0, float(content.get("ms", 0)) / 1000))
        elif op == "knob":
            self._on_knob(str(content.get("name")), content.get("value"), str(content.get("view")))
        elif op == "clear_ghosts":
            self.clear_ghosts()
        elif op == "do":
            self._on_button(str(content.get("what")))

    def _on_knob(self, name: str, value: Any, view: str) -> None:
        try:
            self.player.set_knob(name, value)
            self._view_notice = ""
        except ValueError as error:
            self._view_notice = str(error)
        self._dials.moved(name, by=view)
        self._wake.set()

    def _on_button(self, what: str) -> None:
        if what == "stop":
            self.player.request_stop()
            self._wake.set()
        elif what in ("start", "pause", "resume", "step", "reset"):
            action = getattr(self, what)
            if self.player.driver == "blocking" or what in ("pause", "resume"):
                action()
            else:  # a reset may have to wait for a thread: not on the kernel's
                threading.Thread(target=action, daemon=True).start()

    # ---- display -----------------------------------------------------------------------------------------------

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget; and for front ends without widgets a static figure, once there is something to see."""
        bundle = self.widget._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        data = {**data, "text/plain": repr(self)}
        if self.history.records:
            data["application/vnd.plotly.v1+json"] = json.loads(self.figure().to_json())
            data["text/html"] = self._repr_html_()
        return data, metadata

    def _repr_html_(self) -> str:
        picture = still.svg(self._scene(), title=f"{self.title} · step {self.history.step}")
        encoded = base64.b64encode(picture.encode()).decode()
        return f'<img alt="board" style="max-width:100%" src="data:image/svg+xml;base64,{encoded}">'

    def _saved_html(self) -> str:
        """The picture for whoever opens the notebook later; hidden while the live board is there (see _css)."""
        return f'<div class="rlhf-saved">{self._repr_html_() if self.history.records else ""}</div>'

    def _ipython_display_(self, **_: Any) -> None:
        from IPython.display import display

        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True)
        if not self._views:
            self._shown_at = time.monotonic()
            self._on_change()
        display_id = uuid.uuid4().hex
        display({"text/html": self._saved_html()}, display_id=display_id, raw=True)
        if self.player.state not in ENDED:
            self._display_id = display_id

    def __repr__(self) -> str:
        player = self.player
        return f"Board({self.name!r}, {player.state}, step {player.steps_done} of {player.steps or '?'})"


class _Stored:
    """A stored run as an algorithm: its records, one after the other."""

    name = "stored"

    def __init__(self, records: list[Record], backdrop: Backdrop | None, step: int = 0) -> None:
        self.steps = len(records)
        self.step = step
        self.knobs = Knobs()
        self.backdrop = backdrop
        self._records = records

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        if self.step >= self.steps:
            raise StopIteration
        self.step += 1
        return self._records[self.step - 1]

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = int(state["step"])


def _thin(points: list[tuple[float, float]], limit: int = 60) -> list[tuple[float, float]]:
    """Return at most `limit` of the points, evenly chosen, the last one included."""
    if len(points) <= limit:
        return points
    return [points[round(i * (len(points) - 1) / (limit - 1))] for i in range(limit)]


def _thin_backdrop(backdrop: Backdrop) -> dict[str, Any]:
    """Return the frontier as the page needs it: ascending β, at most 200 points, 5 digits."""
    n = len(backdrop.beta)
    step = max(1, -(-n // 200))
    chosen = sorted({*range(0, n, step), n - 1})
    data: dict[str, Any] = {
        name: [rounded(getattr(backdrop, name)[i]) for i in chosen]
        for name in ("beta", "kl", "reward", "objective")
    }
    if any(b <= a for a, b in pairwise(backdrop.beta)):
        raise ValueError("a backdrop's beta must ascend")
    data["ref_reward"] = rounded(backdrop.ref_reward)
    return data
