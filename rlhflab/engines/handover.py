"""A loop that pulls its batches, turned inside out: the caller hands it a batch and gets one step in return.

A library's training loop (transformers' `Trainer.train`) owns its thread of control: it pulls batches until it is done.
An algorithm here is the reverse, an iterator that can pause between two steps for any time. `HandOver` runs such a
loop, unchanged, in its own thread and pauses it where it asks for its next batch. Caller and loop never run at the same
time, so results do not depend on timing.

Why a thread: a greenlet would need no locks, but it is bound to the thread that made it, while an algorithm is made in
one thread, run in another and discarded in a third; and driving the loop's private methods ourselves would leave us
with a copy of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Literal


class _Closed(BaseException):
    """Raised inside the loop to end it; not an Exception, so that no library handles it."""


class HandOver:
    """Runs `loop` up to its next request whenever it is given an item.

    Args:
        loop: called with an iterator, from which it takes all its items; it may end before the iterator does.
        name: of its thread.
    """

    def __init__(self, loop: Callable[[Iterator[Any]], Any], name: str) -> None:
        self._loop, self._name = loop, name
        self._turn = threading.Condition()
        self._state: Literal["new", "asking", "working", "closing", "ended"] = "new"
        self._item: Any = None
        self._error: BaseException | None = None

    @property
    def begun(self) -> bool:
        """Whether the loop has started."""
        return self._state != "new"

    @property
    def ended(self) -> bool:
        """Whether the loop is over."""
        return self._state == "ended"

    def start(self) -> None:
        """Run the loop up to its first request, unless it has started. Raises the loop's exception."""
        with self._turn:
            if self._state == "new":
                self._state = "working"
                threading.Thread(target=self._main, name=self._name, daemon=True).start()
            self._rest()

    def send(self, item: Any) -> None:
        """Give the loop its next item and wait until it asks for another one or ends.

        Raises the loop's exception, and RuntimeError if it is over. If the wait is interrupted (Ctrl-C) the loop runs
        on to its next request; a later call waits for that first.
        """
        self.start()
        with self._turn:
            if self._state != "asking":
                raise RuntimeError(f"{self._name} is over and takes nothing more")
            self._item, self._state = item, "working"
            self._turn.notify_all()
            self._rest()

    def rest(self) -> None:
        """Wait until the loop pauses, if an interrupted `send` has left it running; its error is dropped."""
        if self.begun:
            with suppress(Exception), self._turn:
                self._rest()

    def close(self) -> None:
        """End the loop where it is paused, or as soon as it pauses; returns at once."""
        with self._turn:
            if self._state not in ("ended", "new"):
                self._state = "closing"
                self._turn.notify_all()

    def _rest(self) -> None:
        """Wait until the loop has asked for an item or ended; holds the lock."""
        self._turn.wait_for(lambda: self._state in ("asking", "ended"))
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _main(self) -> None:
        error: BaseException | None = None
        try:
            self._loop(self._items())
        except _Closed:
            pass
        except BaseException as raised:
            error = raised
        with self._turn:
            self._state, self._error = "ended", error
            self._turn.notify_all()

    def _items(self) -> Iterator[Any]:
        while True:
            with self._turn:
                if self._state != "closing":
                    self._state = "asking"
                    self._turn.notify_all()
                    self._turn.wait_for(lambda: self._state != "asking")
                if self._state == "closing":
                    raise _Closed
                item, self._item = self._item, None
            yield item
