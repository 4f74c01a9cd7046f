"""Preference pairs: what one is, how a row of people's data becomes one, and JSON Lines files of them written."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlhflab.files import written_beside
from rlhflab.worlds.layouts import Understood, fields_of, shortened, understand


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to a prompt, of which somebody preferred the first.

    Attributes:
        prompt: the prompt; the dialogue is `prompt + chosen` or `prompt + rejected`.
        chosen, rejected: y_w and y_l.
        flipped: True where the label is known to contradict the better answer; None where nobody knows.
        margin: r*(x, y_w) − r*(x, y_l), the true reward's difference where it is known.
        place: where it stands in its source, for messages: "line 3"; not a part of the pair.
    """

    prompt: str
    chosen: str
    rejected: str
    flipped: bool | None = None
    margin: float | None = None
    place: str = field(default="", compare=False)


def write_pairs(path: str | Path, pairs: Iterable[PreferencePair]) -> None:
    """Write pairs as JSON Lines, beside and then renamed; the same pairs give the same bytes.

    Args:
        path: the file to create or replace; a name that ends in `.gz` is gzipped. Its folder must exist.
        pairs: fields that are None are left out, and places.
    """
    lines = []
    for pair in pairs:
        fields = {
            name: value for name, value in asdict(pair).items() if value is not None and name != "place"
        }
        lines.append(json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n")
    content = "".join(lines).encode()
    with written_beside(path) as beside:
        beside.write_bytes(gzip.compress(content, mtime=0) if Path(path).suffix == ".gz" else content)


def pair_of(row: Any, place: str = "") -> tuple[PreferencePair, Understood]:
    """The pair that a row holds, and how it was understood; see `layouts`.

    Args:
        row: an object; beside the fields of `layouts` it may have `flipped` (true, false, null) and `margin` (number,
            null).
        place: where it stands.

    Raises:
        ValueError: names the field that is bad; `UnusablePair` where the answers are alike or one is empty.
    """
    found, fields = understand(row), fields_of(row)
    prompt, chosen, rejected = found[:3]
    return PreferencePair(prompt, chosen, rejected, _flipped(fields), _margin(fields), place), found


def _flipped(fields: Mapping[str, Any]) -> bool | None:
    value = fields.get("flipped")
    if isinstance(value, str):  # of a table of texts
        value = {"true": True, "false": False, "": None}.get(value.strip().lower(), value)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"field 'flipped' must be true, false or null, got {shortened(value)}")
    return value


def _margin(fields: Mapping[str, Any]) -> float | None:
    value = fields.get("margin")
    try:
        number = None if value in (None, "") else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number or 0.0):
        raise ValueError(f"field 'margin' must be a finite number or null, got {shortened(value)}")
    return number
