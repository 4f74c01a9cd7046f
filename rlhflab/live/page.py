"""The pages that show a board: one widget, and a pump that sends them setup, frames, pictures and plotly.js.

A pump thread sends at most ten frames a second, fewer if the page needs longer to draw; frames are stateless, so
missed ones do not matter. The page draws with plotly.js, which it gets once from the installed plotly
package. Nothing here waits for the page, and the training thread never writes to the view.
"""

from __future__ import annotations

import base64
import functools
import gzip
import threading
import time
import uuid
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import traitlets

from rlhflab.core.record import Backdrop, Record
from rlhflab.live.colab import in_colab
from rlhflab.live.player import ENDED, Player
from rlhflab.plots.buckets import evenly, rounded
from rlhflab.plots.history import History
from rlhflab.widget import PageWidget, page_module

FRAME_INTERVAL = 0.1  # seconds between frames, at least
PICTURE_INTERVAL = 10.0  # seconds between pictures for opening without a kernel
_CHUNK = 256_000  # Colab drops binary buffers and limits message size: text in chunks there


@functools.cache
def plotly_source() -> bytes:
    """Return the plotly.js of the installed plotly package, gzipped (1.5 MB)."""
    from plotly.offline import get_plotlyjs

    return gzip.compress(get_plotlyjs().encode(), compresslevel=6)


def send_plotly(widget: Any) -> None:
    """Send plotly.js to the page of `widget`: one binary buffer, or chunks of text on Colab."""
    source = plotly_source()
    if not in_colab():
        widget.send({"op": "plotly"}, buffers=[source])
        return
    text = base64.b64encode(source).decode()
    parts = [text[at : at + _CHUNK] for at in range(0, len(text), _CHUNK)]
    for number, part in enumerate(parts):
        widget.send({"op": "plotly", "part": number, "parts": len(parts), "text": part})


def thin_backdrop(backdrop: Backdrop) -> dict[str, Any]:
    """Return the frontier as the page needs it: ascending β, at most 200 points, 5 digits."""
    chosen = evenly(range(len(backdrop.beta)), 200)
    data: dict[str, Any] = {
        name: [rounded(getattr(backdrop, name)[i]) for i in chosen]
        for name in ("beta", "kl", "reward", "objective", *(("reward_se",) if backdrop.reward_se else ()))
    }
    if any(b <= a for a, b in pairwise(backdrop.beta)):
        raise ValueError("a backdrop's beta must ascend")
    data["ref_reward"] = rounded(backdrop.ref_reward)
    return data


class Shown(Protocol):
    """What a page needs of a board; see `board.Board`."""

    name: str
    notice: str
    history: History
    player: Player

    @property
    def state(self) -> str: ...
    def setup(self) -> dict[str, Any]: ...
    def setup_mark(self) -> Any: ...
    def frame(self) -> dict[str, Any]: ...
    def picture(self) -> str: ...
    def turn(self, name: str, value: Any, by: str) -> None: ...
    def pick(self, name: str, at: Any) -> None: ...
    def press(self, what: str) -> None: ...
    def clear_ghosts(self) -> None: ...
    def _repr_html_(self) -> str: ...
    def _repr_mimebundle_(self) -> Any: ...


class BoardWidget(PageWidget):
    """The widget behind a board; everything but the picture is sent in custom messages."""

    _esm = page_module(Path(__file__).parent / "static" / "board.js")
    _css = """
    .jp-OutputArea:has(.rlhf-board-host) .rlhf-saved, .cell_container:has(.rlhf-board-host) .rlhf-saved,
    .rlhf-colab .rlhf-saved { display: none; }
    """
    picture = traitlets.Unicode("").tag(sync=True)
    """An SVG of the newest state, for pages opened without a kernel."""


class Page:
    """All pages on which a board is open, and the saved picture for when none is.

    Args:
        board: what is shown; its setup, frames and pictures are made when they are sent.
    """

    def __init__(self, board: Shown) -> None:
        self.widget = BoardWidget()
        self._board = board
        self._views = 0  # pages that have said hello
        self._shown_at: float | None = None  # when it was put into an output; None once a page has answered
        self._knobs_seen: Mapping[str, float] = {}
        self._setup_sent: Any = None
        self._setup_time = 0.0
        self._sent: Any = None
        self._plotly_pushes = 0
        self._draw_seconds = 0.0
        self._picture_of: Any = None
        self._picture_time = 0.0
        self._display_id: str | None = None
        self._closed = False
        self._wake = threading.Event()
        self._pump_thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.widget.on_msg(self._on_message)

    # ---- called by the board -----------------------------------------------------------------------------------

    def wake(self) -> None:
        """Send what is new without waiting for its turn; returns at once."""
        self._wake.set()

    def on_change(self) -> None:
        """The player's state has changed: send it from our own thread. May be called from any thread."""
        self._wake.set()
        with self._lock:
            if self._pump_thread is None and not self._closed and self._board.player.driver != "blocking":
                self._pump_thread = threading.Thread(
                    target=self._pump, name=f"rlhflab-{self._board.name}-pump", daemon=True
                )
                self._pump_thread.start()

    def on_record(self, record: Record) -> None:
        """On the training thread: the first record with a changed knob is sent without waiting for its turn."""
        if record.knobs != self._knobs_seen:
            self._knobs_seen = record.knobs
            self._wake.set()

    def display(self) -> None:
        """Put the board into the output of the running cell, with a placeholder for the saved picture below it."""
        from IPython.display import display

        data, metadata = self._board._repr_mimebundle_()
        display(data, metadata=metadata, raw=True)
        if not self._views:
            self._shown_at = time.monotonic()
            self.on_change()
        display_id = uuid.uuid4().hex
        display({"text/html": self._saved_html()}, display_id=display_id, raw=True)
        if self._board.state not in ENDED:
            self._display_id = display_id

    def settle(self) -> None:
        """After the end, leave a picture in the widget's state and in the notebook's output."""
        self._take_picture()
        with self._lock:
            display_id, self._display_id = self._display_id, None
        if display_id is not None and self._board.history.records:
            from IPython.display import update_display

            update_display({"text/html": self._saved_html()}, display_id=display_id, raw=True)

    def close(self) -> None:
        """Join the pump and close all views."""
        self._closed = True
        self._wake.set()
        pump = self._pump_thread
        if pump is not None and pump is not threading.current_thread():
            pump.join(5)
        self.widget.close()

    # ---- the pump ----------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send what is new, no more often than the page can draw; sleep while nothing changes."""
        while True:
            moving = self._board.state in ("running", "preparing")
            # the page also rests between draws, so that they take a third of its time
            interval = max(FRAME_INTERVAL, 1.5 * self._draw_seconds) if self._views else 0.3
            watched = self._views or self._shown_at is not None
            self._wake.wait(interval - FRAME_INTERVAL if moving and watched else None)
            self._wake.clear()
            if self._closed:
                return
            try:
                self._send_news()
            except Exception as error:  # a view that cannot be drawn must not end the training
                self._board.notice = f"The view could not be updated: {type(error).__name__}: {error}"
            time.sleep(FRAME_INTERVAL)  # never more than ten a second, whatever wakes this thread

    def _send_news(self) -> None:
        board, player = self._board, self._board.player
        state = player.state
        if not self._views:
            self._push_to_silent_page()
        if self._views or self._shown_at is not None:
            self._send_setup_if_new()
            notice = player.notice or board.notice
            states = (state, player.stopping, player.awaited, player.heard)
            mark = (board.history.records, states, player.knobs, notice, player.rate)
            if mark != self._sent or not self._views:
                self._sent = mark
                self.widget.send(board.frame())
        if state in ENDED:
            self.settle()
        elif state == "paused" or time.monotonic() - self._picture_time > PICTURE_INTERVAL:
            self._take_picture()

    def _push_to_silent_page(self) -> None:
        """While a cell blocks the kernel, a page cannot ask for anything: send it what it needs unasked."""
        if self._shown_at is None:
            return
        now = time.monotonic()
        if now - self._setup_time > 1.5:
            self._setup_sent = None
        if self._plotly_pushes < 3 and now - self._shown_at > (0.8, 4.0, 12.0)[self._plotly_pushes]:
            self._plotly_pushes += 1
            send_plotly(self.widget)

    def _send_setup_if_new(self) -> None:
        mark = self._board.setup_mark()
        # Again every few seconds: the hello of a reopened page may have been lost.
        if mark != self._setup_sent or time.monotonic() - self._setup_time > 4:
            self._setup_sent = mark
            self._setup_time = time.monotonic()
            self.widget.send(self._board.setup())

    def _take_picture(self) -> None:
        """Put a small picture into the widget's state: what a page without a kernel shows."""
        history = self._board.history
        with self._lock:
            mark = (history.records, self._board.state)
            self._picture_time = time.monotonic()
            if mark == self._picture_of or not history.records or self._closed:
                return
            self._picture_of = mark
        self.widget.picture = self._board.picture()

    def _saved_html(self) -> str:
        """The picture shown when the notebook is opened later; hidden while the live board is there (see _css)."""
        return f'<div class="rlhf-saved">{self._board._repr_html_() if self._board.history.records else ""}</div>'

    # ---- messages ----------------------------------------------------------------------------------------------

    def _on_message(self, _widget: Any, content: Mapping[str, Any], _buffers: Any) -> None:
        """Handle a message from the page; may run on the main thread or a subshell's, and must return quickly."""
        op = content.get("op")
        self._board.player.hear()
        if op == "hello":
            self._views += 1
            self._shown_at = None
            self._draw_seconds = 0.0
            self.on_change()
            self.widget.send(self._board.setup())
            self.widget.send(self._board.frame())
        elif op == "plotly":
            threading.Thread(target=send_plotly, args=(self.widget,), daemon=True).start()
        elif op == "draw":
            self._draw_seconds = min(1.0, max(0.0, float(content.get("ms", 0)) / 1000))
        elif op == "knob":
            self._board.turn(str(content.get("name")), content.get("value"), by=str(content.get("view")))
        elif op == "choose":
            self._board.pick(str(content.get("name")), content.get("at"))
        elif op == "clear_ghosts":
            self._board.clear_ghosts()
        elif op == "do":
            self._board.press(str(content.get("what")))
