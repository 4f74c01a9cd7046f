"""Real data in the forms people have it: preference pairs, or texts with a label, from files or a hub.

    file       .jsonl, .json, .csv or .parquet, each but the last also .gz
    data set   NAME, NAME:CONFIG, NAME@SPLIT of the Hugging Face hub; the split is train where none is named, and may
               be a part: NAME@train[:5000]

A row is a pair (see `preferences.pair_of`) or {text, label}, as in IMDb: label is 0 or 1, or a word such as "pos".
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rlhflab.boundary import one_line
from rlhflab.remedies import require_package
from rlhflab.worlds.preferences import PreferencePair, UnusablePair, collect, json_lines, pair_of

FORMATS = (".jsonl", ".json", ".csv", ".parquet")
LABELS = {
    "1": True, "pos": True, "positive": True, "true": True, "0": False, "neg": False, "negative": False, "false": False,
}  # fmt: skip
Item = TypeVar("Item")


@dataclass(frozen=True)
class LabelledText:
    """A text and whether it is of the wanted kind, such as a positive review."""

    text: str
    wanted: bool


@dataclass(frozen=True)
class Data:
    """What a source holds: pairs, or texts with labels; the other is empty.

    Attributes:
        source: its name, for messages.
        dropped: reason → how many rows were left out for it.
    """

    source: str
    pairs: tuple[PreferencePair, ...] = ()
    texts: tuple[LabelledText, ...] = ()
    dropped: tuple[tuple[str, int], ...] = ()


def read_data(source: str, skip_bad: bool = False, progress: bool = True) -> Data:
    """Read a file or a hub's data set; nothing is returned from one that is partly bad.

    Args:
        source: see above.
        skip_bad: leave bad rows out, with one warning that counts them. Pairs with an empty answer or with twice the
            same answer are no bad rows: real data has some, and they are left out and counted in `dropped`.
        progress: show a bar.

    Raises:
        ValueError: in one line: what cannot be read and why, or file, line and field of a bad row.
    """
    from tqdm.auto import tqdm

    rows = _file_rows(Path(source)) if Path(source).is_file() else _hub_rows(source)
    shown = tqdm(rows, desc=f"reading {Path(source).name}", unit=" rows", leave=False, disable=not progress)
    items = collect(source, shown, _item, skip_bad)
    kinds = {type(item) for item in items} - {str}
    if len(kinds) > 1:
        raise ValueError(f"{source} holds pairs and texts with labels; it must hold one of them")
    dropped = Counter(item for item in items if isinstance(item, str))
    if not kinds:
        raise ValueError(f"{source} holds no usable pair: {counted(dropped)}")
    pairs = tuple(item for item in items if isinstance(item, PreferencePair))
    texts = tuple(item for item in items if isinstance(item, LabelledText))
    return Data(source, pairs, texts, tuple(dropped.items()))


def counted(reasons: Mapping[str, int]) -> str:
    """Reasons with their counts, in words."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())


def pairs_of_labels(texts: Sequence[LabelledText], seed: int) -> list[PreferencePair]:
    """Each wanted text with one that is not: chosen and rejected answers to the empty prompt.

    A reward model of these pairs is a classifier of texts, such as of sentiment.
    """
    sides: list[list[str]] = [
        [each.text for each in texts if each.wanted is wanted] for wanted in (True, False)
    ]
    for side in sides:
        random.Random(seed).shuffle(side)
    if not all(sides):
        raise ValueError("all texts have the same label; pairs need some of both")
    return [PreferencePair("", chosen, rejected) for chosen, rejected in zip(*sides, strict=False)]


def beginnings(data: Data, words: int) -> list[str]:
    """Prompts for sampling: each pair's prompt, or each text's first `words` words; each once."""
    if data.pairs:
        found = [pair.prompt for pair in data.pairs]
    else:
        found = [" ".join(each.text.split()[:words]) for each in data.texts]
    return list(dict.fromkeys(prompt for prompt in found if prompt.strip()))


def split(items: Sequence[Item], held_out: int, seed: int) -> tuple[list[Item], list[Item]]:
    """Shuffle with `seed`, and put the last `held_out` aside: (to train on, held out)."""
    order = random.Random(seed).sample(range(len(items)), len(items))
    shuffled = [items[index] for index in order]
    return shuffled[: len(items) - held_out], shuffled[len(items) - held_out :]


def _item(row: Any) -> PreferencePair | LabelledText | str:
    """What a row holds; a reason in words where it is to be left out."""
    if isinstance(row, dict) and "chosen" not in row and "text" in row and "label" in row:
        return _labelled(row)
    try:
        return pair_of(row)
    except UnusablePair as error:
        return "with twice the same answer" if "identical" in str(error) else "with an empty answer"


def _labelled(row: dict[str, Any]) -> LabelledText | str:
    text, label = row["text"], row["label"]
    if not isinstance(text, str):
        raise ValueError(f"field 'text' must be a string, got {text!r:.40}")
    wanted = LABELS.get(str(label).strip().lower())
    if wanted is None:
        raise ValueError(f"field 'label' must be 0 or 1, or one of {', '.join(LABELS)}, got {label!r:.40}")
    return LabelledText(text, wanted) if text.strip() else "with an empty text"


# ---- rows -------------------------------------------------------------------------------------------------------


def _file_rows(path: Path) -> Iterator[tuple[str, Any]]:
    suffixes = [suffix for suffix in path.suffixes if suffix in (*FORMATS, ".gz")]
    kind = suffixes[0] if suffixes else ""
    if kind == ".parquet":
        return _parquet_rows(path)
    if kind == ".csv":
        return _csv_rows(path)
    if kind == ".json":
        return _json_rows(path)
    if kind == ".jsonl":
        return json_lines(path)
    raise ValueError(f"{path} must end with {', '.join(FORMATS)}, or with .gz after it")


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(f"cannot read {path}: {reason}") from None


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """A list of objects; or JSON Lines, which are often called .json too."""
    text = _text(path)
    if not text.lstrip().startswith("["):
        return json_lines(path)
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from None
    return ((f"entry {number}", row) for number, row in enumerate(rows, start=1))


def _csv_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """With the fields' names in the first line."""
    csv.field_size_limit(2**24)
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                yield f"line {reader.line_num}", ValueError("other fields than the first line names")
            else:
                yield f"line {reader.line_num}", row
    except csv.Error as error:
        raise ValueError(f"{path}, after line {reader.line_num}: not CSV ({error})") from None


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    require_package("pyarrow", "a Parquet file")
    from pyarrow import ArrowException, parquet

    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except (ArrowException, OSError) as error:
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())}") from None


def _hub_rows(source: str) -> Iterator[tuple[str, Any]]:
    require_package("datasets", f"the data set {source!r} of the hub")
    from datasets import load_dataset

    name, _, part = source.partition("@")
    name, _, config = name.partition(":")
    with one_line(f"data set {source!r}", "expected a file, or NAME, NAME:CONFIG or NAME@SPLIT on the hub"):
        rows = load_dataset(name, config or None, split=part or "train")
    return ((f"row {number}", row) for number, row in enumerate(rows, start=1))
