"""The player: runs any algorithm to its end, one step at a time, while others watch and change its knobs.

One loop, three drivers. `thread`: the steps run in a daemon thread, so cells and sliders stay responsive. `poll`: the
same thread, and a waiting cell takes the messages of buttons and sliders out of the queue behind it. `blocking`
(headless runs, tests): the steps run in the caller. `auto` (the default) is thread until a cell has waited for a
second without hearing from the page, then poll; later messages may switch it back. On Colab, where no message gets
through while a cell runs, it starts with poll. The environment variable RLHFLAB_DRIVER overrides the choice.

Left out on purpose: printing, plotting, files. A player knows an algorithm, some sinks for its records, and a
mailbox for its knobs.
"""

from __future__ import annotations

import collections
import os
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal

from rlhflab.core.algorithm import Algorithm
from rlhflab.core.knobs import Knob
from rlhflab.core.record import Record
from rlhflab.live.colab import in_colab
from rlhflab.live.comms import answer_widgets
from rlhflab.oom import out_of_memory
from rlhflab.remedies import OneLine

State = Literal["idle", "preparing", "running", "paused", "stopped", "finished", "error"]
Driver = Literal["auto", "thread", "poll", "blocking"]
Heard = Literal["", "directly", "polled"]

ENDED = ("stopped", "finished", "error")
"""States in which no step follows until the player is started again."""

UNHEARD = 1.0
"""Seconds that a cell waits to hear from the page before it polls."""

_DRIVERS = ("auto", "thread", "poll", "blocking")
_registry: weakref.WeakValueDictionary[str, Player] = weakref.WeakValueDictionary()
_registry_lock = threading.Lock()


def choose_driver(driver: str = "auto") -> str:
    """Return the initial driver: RLHFLAB_DRIVER if set, else `driver`; "auto" is poll on Colab, otherwise thread."""
    chosen = _wanted(driver)
    if chosen == "auto":
        return "poll" if in_colab() else "thread"
    return chosen


def _wanted(driver: str) -> str:
    wanted = os.environ.get("RLHFLAB_DRIVER") or driver
    if wanted not in _DRIVERS:
        raise ValueError(f"driver must be one of {', '.join(_DRIVERS)}, got {wanted!r}")
    return wanted


class Player:
    """Runs the algorithm that `make` builds.

    Args:
        make: builds a fresh algorithm; may take seconds, during which the state is "preparing".
        sinks: called with every record, on the training thread, in this order; an exception there stops the run. If a
            sink has a method `failed`, it is called with the error that stopped the run.
        driver: "auto", "thread", "poll" or "blocking".
        name: a running player with the same name is stopped and joined.
        specs: the knobs' specifications, if they are known before the algorithm is built.
        on_change: called without arguments after every change of state, from any thread; must return at once.
    """

    def __init__(
        self,
        make: Callable[[], Algorithm],
        sinks: Iterable[Callable[[Record], Any]] = (),
        driver: Driver = "auto",
        name: str | None = None,
        specs: Mapping[str, Knob] | None = None,
        on_change: Callable[[], Any] | None = None,
    ) -> None:
        self.driver = choose_driver(driver)
        self.heard: Heard = ""
        """How the page last reached the kernel while a cell waited: "directly", "polled" by the cell, or not yet."""
        self.name = name
        self.algorithm: Algorithm | None = None
        self.record: Record | None = None
        self.error: BaseException | None = None
        self.traceback = ""
        self.notice = ""
        """One line for the user: why a knob's value was rejected."""
        self._automatic = _wanted(driver) == "auto"
        self._make = make
        self._sinks = tuple(sinks)
        self._specs: dict[str, Knob] = dict(specs or {})
        self._on_change = on_change or (lambda: None)
        self._changed = threading.Condition()
        self._state: State = "idle"
        self._thread: threading.Thread | None = None
        self._stopping = self._pausing = self._resetting = False
        self._single_steps = self._generation = 0
        self._waiting: list[threading.Thread] = []  # those blocked in `wait`
        self._wanted: dict[str, float] = {}  # every knob that was set, for the next algorithm too
        self._mailbox: dict[str, float] = {}  # newest value per knob, not yet taken by the training thread
        self._marks: collections.deque[float] = collections.deque(maxlen=200)
        if name is not None:
            with _registry_lock:
                former, _registry[name] = _registry.get(name), self
            if former is not None:
                former.stop()

    # ---- what can be seen --------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """idle, preparing, running, paused, stopped, finished or error."""
        return self._state

    @property
    def steps_done(self) -> int:
        """Updates made so far."""
        algorithm = self.algorithm  # read once: a reset may take it away at any time
        return algorithm.step if algorithm is not None else 0

    @property
    def steps(self) -> int:
        """Total number of updates; 0 while unknown."""
        algorithm = self.algorithm
        return algorithm.steps if algorithm is not None else 0

    @property
    def rate(self) -> float:
        """Steps per second over the last steps; 0 while nothing runs."""
        marks = list(self._marks)
        if self._state != "running" or len(marks) < 2:
            return 0.0
        return (len(marks) - 1) / max(1e-9, max(marks[-1], time.perf_counter() - 0.5) - marks[0])

    @property
    def seconds_left(self) -> float | None:
        """Estimated time to the end; None while unknown."""
        rate = self.rate
        return (self.steps - self.steps_done) / rate if rate > 0 and self.steps else None

    @property
    def specs(self) -> dict[str, Knob]:
        """The knobs' specifications: the algorithm's, or those given before it is built."""
        algorithm = self.algorithm
        return dict(algorithm.knobs.specs if algorithm is not None else self._specs)

    @property
    def knobs(self) -> dict[str, float]:
        """The value of every known knob, as it will be in force at the next step."""
        with self._changed:
            if self.algorithm is not None:
                return {**self.algorithm.knobs.snapshot(), **self._mailbox}
            return {**{name: spec.default for name, spec in self._specs.items()}, **self._wanted}

    # ---- what can be done --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, or continue after a pause; after the end nothing happens until `reset`. Driver "blocking" blocks."""
        self._go(pausing=False)

    def resume(self) -> None:
        """Continue after a pause, or after an error from the last complete update, if that is still in memory.

        Does nothing if nothing has started.
        """
        algorithm, thread = self.algorithm, self._thread
        if self._state == "error" and algorithm is not None and algorithm.rewind():
            if thread is not None:
                thread.join()
            with self._changed:
                self.error, self.traceback, self._thread, self._state = None, "", None, "paused"
        if self._state != "idle":
            self._go(pausing=False)

    def pause(self) -> None:
        """Pause after the current step."""
        with self._changed:
            self._pausing = True
            self._single_steps = 0
            self._changed.notify_all()

    def step(self, steps: int = 1) -> None:
        """Make one step (or `steps`), then pause; starts the run if needed."""
        self._go(pausing=True, single_steps=steps)

    def stop(self, timeout: float | None = 5.0) -> bool:
        """End the run after the current step and join its thread; the trained model stays in `algorithm`.

        Returns whether the thread has ended: `make` cannot be interrupted, but no step follows it.
        """
        self.request_stop()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def request_stop(self) -> None:
        """As `stop`, without waiting; does nothing if nothing has started."""
        with self._changed:
            if self._state == "idle" and self._thread is None:
                return
            self._stopping = True
            self._changed.notify_all()
            if self.driver == "blocking" and self._thread is None and self._state == "paused":
                self._state = "stopped"

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested and has not happened yet."""
        return self._stopping and self._state in ("preparing", "running", "paused")

    @property
    def awaited(self) -> bool:
        """Whether a caller is blocked in `wait`: in a notebook, a cell."""
        return bool(self._waiting)

    def hear(self) -> None:
        """Note, while a cell waits, how the page's message being handled reached the kernel."""
        with self._changed:
            before, polled = self.heard, threading.current_thread() in self._waiting
            if self._waiting:
                self.heard = "polled" if polled else "directly"
                if self._automatic:
                    self.driver = "poll" if polled else "thread"
        if self.heard != before:
            self._on_change()

    def reset(self) -> None:
        """Stop, forget the algorithm and become idle; knobs that were set keep their values."""
        self._resetting = True  # this stop is not the end: `wait` continues waiting
        try:
            self.stop()
            self.forget()
            with self._changed:
                self._generation += 1  # tells a thread that is still preparing to give up
                self.algorithm = self.record = self.error = None
                self.traceback = self.notice = ""
                self._stopping = self._pausing = False
                self._single_steps = 0
                self._mailbox = {}
                self._marks.clear()
                self._thread, self._state = None, "idle"
        finally:
            self._resetting = False  # also if Ctrl-C interrupts the stop
        self._on_change()

    def forget(self) -> None:
        """Release the algorithm, and the error, whose frames hold it too; notebooks remember the last error."""
        self.algorithm, error = None, self.error
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__cause__ or error.__context__

    def finish_without_running(self, algorithm: Algorithm) -> None:
        """Take over an algorithm that has been run elsewhere; the state is "finished"."""
        self.algorithm = algorithm
        self._set_state("finished", self._generation)

    def set_knob(self, name: str, value: Any) -> None:
        """Put a value in the mailbox; the newest one takes effect at the next step.

        Raises:
            ValueError: unknown name or value not allowed, if the knobs are already known; the knob is unchanged.
        """
        specs = self.specs
        if specs:
            if name not in specs:
                raise ValueError(f"unknown knob {name}; known: {', '.join(specs)}")
            value = specs[name].validate(name, value)
        with self._changed:
            self._wanted[name] = value
            self._mailbox[name] = value
            self.notice = ""
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the training is at rest: finished, stopped, failed, or never started.

        A pause, or single steps, requested before the call also count as rest. During the call neither a pause nor a
        reset does: pressing a button while a cell waits means to continue this training, not to run the next cell.
        Buttons and sliders work meanwhile: directly if the front end can do that, else this cell polls for them.

        Returns whether it is at rest; False after `timeout` seconds. Raises the algorithm's exception if it raised one.
        """
        end = None if timeout is None else time.monotonic() + timeout
        poll = answer_widgets() if self._automatic or self.driver == "poll" else None
        polls_from = time.monotonic() + UNHEARD
        with self._changed:
            if self._state == "idle" and self._thread is None and not self._resetting:
                return True  # never started
            pausing = self._pausing
            if not self._waiting:
                self.heard = ""
            self._waiting.append(threading.current_thread())
        self._on_change()  # tells the page, which answers
        try:
            while True:
                with self._changed:
                    pausing = pausing and self._pausing
                    if self._resting(pausing):
                        break
                    left = None if end is None else end - time.monotonic()
                    if left is not None and left <= 0:
                        return False
                    # In slices, so that Ctrl-C and Stop get through everywhere.
                    self._changed.wait(min(0.05 if poll else 1.0, left if left is not None else 1.0))
                if poll is not None and (
                    self.driver == "poll" or (not self.heard and time.monotonic() > polls_from)
                ):
                    poll()
        finally:
            with self._changed:
                self._waiting.remove(threading.current_thread())
            self._on_change()
        if self.error is not None:
            raise self.error
        return True

    def run(self, timeout: float | None = None) -> bool:
        """Start and wait."""
        self.start()
        return self.wait(timeout)

    # ---- the loop ----------------------------------------------------------------------------------------------

    def _resting(self, pausing: bool) -> bool:
        if self._state == "paused":
            return pausing and not self._single_steps
        return self._state in ENDED and not self._resetting

    def _go(self, pausing: bool, single_steps: int = 0) -> None:
        with self._changed:
            if self._state in ENDED:
                return
            self._pausing = pausing
            self._single_steps = self._single_steps + single_steps if pausing else 0
            self._changed.notify_all()
            if self._thread is not None:
                return  # it is running and reads the flags above
            if self.driver == "blocking":
                self._thread = threading.current_thread()
            else:
                label = f"rlhflab-{self.name or 'player'}"
                self._thread = threading.Thread(
                    target=self._main, args=(self._generation,), name=label, daemon=True
                )
                self._thread.start()
                return
        try:
            self._main(self._generation)
        finally:
            self._thread = None

    def _set_state(self, state: State, generation: int) -> None:
        with self._changed:
            if generation != self._generation:
                return  # this thread was abandoned by a reset
            self._state = state
            self._changed.notify_all()
        self._on_change()

    def _main(self, generation: int) -> None:
        try:
            algorithm = self.algorithm
            if algorithm is None:
                self._set_state("preparing", generation)
                algorithm = self._make()
                with self._changed:
                    if generation != self._generation:
                        return
                    self._mailbox = {**self._wanted, **self._mailbox}
                    self.algorithm = algorithm
            self._loop(algorithm, generation)
        except KeyboardInterrupt:
            self._set_state("stopped", generation)  # with the blocking driver, Ctrl-C is the way to stop
            raise
        except BaseException as error:
            short = out_of_memory(error, f"after {self.steps_done} steps")
            if generation == self._generation:
                self.error, short = short or error, None  # a frame that holds its own error keeps both alive
                whole = "" if isinstance(self.error, OneLine) else "".join(traceback.format_exception(error))
                self.traceback = whole[-6000:]
                for sink in self._sinks:
                    with suppress(Exception):  # the first error is the one to show
                        getattr(sink, "failed", lambda error: None)(self.error)
            self._set_state("error", generation)

    def _loop(self, algorithm: Algorithm, generation: int) -> None:
        while True:
            with self._changed:
                if generation != self._generation:
                    return  # abandoned by a reset: the knobs in the mailbox are for its successor
                self._take_knobs(algorithm)
                stop = self._stopping
                single = self._pausing and self._single_steps > 0
                rest = self._pausing and not single
            if stop:
                self._set_state("stopped", generation)
                return
            if rest:
                self._marks.clear()
                if self._state != "paused":
                    self._set_state("paused", generation)
                if self.driver == "blocking":
                    return  # blocking: no other thread could end the pause
                with self._changed:
                    self._changed.wait_for(self._has_news)
                continue
            if self._state != "running":
                self._set_state("running", generation)
            try:
                record = next(algorithm)
            except StopIteration:
                self._set_state("finished", generation)
                return
            if generation != self._generation:
                return  # abandoned during a long step: this record is no longer wanted
            self.record = record
            for sink in self._sinks:
                sink(record)
            self._marks.append(time.perf_counter())
            if single:
                with self._changed:
                    self._single_steps = max(0, self._single_steps - 1)
            if algorithm.step >= algorithm.steps > 0:
                self._set_state("finished", generation)
                return

    def _has_news(self) -> bool:
        return self._stopping or not self._pausing or self._single_steps > 0 or bool(self._mailbox)

    def _take_knobs(self, algorithm: Algorithm) -> None:
        mailbox, self._mailbox = self._mailbox, {}
        for name, value in mailbox.items():
            try:
                setattr(algorithm.knobs, name, value)
            except ValueError as error:
                self._wanted.pop(name, None)
                self.notice = str(error)
