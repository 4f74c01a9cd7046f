"""Preference pairs: what one is, and JSON Lines files of them written."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rlhflab.files import written_beside


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
