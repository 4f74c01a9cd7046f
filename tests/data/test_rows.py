"""Files, folders and data sets as rows: encodings, delimiters, JSON in every shape, and what cannot be read."""

import datetime
import gzip
import json

import pytest

from rlhflab.data.hub import read_data
from rlhflab.recipes.recipe import is_text_source
from rlhflab.worlds.preferences import PreferencePair

ROWS = [{"prompt": f"p{n} ä?", "chosen": f"c{n}", "rejected": f"r{n}"} for n in range(3)]
PAIRS = tuple(PreferencePair(**row) for row in ROWS)
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
TABLE = "prompt{0}chosen{0}rejected\r\n" + "".join(f"p{n} ä?{{0}}c{n}{{0}}r{n}\r\n" for n in range(3))
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


def read(source, **settings):
    return read_data(str(source), progress=False, **settings)


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", TABLE.format(",")),
        ("a.json", json.dumps(ROWS)),
        ("a.jsonl", LINES),
        ("a.jsonl", json.dumps(ROWS)),
    ],
)
def test_byte_order_marks_are_no_part_of_the_text(write, name, text, code):
    assert read(write(name, text.encode(code))).pairs == PAIRS
    assert read(write(f"{name}.gz", gzip.compress(text.encode(code)))).pairs == PAIRS


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("a.csv", TABLE.format(";"), "CSV with semicolons"),
        ("a.csv", TABLE.format("\t"), "CSV with tabs"),
        ("a.tsv", TABLE.format("\t"), "CSV with tabs"),
        ("a.csv", "sep=;\r\n" + TABLE.format(";"), "CSV with semicolons"),
        ("a.csv", TABLE.format(",").replace("prompt,chosen", " Prompt,CHOSEN"), "CSV with commas"),
        ("a.CSV", TABLE.format(","), "CSV with commas"),
        ("a.json.bak.csv", TABLE.format(","), "CSV with commas"),
        ("a.csv.2024.jsonl", LINES, "JSON Lines"),
        ("a.ndjson", LINES, "JSON Lines"),
        ("a.json", LINES, "JSON Lines"),
        ("a.jsonl", json.dumps(ROWS, indent=1), "a JSON array"),
        ("a.json", json.dumps({"version": 1, "data": ROWS}), "the JSON array 'data'"),
        ("a.json", json.dumps(COLUMNS), "a JSON object of columns"),
        (
            "a.json",
            json.dumps({k: dict(enumerate(v)) for k, v in COLUMNS.items()}),
            "a JSON object of columns",
        ),
    ],
)
def test_every_form_is_read_and_named(write, name, text, form):
    found = read(write(name, text.encode()))
    assert found.pairs == PAIRS and found.note.startswith(f"{name}, {form}: 3 rows, 3 pairs; ")


def test_one_pair_of_messages_is_a_row_and_no_columns(write):
    row = {
        "prompt": [{"role": "user", "content": "q"}],
        **{k: [{"role": "assistant", "content": k}] for k in ("chosen", "rejected")},
    }
    found = read(write("a.json", json.dumps(row, indent=1).encode()))
    assert "one JSON object" in found.note and found.pairs[0].chosen == " chosen"


def test_a_file_may_be_gzipped_without_saying_so(write):
    assert read(write("a.csv", gzip.compress(TABLE.format(",").encode()))).pairs == PAIRS


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.jsonl",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "is a Git LFS pointer .*: git lfs pull",
        ),
        ("a.jsonl.gz", LINES.encode(), "it is not gzipped, though its name ends with .gz"),
        ("a.csv", TABLE.format(",").encode("cp1252"), "line 2 is not UTF-8; save it as UTF-8"),
        ("a.csv", TABLE.format(",").replace("ä", "a").encode("utf-16-le"), "it contains null bytes"),
        ("a.csv", b"prompt,chosen,rejected,chosen\na,b,c,d\n", "has two columns called chosen"),
        ("a.csv", b"frage;ja;nein\na;b;c\n", "field 'chosen' is missing; there are frage, ja, nein"),
        (
            "a.json",
            b'{"train": [{"a": 1}], "test": [{"a": 1}]}',
            "one JSON object with train, test; expected an array",
        ),
        (
            "a.json",
            b'{"prompt": ["a"], "chosen": ["b"], "rejected": ["c", "d"]}',
            "columns of different lengths",
        ),
        ("a.json", b"3", "must hold an array of objects, got int"),
        ("a.jsonl", b"[" * 100_000, "not JSON"),
        ("a.arrow", b"no arrow", "cannot read .*a.arrow"),
        ("a.xlsx", b"PK", "must end with .jsonl, .ndjson"),
    ],
)
def test_what_cannot_be_read_is_one_line(write, name, content, says):
    with pytest.raises(ValueError, match=says) as error:
        read(write(name, content))
    assert name in str(error.value) and "\n" not in str(error.value)


def test_columns_of_other_types_are_named_with_row_and_type(tmp_path):
    import pyarrow
    from pyarrow import parquet

    for value, says in (
        (b"p", "got bytes b'p'"),
        (3, "got 3"),
        (datetime.date(2024, 1, 2), "got date datetime.date"),
        ({"x": "p"}, r"got \{\"x\": \"p\"\}"),
    ):
        parquet.write_table(pyarrow.Table.from_pylist([{**ROWS[0], "prompt": value}]), tmp_path / "a.parquet")
        with pytest.raises(
            ValueError, match=rf"a.parquet, row 1: field 'prompt' must be a non-empty string.*{says}"
        ):
            read(tmp_path / "a.parquet")


def test_arrow_files_and_folders_of_datasets(tmp_path):
    import pyarrow
    from datasets import Dataset, DatasetDict

    data = Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "saved")
    DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(tmp_path / "splits")
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.ipc.new_file(tmp_path / "file.arrow", table.schema) as file:
        file.write_table(table)
    for source in ("saved", "saved/data-00000-of-00001.arrow", "splits", "splits@train", "file.arrow"):
        assert is_text_source(str(tmp_path / source)) and read(tmp_path / source).pairs == PAIRS, source
    assert read(tmp_path / "splits@test").pairs == PAIRS[:1]
    with pytest.raises(ValueError, match=r"has no split valid; give one of .*splits@train, .*splits@test"):
        read(tmp_path / "splits@valid")
    (tmp_path / "saved" / "state.json").write_text("{")
    with pytest.raises(ValueError, match=r"^cannot read [^\n]*saved: [^\n]*$"):
        read(tmp_path / "saved")


def test_a_folder_of_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mine"
    folder.mkdir()
    assert not is_text_source(str(folder))
    (folder / "a.jsonl").write_text(LINES)
    assert is_text_source(str(folder)) and read(folder).pairs == PAIRS
    (folder / "b.jsonl").write_text(json.dumps({**ROWS[0], "score": 1}))
    with pytest.raises(
        ValueError, match=r"cannot load folder [^\n]*mine' [^\n]*files differ in columns[^\n]*score"
    ) as error:
        read(folder)
    assert "\n" not in str(error.value)


def test_what_breaks_while_a_data_set_is_read_is_one_line(monkeypatch):
    import datasets

    def rows():
        yield ROWS[0]
        raise RuntimeError("the disk\nis gone")

    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: rows())
    with pytest.raises(ValueError, match=r"^cannot read some/pairs: the disk is gone$"):
        read("some/pairs", skip_bad=True)


def test_a_place_is_told_of_every_pair(write):
    places = [pair.place for pair in read(write("a.csv", TABLE.format(",").encode())).pairs]
    assert places == ["line 2", "line 3", "line 4"]
