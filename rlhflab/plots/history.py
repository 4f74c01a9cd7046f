"""The memory behind a live view: everything a board shows of a run, in constant memory, and frames of constant size.

A frame (`snapshot`) is stateless: it holds all there is to draw, so missing the frames before it does not matter.
"""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rlhflab.core.record import Pairs, Place, Record, Sample, judgement
from rlhflab.plots.buckets import Bucket, Buckets, Curve, Shown, evenly, rounded
from rlhflab.text import clipped

BINS = 20
"""Bins of the weight histogram and of the heat map, over (0, 1)."""

_TEXT_BUDGET = 8_000  # bytes of model text in one frame, all rows together
_MAX_CHANGES = 12  # knob changes that a frame marks
_MAX_NUMBERS = 300  # of one array in a frame
_MAX_SERIES = 12  # in one frame; of more, each has fewer points

# One column of the heat map: last step, counts per bin.
_Column = tuple[int, list[int]]


def _merge_columns(a: _Column, b: _Column) -> _Column:
    return b[0], [m + n for m, n in zip(a[1], b[1], strict=True)]


def _show_column(column: _Column) -> tuple[int, list[int]]:
    total = sum(column[1]) or 1
    return column[0], [round(100 * n / total) for n in column[1]]


# One point of the trail: step, and the place in the reward–KL plane.
_Point = tuple[int, Place]


def _show_point(point: _Point) -> tuple[int, list[float | None]]:
    return point[0], [rounded(value, 4) for value in point[1]]


class _Row(NamedTuple):
    """One preference pair as it was seen last."""

    id: int
    prompt: str
    chosen: str
    rejected: str
    chosen_reward: float
    rejected_reward: float
    weight: float
    flipped: bool | None


class History:
    """Everything a board shows of a run so far; `add` on the training thread, `snapshot` on any other.

    Args:
        points: buckets per series and columns of the heat map in a frame (a frame with 8 series, heat map, table and
            samples stays under 50 kB at the default).
        pairs: how many preference pairs are remembered, the most recently seen.
    """

    def __init__(self, points: int = 100, pairs: int = 4096) -> None:
        self.points = points
        self._max_pairs = pairs
        self._lock = threading.Lock()
        self._table_lock = threading.Lock()  # making the table takes too long to hold up `add`
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self.step = 0
            self.records = 0
            self._curves: dict[str, Curve] = {}
            self._heat: Buckets[_Column] = Buckets(self.points, _merge_columns, _show_column)
            self._column = [0] * BINS
            self._columns_seen = 0
            self._trail: Buckets[_Point] = Buckets(3 * self.points // 2, lambda a, b: b, _show_point)
            self._trail_seen = 0
            self._point: _Point | None = None
            self._first_point: _Point | None = None
            self._pending: list[Pairs] = []  # batches not yet in the table
            self._rows: OrderedDict[int, _Row] = OrderedDict()  # by id, newest last
            self._batch: dict[str, Any] | None = None
            self._samples: tuple[Sample, ...] = ()
            self._samples_step = 0
            self._arrays: dict[str, tuple[int, tuple[float, ...]]] = {}  # name → step, numbers: the newest
            self._exact: dict[str, float] = {}
            self._estimated: dict[str, float] = {}
            self._knobs: dict[str, float] = {}
            self._changes: list[tuple[int, str, float]] = []

    def add(self, record: Record) -> None:
        """Add one record."""
        with self._lock:
            step = self.step = record.step
            self.records += 1
            self._extend(step, record.scalars)
            if record.exact is not None:
                self._exact = dict(record.exact)
                self._extend(step, record.exact, "exact/")
            if record.estimated is not None:
                self._estimated = dict(record.estimated)
                self._extend(step, record.estimated, "estimated/")
            if (place := record.place) is not None:
                self._add_place(step, place)
            if record.pairs is not None:
                self._add_pairs(step, record.pairs)
            for name, numbers in record.arrays.items():
                self._arrays[name] = step, numbers
            if record.samples:
                self._samples, self._samples_step = record.samples, step
            if record.knobs != self._knobs:
                self._add_knobs(step, record.knobs)

    def _extend(self, step: int, values: Mapping[str, float], prefix: str = "") -> None:
        curves = self._curves
        for name, value in values.items():
            curve = curves.get(prefix + name)
            if curve is None:
                curve = curves[prefix + name] = Curve(self.points)
            curve.add(step, value)

    def _add_place(self, step: int, place: Place) -> None:
        self._point = step, place
        self._first_point = self._first_point or self._point
        self._trail_seen += 1
        if self._trail_seen >= self._trail.width:
            self._trail.append(self._point)
            self._trail_seen = 0

    def _add_pairs(self, step: int, pairs: Pairs) -> None:
        self._pending.append(pairs)  # the table is made when it is read
        if len(self._pending) > 1024:
            del self._pending[:512]
        clean, flipped = [0] * (BINS + 1), [0] * (BINS + 1)  # the last bin is for a weight of exactly 1
        for weight, flip in zip(pairs.weights, pairs.flipped, strict=True):
            if 0 <= weight <= 1:
                (flipped if flip else clean)[int(weight * BINS)] += 1
        for counts in (clean, flipped):
            counts[BINS - 1] += counts.pop()
        self._batch = {"step": step, "clean": clean, "flipped": flipped}
        self._column = [a + b + c for a, b, c in zip(self._column, clean, flipped, strict=True)]
        self._columns_seen += 1
        if self._columns_seen >= self._heat.width:
            self._heat.append((step, self._column))
            self._column, self._columns_seen = [0] * BINS, 0

    def _table(self) -> list[_Row]:
        """Return the pairs seen last, one row per id."""
        with self._table_lock:
            with self._lock:
                pending, self._pending = self._pending, []
                rows = self._rows
            for pairs in pending:
                columns = (
                    pairs.ids,
                    pairs.prompts,
                    pairs.chosen,
                    pairs.rejected,
                    pairs.chosen_rewards,
                    pairs.rejected_rewards,
                    pairs.weights,
                    pairs.flipped,
                )
                for row in map(_Row._make, zip(*columns, strict=True)):
                    rows[row.id] = row
                    rows.move_to_end(row.id)
                while len(rows) > self._max_pairs:
                    rows.popitem(last=False)
            return list(rows.values())

    def _add_knobs(self, step: int, knobs: Mapping[str, float]) -> None:
        if self._knobs:
            near = max(10, step // 25)  # moves of one drag count as one
            for name, value in knobs.items():
                if value == self._knobs.get(name):
                    continue
                for at in range(len(self._changes) - 1, -1, -1):
                    if self._changes[at][1] == name and step - self._changes[at][0] <= near:
                        del self._changes[at]
                        break
                self._changes.append((step, name, value))
            del self._changes[:-_MAX_CHANGES]
        self._knobs = dict(knobs)

    # ---- reading -----------------------------------------------------------------------------------------------

    @property
    def knobs(self) -> dict[str, float]:
        """The knob values of the newest record."""
        return dict(self._knobs)

    @property
    def judged(self) -> dict[str, float]:
        """The newest evaluation, exact or estimated, named as in `Record.judged`; empty without one."""
        return judgement(self._exact, self._estimated)

    @property
    def judged_exactly(self) -> bool:
        """Whether `judged` is exact."""
        return bool(self._exact)

    def names(self) -> list[str]:
        """Names of all series: scalars by their own name, exact values as exact/…, estimates as estimated/…"""
        with self._lock:
            return list(self._curves)

    def arrays(self) -> list[str]:
        """Names of all arrays seen in records."""
        with self._lock:
            return list(self._arrays)

    def curve(self, name: str) -> list[Bucket]:
        """Return the buckets of one series, unrounded: (last step, n, sum, minimum, maximum)."""
        with self._lock:
            return self._curves[name].buckets() if name in self._curves else []

    def trail(self) -> list[_Point]:
        """Return the path in the reward–KL plane, first and newest point included: (step, Place)."""
        with self._lock:
            points = list(self._trail.items)
            if self._point is not None and self._trail_seen:
                points.append(self._point)
            if self._first_point is not None and points[0] != self._first_point:
                points.insert(0, self._first_point)
            return points

    def snapshot(
        self,
        series: Iterable[str] | None = None,
        rows: int = 12,
        arrays: Iterable[str] | None = None,
        whole: bool = False,
    ) -> dict[str, Any]:
        """Return one frame: JSON-serialisable, about the same size for any length of run, non-finite numbers as None.

        Args:
            series: names of the series to send; None sends all. More than 12 are sent with fewer points each.
            rows: how many pairs, heaviest and lightest each.
            arrays: names of the arrays to send, at most 300 evenly spaced numbers each; None sends all.
            whole: for a file rather than a page: every bucket of every series, every number of every array.
        """
        pairs = self._table()
        trail = [_show_point(point) for point in self.trail()]
        with self._lock:  # copies only; the formatting happens outside
            wanted = (
                list(self._curves) if series is None else [name for name in series if name in self._curves]
            )
            shown = {name: self._curves[name].shown() for name in wanted}
            last = {name: rounded(curve.last) for name, curve in self._curves.items()}
            heat = list(self._heat.shown)
            if self._columns_seen:
                heat.append(_show_column((self.step, list(self._column))))
            batch, samples, samples_step = self._batch, self._samples, self._samples_step
            step, records, knobs = self.step, self.records, self._knobs
            exact, estimated = self._exact, self._estimated
            changes = [[at, name, rounded(value)] for at, name, value in self._changes]
            newest = {
                name: self._arrays[name]
                for name in (self._arrays if arrays is None else arrays)
                if name in self._arrays
            }
        frame: dict[str, Any] = {
            "step": step,
            "records": records,
            **_pack(shown, (len(shown) if whole else _MAX_SERIES) * (self.points + 1)),
            "last": last,
            "exact": {name: rounded(value) for name, value in exact.items()},
            "estimated": {name: rounded(value) for name, value in estimated.items()},
            "knobs": {name: rounded(value) for name, value in knobs.items()},
            "changes": changes,
            "arrays": {
                name: {
                    "step": at,
                    "y": [rounded(n, 4) for n in (numbers if whole else evenly(numbers, _MAX_NUMBERS))],
                }
                for name, (at, numbers) in newest.items()
            },
        }
        if heat:
            frame["heat"] = {"x": [column[0] for column in heat], "z": [column[1] for column in heat]}
        if batch is not None:
            frame["batch"] = batch
        if trail:
            frame["trail"] = {"step": [step for step, _ in trail]}
            uncertain = any(any(place[2:]) for _, place in trail)  # exact places have no errors
            for i, name in enumerate(Place._fields):
                if i < 2 or uncertain:
                    frame["trail"][name] = [place[i] for _, place in trail]
        texts: list[dict[str, Any]] = []
        if pairs:
            heaviest = heapq.nlargest(rows, pairs, key=_weight)
            lightest = heapq.nsmallest(rows, pairs, key=_weight)
            frame["pairs"] = {
                "known": len(pairs),
                "flipped": sum(1 for row in pairs if row.flipped),
                "heaviest": [_row(row) for row in heaviest],
                "lightest": [_row(row) for row in lightest],
            }
            texts += frame["pairs"]["heaviest"] + frame["pairs"]["lightest"]
        if samples:
            frame["samples"] = [_sample(sample) for sample in samples[:6]]
            frame["samples_step"] = samples_step
            texts += frame["samples"]
        _clip(texts)
        return frame


def _weight(row: _Row) -> float:
    return row.weight if row.weight == row.weight else 0.0  # NaN sorts as 0


def _pack(shown: Mapping[str, list[Shown]], limit: int) -> dict[str, Any]:
    """Columns of all series; those with the same steps share one list of steps."""
    rows = sum(len(points) for points in shown.values())
    group = -(-rows // limit) if rows else 1
    steps: list[list[int]] = []
    packed: dict[str, Any] = {}
    for name, points in shown.items():
        if group > 1:
            points = [_join(points[at : at + group]) for at in range(0, len(points), group)]
        x = [point[0] for point in points]
        if x not in steps:
            steps.append(x)
        entry: dict[str, Any] = {"x": steps.index(x), "y": [point[1] for point in points]}
        if any(point[2] != point[3] for point in points):
            entry["lo"] = [point[2] for point in points]
            entry["hi"] = [point[3] for point in points]
        packed[name] = entry
    return {"x": steps, "series": packed}


def _join(points: list[Shown]) -> Shown:
    means = [mean for _, mean, _, _ in points if mean is not None]
    lows = [low for _, _, low, _ in points if low is not None]
    highs = [high for _, _, _, high in points if high is not None]
    mean = rounded(sum(means) / len(means)) if means else None
    return points[-1][0], mean, min(lows, default=None), max(highs, default=None)


def _row(row: _Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "prompt": row.prompt,
        "chosen": row.chosen,
        "rejected": row.rejected,
        "margin": rounded(row.chosen_reward - row.rejected_reward, 4),
        "weight": rounded(row.weight, 4),
        "flipped": row.flipped,
    }


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "prompt": sample.prompt,
        "before": sample.before,
        "after": sample.after,
        "reward_before": rounded(sample.reward_before, 4),
        "reward_after": rounded(sample.reward_after, 4),
    }


def _clip(rows: list[dict[str, Any]], length: int = 160) -> None:
    """Shorten the texts of `rows` in place: 160 characters each, fewer if their total size would be too large."""
    for row in rows:
        for key, value in row.items():
            if isinstance(value, str):
                row[key] = clipped(value, length)
    size = sum(
        len(value.encode("utf-8", "replace"))
        for row in rows
        for value in row.values()
        if isinstance(value, str)
    )
    if size > _TEXT_BUDGET and length > 16:
        _clip(rows, max(16, int(length * min(0.9, _TEXT_BUDGET / size))))
