"""The board: a live, steerable view of an algorithm in training, in any notebook.

A `Board` joins a `Player` (which trains), a `History` (which remembers in flat memory) and a `Page` (which sends what
is new to the browser). What it says to a page is plain data: `setup` once, `frame` again and again.
"""

from __future__ import annotations

import base64
import json
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhflab.core.algorithm import Algorithm
from rlhflab.core.knobs import Knobs
from rlhflab.core.record import Backdrop, Record
from rlhflab.live.colab import in_colab
from rlhflab.live.controls import Choice, Dials, Form, describe
from rlhflab.live.ghosts import MAX_GHOSTS, ghost_of
from rlhflab.live.page import Page, thin_backdrop
from rlhflab.live.player import ENDED, Driver, Player
from rlhflab.live.replay import StoredRun
from rlhflab.live.sources import Source, choices_of, source_of
from rlhflab.plots import paper, still, svg
from rlhflab.plots.buckets import rounded
from rlhflab.plots.history import History
from rlhflab.plots.marks import Scene
from rlhflab.plots.panel import COLOURS, Panel, arrays_of, series_of
from rlhflab.plots.panels import panels_of, stored_name
from rlhflab.remedies import headline

_boards: weakref.WeakValueDictionary[str, Board] = weakref.WeakValueDictionary()
_boards_lock = threading.Lock()


class Board:
    """A live view of one algorithm; displayed as the last expression of a cell.

    Args:
        source: a recipe, `recipes.DPO(beta=0.3)`; a function that builds a fresh algorithm, or an iterator of records;
            or a keeper of a recipe's runs, see `runs.kept`. It is built on the training thread, with the chosen values
            of `choices`.
        name: by default the algorithm's. A board with the same name is stopped and closed; if it shows the same
            algorithm, it leaves its curves as ghosts on this one.
        title: heading; by default the recipe's title, or the name.
        sinks: called with every record on the training thread, `run.append` for instance.
        ghosts: whether earlier runs leave faint curves.
        autostart: start at once.
        driver: "auto", "thread", "poll" or "blocking"; see player.py.
        knobs: the knobs, if no recipe declares them, so that their sliders show before the algorithm is built.
        panels: the plots; by default the algorithm's own `panels`, if it has any, those of its name, or general ones
            for whatever its records hold.
        choices: settings that cannot change during a training, shown as a form above the board: another choice builds
            a new training. Name → options; the form's labels come from the recipe.

    >>> board = Board(recipes.DPO(beta=1.0, pairs=2000))        # doctest: +SKIP
    >>> board.start()                                           # doctest: +SKIP
    >>> board.set(beta=0.3)                                     # doctest: +SKIP
    """

    def __init__(
        self,
        source: Any,
        name: str | None = None,
        title: str | None = None,
        sinks: Iterable[Callable[[Record], Any]] = (),
        ghosts: bool = True,
        autostart: bool = False,
        driver: Driver = "auto",
        knobs: type[Knobs] | Knobs | None = None,
        panels: tuple[Panel, ...] | None = None,
        choices: Mapping[str, Choice | Sequence[Any]] | None = None,
    ) -> None:
        shown = source_of(source, knobs)
        recipe, self._algorithm_name = shown.recipe, shown.name
        self.name = name or self._algorithm_name or "board"
        self.title = title or (recipe.title if recipe else self.name)
        self._panels = panels  # those that were given
        self._own_panels: tuple[Panel, ...] = ()  # the algorithm's own
        self._shown_panels: tuple[Panel, ...] = ()
        specs = recipe.specs() if recipe else knobs.specs if knobs is not None else None
        self.history = History()
        for record in shown.before:
            self.history.add(record)
        self._ghosts: list[dict[str, Any]] = []
        self._keep_ghosts = ghosts
        self._dials = Dials()
        self._form = Form(choices_of(recipe, choices or {}))
        self._built_as: list[str] = []  # the choices behind the run that is shown, in words
        self.notice = ""
        """One line for the user: why a knob's value was rejected, or what is wrong with the view."""
        self._runs = 0  # resets so far
        self._backdrop: Backdrop | None = None
        self._closed = False
        self._page = Page(self)

        def build() -> Algorithm:
            self._built_as = self._form.words()
            algorithm = shown.make(**self._form.chosen)
            self._algorithm_name = getattr(algorithm, "name", "")
            self._own_panels = tuple(getattr(algorithm, "panels", ()))
            return algorithm

        with _boards_lock:
            former, _boards[self.name] = _boards.get(self.name), self
        if former is not None:
            former.close()
            if ghosts:
                former._leave_ghost()
                self._ghosts = former._ghosts
        self.player = Player(
            build,
            [self.history.add, self._page.on_record, *shown.sinks, *sinks],
            driver,
            self.name,
            specs=specs,
            on_change=self._page.on_change,
        )
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
        """Return a board that shows a stored run, complete.

        Args:
            run: a `Run` (its records and backdrop are read) or an iterable of records.
            backdrop: the frontier, if `run` has none.
            name, title, settings: as for Board; the panels are those of the run's algorithm, or general ones if it is
                unknown.
        """
        records = list(run.records() if hasattr(run, "records") else run)
        if backdrop is None:
            backdrop = getattr(run, "backdrop", None)

        def make(step: int = 0) -> StoredRun:
            return StoredRun(records, backdrop, board._algorithm_name, step)

        board = cls(Source(make, before=records), name, title or "stored run", **settings)
        board._backdrop = backdrop
        board._algorithm_name = stored_name(getattr(run, "config", {}).get("algorithm", ""), board.history)
        board.player.finish_without_running(make(len(records)))
        return board

    # ---- steering ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, continue after a pause, or start afresh after the end."""
        if self.player.state in ENDED:
            self.reset()
        self.player.start()
        self._settle_if_blocking()

    def pause(self) -> None:
        """Pause after the current step."""
        self.player.pause()

    def resume(self) -> None:
        """Continue after a pause, or after an error from the last complete update; see `Player.resume`."""
        self.player.resume()
        self._settle_if_blocking()

    def step(self, steps: int = 1) -> None:
        """Make one step (or `steps`), then pause."""
        if self.player.state not in ENDED:
            self.player.step(steps)
            self._settle_if_blocking()

    def stop(self) -> None:
        """End the run."""
        self.player.stop()

    def reset(self) -> None:
        """Stop, discard the algorithm and begin anew; the curves stay as ghosts, the knobs keep their values."""
        self.player.reset()  # first: after this no record of the old run can come in
        self._leave_ghost()
        self.history.clear()
        self._runs += 1
        self._page.wake()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the training ends; a pause from the page does not count (see Player.wait). Raises its error."""
        try:
            return self.player.wait(timeout)
        finally:
            if self.player.state in ENDED:
                self._page.settle()

    def run(self, timeout: float | None = None) -> bool:
        """Show the board, start, and wait; on Colab this is how to watch it live."""
        self._ipython_display_()
        self.start()
        return self.wait(timeout)

    def set(self, **knobs: float) -> None:
        """Set knobs: `board.set(beta=0.3)`; raises ValueError in one line if a value is not allowed."""
        for name, value in knobs.items():
            self.player.set_knob(name, value)
            self._dials.moved(name)
        self.notice = ""
        self._page.wake()

    def choose(self, **choices: Any) -> None:
        """Choose settings, `board.choose(ranked=4)`: a training already under way starts over with them.

        Raises:
            ValueError: a value that is not among the options, in one line.
        """
        self._form.choose(**choices)
        if self.player.state != "idle":
            self.reset()
            self.start()
        self._page.wake()

    def clear_ghosts(self) -> None:
        """Forget the curves of earlier runs."""
        self._ghosts = []
        self._page.wake()

    def close(self) -> None:
        """Stop the run, join its thread, release its algorithm, and close all views; a picture stays in their place."""
        if self._closed:
            return
        self.player.stop()
        self._page.settle()
        self.player.forget()  # notebooks remember boards that they have shown, and models are large
        self._closed = True
        self._page.close()

    def _settle_if_blocking(self) -> None:
        if self.player.driver == "blocking" and self.player.state in (*ENDED, "paused"):
            self._page.settle()

    # ---- looking -----------------------------------------------------------------------------------------------

    @property
    def widget(self) -> Any:
        """The widget that shows the board, for custom layouts."""
        return self._page.widget

    @property
    def algorithm(self) -> Algorithm | None:
        """The algorithm in training; None before it is built."""
        return self.player.algorithm

    @property
    def state(self) -> str:
        """idle, preparing, running, paused, stopped, finished or error."""
        return self.player.state

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The plots: those given, or the algorithm's, or general ones; they survive a reset."""
        panels = self._panels or self._own_panels or panels_of(self._algorithm_name, self.history)
        self._shown_panels = tuple(panel for panel in panels if not panel.report_only) or self._shown_panels
        return self._shown_panels

    @property
    def backdrop(self) -> Backdrop | None:
        """The frontier, as soon as there is one; it survives a reset."""
        algorithm = self.player.algorithm
        found = getattr(algorithm, "backdrop", None) if algorithm is not None else None
        if found is not None:
            self._backdrop = found
        return self._backdrop

    def figure(self) -> Any:
        """Return the whole board as a static plotly Figure."""
        return still.figure(self._scene(), title=self.title)

    def picture(self) -> str:
        """Return the whole board as an SVG of at most about 20 kB."""
        return svg.picture(self._scene(), title=f"{self.title} · step {self.history.step}")

    def save_figure(self, path: str | Path, panels: Sequence[str] = (), title: str = "") -> Path:
        """Write the plots as an SVG or a PDF for a paper, by the suffix of `path`; `panels` selects some by their ids.

        Raises:
            ValueError: another suffix, no such panel, nothing to draw yet, or a PDF without matplotlib; in one line.
        """
        return paper.save_figure(self._scene(), path, panels, title)

    def _scene(self) -> Scene:
        knobs = {**self.player.knobs, **self.history.knobs}
        return Scene(self.panels, self._snapshot(), self.backdrop, knobs.get("beta"), self.ghosts)

    def _snapshot(self) -> dict[str, Any]:
        panels = self.panels
        return self.history.snapshot(series_of(panels), arrays=arrays_of(panels))

    @property
    def ghosts(self) -> list[dict[str, Any]]:
        """The curves of earlier runs of this algorithm, oldest first."""
        return [ghost for ghost in self._ghosts if ghost["algorithm"] == self._algorithm_name]

    def _leave_ghost(self) -> None:
        if not self._keep_ghosts:
            return
        ghost = ghost_of(self.history, self.panels, self._algorithm_name, self._built_as)
        if ghost is not None:
            self._ghosts = [*self._ghosts, ghost][-MAX_GHOSTS:]

    # ---- what a page is told, and what it asks for --------------------------------------------------------------

    def frame(self) -> dict[str, Any]:
        """Return the newest state as one message: JSON-serialisable, under 50 kB."""
        player = self.player
        error = player.error
        return {
            "op": "frame",
            "state": "stopping" if player.stopping else player.state,
            "awaited": player.awaited,
            "heard": player.heard,
            "step": player.steps_done,
            "steps": player.steps,
            "rate": rounded(player.rate, 3),
            "left": rounded(player.seconds_left, 3),
            "notice": player.notice or self.notice,
            "error": None
            if error is None
            else {"title": headline(error)[:600], "traceback": player.traceback},
            "run": self._runs,
            "choices": self._form.places(),
            "knobs": self._dials.frame(player.knobs),
            "data": self._snapshot(),
        }

    def setup(self) -> dict[str, Any]:
        """Return what a page needs before it can draw frames, as one message: JSON-serialisable, under 50 kB."""
        backdrop = self.backdrop
        return {
            "op": "setup",
            "title": self.title,
            "panels": [panel.to_dict() for panel in self.panels],
            "colours": {name: list(pair) for name, pair in COLOURS.items()},
            "controls": describe(self.player.specs),
            "choices": self._form.describe(),
            "backdrop": None if backdrop is None else thin_backdrop(backdrop),
            "ghosts": self.ghosts,
            "polled": in_colab(),
        }

    def setup_mark(self) -> Any:
        """Return a value that changes when `setup` does and is cheap to compare."""
        return self.backdrop, self.player.specs, self.ghosts, self.panels

    def turn(self, name: str, value: Any, by: str) -> None:
        """Set a knob from the page `by`; a value that is not allowed changes nothing and leaves a notice."""
        try:
            self.player.set_knob(name, value)
            self.notice = ""
        except ValueError as error:
            self.notice = str(error)
        self._dials.moved(name, by=by)
        self._page.wake()

    def pick(self, name: str, at: Any) -> None:
        """Choose an option by its index, from a page; returns quickly."""
        options = self._form.options(name)
        if isinstance(at, int) and 0 <= at < len(options):
            self._later(lambda: self.choose(**{name: options[at]}))

    def press(self, what: str) -> None:
        """Do what a button says: start, pause, resume, step, stop or reset; returns quickly in any case."""
        if what == "stop":
            self.player.request_stop()
            self._page.wake()
        elif what in ("start", "pause", "resume", "step", "reset"):
            action = getattr(self, what)
            if what in ("pause", "resume"):
                action()
            else:
                self._later(action)

    def _later(self, action: Callable[[], None]) -> None:
        """Run in another thread: a reset may have to wait, and must not block the kernel's thread."""
        if self.player.driver == "blocking":
            action()
        else:
            threading.Thread(target=action, daemon=True).start()

    # ---- display -----------------------------------------------------------------------------------------------

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget, and a static figure for front ends without widgets, once there is something to see."""
        bundle = self.widget._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        data = {**data, "text/plain": repr(self)}
        if self.history.records:
            data["application/vnd.plotly.v1+json"] = json.loads(self.figure().to_json())
            data["text/html"] = self._repr_html_()
        return data, metadata

    def _repr_html_(self) -> str:
        encoded = base64.b64encode(self.picture().encode()).decode()
        return f'<img alt="board" style="max-width:100%" src="data:image/svg+xml;base64,{encoded}">'

    def _ipython_display_(self, **_: Any) -> None:
        self._page.display()

    def __repr__(self) -> str:
        player = self.player
        return f"Board({self.name!r}, {player.state}, step {player.steps_done} of {player.steps or '?'})"
