"""Series in flat memory: any number of steps in a fixed number of buckets, no spike lost.

When the buckets are full, two neighbours merge, the oldest first, so the number of buckets does not grow with the run;
a bucket of a curve keeps the mean and both extrema of the steps it covers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


def rounded(value: float | None, digits: int = 5) -> float | None:
    """Return `value` with at most `digits` significant digits; None if it is not finite (JSON has no NaN)."""
    if value is None or value - value != 0:
        return None
    result = float(f"{value:.{digits}g}")
    return result if result - result == 0 else None  # the largest floats round up to infinity


def evenly(items: Sequence[Item], most: int) -> Sequence[Item]:
    """Return at most `most` ≥ 2 of the items, evenly spaced, first and last included; only the length matters.

    >>> evenly(range(100), 4)
    [0, 33, 66, 99]
    """
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


class Buckets(Generic[Item]):
    """At most `capacity` items of about equal width; one more merges the two oldest unmerged neighbours.

    Args:
        capacity: number of items kept.
        merge: (older, newer) → one item.
        show: item → its form in a frame; called once per item, not once per frame.
    """

    __slots__ = ("_merge", "_show", "_sweep", "capacity", "items", "shown", "width")

    def __init__(
        self, capacity: int, merge: Callable[[Item, Item], Item], show: Callable[[Item], Any]
    ) -> None:
        self.capacity = capacity
        self.items: list[Item] = []
        self.shown: list[Any] = []
        self.width = 1  # how many steps the next item should cover
        self._sweep = 0  # items before this one are already twice as wide
        self._merge = merge
        self._show = show

    def append(self, item: Item) -> None:
        """Add the newest item, which covers `width` steps."""
        items, shown = self.items, self.shown
        items.append(item)
        shown.append(self._show(item))
        if len(items) <= self.capacity:
            return
        at = self._sweep
        items[at] = self._merge(items[at], items.pop(at + 1))
        del shown[at + 1]
        shown[at] = self._show(items[at])
        self._sweep = at + 1
        if self._sweep >= self.capacity:  # every item is twice as wide, so the next ones must be too
            self._sweep = 0
            self.width *= 2


Bucket = tuple[int, int, float, float, float]
"""One bucket of a curve: last step, number of finite values, their sum, minimum and maximum."""

Shown = tuple[int, float | None, float | None, float | None]
"""A bucket as a frame carries it: last step, mean, minimum and maximum; None if no value was finite."""


def _merge_values(a: Bucket, b: Bucket) -> Bucket:
    return b[0], a[1] + b[1], a[2] + b[2], min(a[3], b[3]), max(a[4], b[4])


def _show_values(bucket: Bucket) -> Shown:
    step, n, total, low, high = bucket
    if n == 0:
        return step, None, None, None
    # The sum of finite numbers may overflow; a frame then shows a gap rather than infinity.
    return step, rounded(total / n), rounded(low, 4), rounded(high, 4)


class Curve:
    """One series of numbers over steps in at most `capacity` + 1 buckets, extrema kept; 1–2 µs to add a value.

    `last` is the newest finite value, or None.

    >>> curve = Curve(capacity=4)
    >>> for step in range(1, 1001):
    ...     curve.add(step, -5.0 if step == 77 else 1.0)
    >>> len(curve.buckets()), min(bucket[3] for bucket in curve.buckets())
    (5, -5.0)
    """

    __slots__ = ("_done", "_high", "_low", "_n", "_seen", "_step", "_total", "last")

    def __init__(self, capacity: int = 100) -> None:
        self._done: Buckets[Bucket] = Buckets(capacity, _merge_values, _show_values)
        self.last: float | None = None
        self._reset()

    def _reset(self) -> None:
        self._step = self._seen = self._n = 0
        self._total = 0.0
        self._low, self._high = math.inf, -math.inf

    def add(self, step: int, value: float) -> None:
        """Add the value of a step; one that is not finite leaves a gap."""
        self._step = step
        self._seen += 1
        if value - value == 0:  # finite; faster than math.isfinite
            self._n += 1
            self._total += value
            if value < self._low:
                self._low = value
            if value > self._high:
                self._high = value
            self.last = value
        if self._seen >= self._done.width:
            self._done.append((step, self._n, self._total, self._low, self._high))
            self._reset()

    def buckets(self) -> list[Bucket]:
        """Return all buckets, oldest first, the unfinished one included: (step, n, sum, minimum, maximum)."""
        if not self._seen:
            return list(self._done.items)
        return [*self._done.items, (self._step, self._n, self._total, self._low, self._high)]

    def shown(self) -> list[Shown]:
        """Return the buckets as a frame carries them, rounded; oldest first."""
        if not self._seen:
            return list(self._done.shown)
        return [*self._done.shown, _show_values((self._step, self._n, self._total, self._low, self._high))]
