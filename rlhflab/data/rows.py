"""Files and data sets as rows: the place and the fields of each. `layouts` interprets the fields.

    .jsonl, .ndjson  a JSON object per line; an array is read too
    .json            an array of objects, one object of columns or with one array in it, or JSON Lines
    .csv, .tsv       with a header; separated by commas, semicolons, tabs or |
    .parquet, .arrow
    a folder         written by datasets' save_to_disk, or of files that datasets reads; or FOLDER@SPLIT
    NAME             of the Hugging Face hub, also NAME:CONFIG, NAME@SPLIT and a part of a split: NAME@train[:5000]

The default split is train. Text files may be gzipped. They are UTF-8, or in the encoding of their byte order mark.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rlhflab.boundary import Fault, given, one_line
from rlhflab.remedies import require_package

Rows = Iterable[tuple[str, Any]]
"""Each row's place ("line 3"), and the row: an object, or the ValueError raised instead."""

NAMED = ({"chosen", "rejected"}, {"text", "label"})
"""Fields of our own tables: used to guess the separator."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_BETWEEN = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "|"}
_END = object()


class Source(NamedTuple):
    """An opened source.

    Attributes:
        form: its form in words.
        rows: its rows; anything unreadable raises a ValueError in one line.
    """

    form: str
    rows: Rows


def open_rows(source: str) -> Source:
    """The rows of a file, a folder or a data set of the hub.

    Raises:
        ValueError: what cannot be read and why, in one line.
    """
    if Path(source).is_file():
        return _file(Path(source))
    folder, _, split = source.partition("@")
    if Path(source).is_dir():
        return _folder(Path(source), "")
    return _folder(Path(folder), split) if Path(folder).is_dir() else _hub(source)


def is_folder_of_data(source: str) -> bool:
    """Whether a name is that of a folder with rows that `open_rows` can read: FOLDER or FOLDER@SPLIT."""
    name = source if Path(source).is_dir() else source.partition("@")[0]
    folder = Path(name)
    return (
        bool(name)
        and folder.is_dir()
        and any(
            path.name in _SAVED or _suffix(path) in _FORMS
            for path in (*folder.glob("*"), *folder.glob("*/*"))
        )
    )


# ---- files ------------------------------------------------------------------------------------------------------


def _file(path: Path) -> Source:
    suffix = _suffix(path)
    if suffix not in _FORMS:
        raise ValueError(f"{path} must end with {', '.join(_FORMS)}, or with .gz after one that is text")
    return _FORMS[suffix](path)


def _suffix(path: Path) -> str:
    """The last suffix, ignoring .gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix != ".gz"), "")


def _lines(path: Path) -> Iterator[bytes]:
    """A text file's lines, decompressed; ValueError in one line if it cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(40)
        if start.startswith(b"version https://git-lfs"):
            raise Fault(f"{path} is a Git LFS pointer and not the data: git lfs pull")
        zipped = start.startswith(b"\x1f\x8b")
        if path.suffix.lower() == ".gz" and not zipped:
            raise Fault(f"cannot read {path}: it is not gzipped, though its name ends with .gz")
        with gzip.open(path, "rb") if zipped else path.open("rb") as file:
            yield from file
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(f"cannot read {path}: {reason}") from None


def _text(path: Path) -> str:
    content = b"".join(_lines(path))
    code = next((code for mark, code in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(code).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"cannot read {path}: line {line} is not {code.upper()}; save it as UTF-8") from None
    if "\0" in text:
        raise ValueError(
            f"cannot read {path}: it contains null bytes, so it is not UTF-8 text; save it as UTF-8"
        )
    return text


def _json_lines(path: Path) -> Source:
    first = next((line for line in _lines(path) if line.strip()), b"")
    wide = any(first.startswith(mark) for mark, code in _MARKS if code != "utf-8")
    if wide or first.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        text = _text(path)
        array = _array(text) if text.lstrip().startswith("[") else None
        return array or Source("JSON Lines", _objects(text.split("\n")))
    return Source("JSON Lines", _objects(_lines(path)))  # a long file is read line by line


def _objects(lines: Iterable[bytes | str]) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:  # includes UnicodeDecodeError
                yield f"line {number}", ValueError(f"not JSON ({error})")


def _array(text: str) -> Source | None:
    """The rows of a JSON array; None if the text is something else."""
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return Source("a JSON array", _entries(rows)) if isinstance(rows, list) else None


def _json(path: Path) -> Source:
    text = _text(path)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("["):
            raise ValueError(f"{path} is not JSON ({error})") from None
        return _json_lines(path)
    if isinstance(found, list):
        return Source("a JSON array", _entries(found))
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold an array of objects, got {type(found).__name__}")
    names = {name.strip().lower() for name in found}
    if not any(wanted <= names for wanted in NAMED):
        arrays = [name for name, value in found.items() if _objects_in(value)]
        if len(arrays) != 1:
            known = ", ".join(arrays or found)
            raise ValueError(f"{path} is one JSON object with {known}; expected an array of objects")
        return Source(f"the JSON array {arrays[0]!r}", _entries(found[arrays[0]]))
    if not all(
        _is_column(value) for name, value in found.items() if name.strip().lower() in set().union(*NAMED)
    ):
        return Source("one JSON object", _entries([found]))
    columns = {
        name: list(value.values() if isinstance(value, dict) else value) for name, value in found.items()
    }
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path} holds columns of different lengths: {lengths}")
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return Source("a JSON object of columns", _entries(rows))


def _objects_in(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _is_column(value: Any) -> bool:
    """A list or an object of values, as pandas writes them; a list of messages or one message is a field."""
    return (isinstance(value, list) and not _objects_in(value)) or (
        isinstance(value, dict) and bool(value) and all(key.isdigit() for key in value)
    )


def _entries(rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"entry {number}", row) for number, row in enumerate(rows, start=1))


def _csv(path: Path) -> Source:
    csv.field_size_limit(2**24)
    text, skipped = _text(path), 0
    first = text.partition("\n")[0].strip()
    if first.lower().startswith("sep=") and len(first) == 5:  # Excel's
        text, skipped = text.partition("\n")[2], 1
    between = max(_BETWEEN, key=lambda mark: _fit(text, mark))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True)

    def rows() -> Iterator[tuple[str, Any]]:
        done = skipped  # lines of whole rows
        try:
            names = next(reader, [])
            doubled = {name for name in names if name and names.count(name) > 1}
            if doubled:
                raise ValueError(f"{path} has two columns called {', '.join(sorted(doubled))}")
            done += reader.line_num
            for row in reader:
                done = reader.line_num + skipped
                if len(row) == len(names):
                    yield f"line {done}", dict(zip(names, row, strict=True))
                elif row:
                    wrong = ValueError(f"{len(row)} fields, where the first line names {len(names)}")
                    yield f"line {done}", wrong
        except csv.Error as error:
            raise ValueError(f"{path}, after line {done}: not CSV ({error})") from None

    return Source(f"CSV with {_BETWEEN[between]}", rows())


def _fit(text: str, between: str) -> tuple[bool, int]:
    """How well a header matches our fields, and the number of its fields."""
    try:
        names = next(csv.reader(io.StringIO(text, newline=""), delimiter=between), [])
    except csv.Error:
        return False, 0
    found = {name.strip().lower() for name in names}
    return any(wanted <= found for wanted in NAMED), len(names)


def _parquet(path: Path) -> Source:
    require_package("pyarrow", "a Parquet file")
    from pyarrow import parquet

    with given(f"cannot read {path}", _why):
        batches = parquet.ParquetFile(path).iter_batches()
    return Source("Parquet", _rows_of(path, batches))


def _arrow(path: Path) -> Source:
    """`datasets` writes Arrow streams; other programs write files of the same format (Feather)."""
    require_package("pyarrow", "an Arrow file")
    import pyarrow

    with given(f"cannot read {path}", _why):
        file = pyarrow.memory_map(str(path))
        if file.read(6) == b"ARROW1":
            reader = pyarrow.ipc.open_file(file)
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            file.seek(0)
            batches = iter(pyarrow.ipc.open_stream(file))
    return Source("Arrow", _rows_of(path, batches))


def _rows_of(path: Path, batches: Iterator[Any]) -> Iterator[tuple[str, Any]]:
    number = 0
    for batch in _foreign(path, batches):
        with given(f"cannot read {path}, rows {number + 1} to {number + batch.num_rows}", _why):
            rows = batch.to_pylist()
        for row in rows:
            number += 1
            yield f"row {number}", row


def _foreign(what: object, found: Iterable[Any]) -> Iterator[Any]:
    """Yield from a library's reader; any error in it becomes one line."""
    values = iter(found)
    while True:
        with given(f"cannot read {what}", _why):
            value = next(values, _END)
        if value is _END:
            return
        yield value


def _why(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


_FORMS: dict[str, Callable[[Path], Source]] = {
    ".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet,
    ".arrow": _arrow,
}  # fmt: skip


# ---- data sets --------------------------------------------------------------------------------------------------

_SAVED = ("state.json", "dataset_dict.json")  # what save_to_disk writes, for one split and for several


def _folder(folder: Path, split: str) -> Source:
    require_package("datasets", f"the folder {folder}")
    from datasets import load_dataset, load_from_disk

    if not any((folder / name).is_file() for name in _SAVED):
        with one_line(
            f"folder {str(folder)!r}", "expected one of files that datasets reads, alike in their columns"
        ):
            rows = load_dataset(str(folder), split=split or "train")
        return Source("a folder of files", _numbered(folder, rows))
    with given(f"cannot read {folder}", _why):
        found = load_from_disk(str(folder))
    if not isinstance(found, dict):  # of one split
        return Source("a folder of save_to_disk", _numbered(folder, found))
    wanted = split or "train"
    if wanted not in found:
        raise ValueError(
            f"{folder} has no split {wanted}; give one of {', '.join(f'{folder}@{name}' for name in found)}"
        )
    return Source(f"split {wanted} of a folder of save_to_disk", _numbered(folder, found[wanted]))


def _hub(source: str) -> Source:
    require_package("datasets", f"the data set {source!r} of the hub")
    from datasets import load_dataset

    name, _, part = source.partition("@")
    name, _, config = name.partition(":")
    with one_line(f"data set {source!r}", "expected a file, or NAME, NAME:CONFIG or NAME@SPLIT on the hub"):
        rows = load_dataset(name, config or None, split=part or "train")
    return Source(f"split {part or 'train'} of a data set", _numbered(source, rows))


def _numbered(source: object, rows: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"row {number}", row) for number, row in enumerate(_foreign(source, rows), start=1))
