"""Preference pairs, and writing them as JSON Lines."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rlhflab.files import written_beside


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to a prompt, of which the first was preferred.

    Attributes:
        prompt: the prompt; the dialogue is `prompt + chosen` or `prompt + rejected`.
        chosen, rejected: y_w and y_l.
        flipped: True if the label is known to contradict the better answer; None if unknown.
        margin: r*(x, y_w) − r*(x, y_l), the difference of true rewards, if known.
        place: its place in the source, for messages: "line 3"; not compared.
    """

    prompt: str
    chosen: str
    rejected: str
    flipped: bool | None = None
    margin: float | None = None
    place: str = field(default="", compare=False)


def write_pairs(path: str | Path, pairs: Iterable[PreferencePair]) -> None:
    """Write pairs as JSON Lines, atomically; the same pairs give the same bytes.

    Args:
        path: the file to create or replace; gzipped if its name ends in `.gz`. Its folder must exist.
        pairs: places, and fields that are None, are not written.
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
