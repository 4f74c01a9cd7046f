"""Preference pairs: what one is, and JSON Lines files of them (gzipped too) read and written.

Three layouts are read: {prompt, chosen, rejected}; whole dialogues {chosen, rejected}, whose common beginning is the
prompt, as in Anthropic's hh-rlhf; and either with lists of messages in place of texts.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from rlhflab.files import written_beside
from rlhflab.worlds.dialogue import ASSISTANT, as_texts

Item = TypeVar("Item")
Rows = Iterable[tuple[str, Any]]
"""Where each row stands ("line 3"), and the row: an object, or the ValueError that it gave instead of one."""


class UnusablePair(ValueError):
    """A pair that is written as it should be and teaches nothing: an empty answer, or twice the same."""


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to a prompt, of which somebody preferred the first.

    Attributes:
        prompt: the prompt; the dialogue is `prompt + chosen` or `prompt + rejected`.
        chosen, rejected: y_w and y_l.
        flipped: True where the label is known to contradict the better answer; None where nobody knows.
        margin: r*(x, y_w) − r*(x, y_l), the true reward's difference where it is known.
    """

    prompt: str
    chosen: str
    rejected: str
    flipped: bool | None = None
    margin: float | None = None


def read_pairs(path: str | Path, skip_bad: bool = False) -> list[PreferencePair]:
    """Return all pairs of a JSON Lines file; nothing is returned from a file that is partly bad.

    Args:
        path: the file; a name that ends in `.gz` is gzipped. One object a line with `prompt`, `chosen`, `rejected`
            and optionally `flipped` (true, false, null) and `margin` (number, null); or without `prompt`, where
            `chosen` and `rejected` are whole dialogues: the prompt then ends with their last common
            "\\n\\nAssistant:", or where there is none at the last word boundary of their common beginning. Other
            fields are ignored, empty lines skipped.
        skip_bad: leave bad lines out and say how many in one warning. For real data with a few empty answers.

    Returns:
        The pairs in the order of the file, at least one.

    Raises:
        ValueError: in one line: the file cannot be read or holds no pair, or file, line and field of what is bad.
    """
    return collect(path, json_lines(path), pair_of, skip_bad)


def collect(path: str | Path, rows: Rows, make: Callable[[Any], Item], skip_bad: bool) -> list[Item]:
    """What `make` makes of every row; ValueError with file, line and field of the first bad one, or one warning."""
    items, bad = [], []
    for place, row in rows:
        try:
            if isinstance(row, ValueError):
                raise row
            items.append(make(row))
        except ValueError as error:
            bad.append(f"{path}, {place}: {error}")
            if not skip_bad:
                raise ValueError(bad[0]) from None
    if not items:
        raise ValueError(bad[0] if bad else f"{path} is empty; one JSON object with a pair a line is needed")
    if bad:
        warnings.warn(f"{len(bad)} bad lines left out of {path}; the first: {bad[0]}", stacklevel=2)
    return items


def write_pairs(path: str | Path, pairs: Iterable[PreferencePair]) -> None:
    """Write pairs as JSON Lines, beside and then renamed; the same pairs give the same bytes.

    Args:
        path: the file to create or replace; a name that ends in `.gz` is gzipped. Its folder must exist.
        pairs: fields that are None are left out.
    """
    lines = []
    for pair in pairs:
        fields = {name: value for name, value in asdict(pair).items() if value is not None}
        lines.append(json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n")
    content = "".join(lines).encode()
    with written_beside(path) as beside:
        beside.write_bytes(gzip.compress(content, mtime=0) if Path(path).suffix == ".gz" else content)


def json_lines(path: str | Path) -> Iterator[tuple[str, Any]]:
    """The rows of a JSON Lines file, empty lines left out."""
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except ValueError as error:  # UnicodeDecodeError is one too
                yield f"line {number}", ValueError(f"not JSON ({error})")


def _lines(path: str | Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") if Path(path).suffix == ".gz" else open(path, "rb") as file:
            yield from file
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(f"cannot read {path}: {reason}") from None


def pair_of(data: Any) -> PreferencePair:
    """The pair that an object holds; see `read_pairs`.

    Raises:
        ValueError: names the field that is bad; `UnusablePair` where the answers are alike or one is empty.
    """
    if not isinstance(data, dict):
        raise ValueError(f"a JSON object is needed, got {_short(data)}")
    data = as_texts(data)
    for field in ("prompt", "chosen", "rejected"):
        if field == "prompt" and field not in data:
            continue
        if field not in data:
            raise ValueError(f"field {field!r} is missing")
        if not isinstance(data[field], str) or not data[field].strip():
            kind = UnusablePair if field != "prompt" and isinstance(data[field], str) else ValueError
            raise kind(f"field {field!r} must be a non-empty string, got {_short(data[field])}")
    if data["chosen"] == data["rejected"]:
        raise UnusablePair("fields 'chosen' and 'rejected' are identical; a pair needs two answers")
    flipped, margin = data.get("flipped"), data.get("margin")
    if flipped is not None and not isinstance(flipped, bool):
        raise ValueError(f"field 'flipped' must be true, false or null, got {_short(flipped)}")
    if margin is not None and (
        isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin)
    ):
        raise ValueError(f"field 'margin' must be a finite number or null, got {_short(margin)}")
    prompt, chosen, rejected = data.get("prompt"), data["chosen"], data["rejected"]
    if prompt is None:
        cut = _prompt_length(chosen, rejected)
        prompt, chosen, rejected = chosen[:cut], chosen[cut:], rejected[cut:]
        if not prompt.strip():
            raise ValueError("field 'prompt' is missing and 'chosen' and 'rejected' do not begin alike")
        for field, answer in (("chosen", chosen), ("rejected", rejected)):
            if not answer.strip():
                raise UnusablePair(f"field {field!r} has no answer after the common prompt")
    return PreferencePair(prompt, chosen, rejected, flipped, None if margin is None else float(margin))


def _prompt_length(chosen: str, rejected: str) -> int:
    """Where the common prompt of two dialogues ends; the space before the first differing word is the answer's."""
    differing = (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b)
    common = chosen[: next(differing, min(len(chosen), len(rejected)))]
    marker = common.rfind(ASSISTANT)
    if marker >= 0:
        return marker + len(ASSISTANT)
    if all(re.match(r"\W", text[len(common) :]) for text in (chosen, rejected)):
        return len(common)
    last_word = re.search(r"\s+\S*$", common)
    return last_word.start() if last_word else 0


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:39] + "…"
