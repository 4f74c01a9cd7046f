"""Real data in every form, from files and a hub that is played."""

import csv
import gzip
import json
import sys
import types

import pytest

from rlhflab.data.hub import LabelledText, beginnings, pairs_of_labels, read_data, split
from rlhflab.worlds.preferences import PreferencePair

ROWS = [{"prompt": f"p{n}", "chosen": f"c{n}", "rejected": f"r{n}"} for n in range(5)]
PAIRS = tuple(PreferencePair(f"p{n}", f"c{n}", f"r{n}") for n in range(5))
REVIEWS = [{"text": f"A film, number {n}, of some length.", "label": n % 2} for n in range(6)]


def read(source, **settings):
    return read_data(str(source), progress=False, **settings)


@pytest.fixture
def write(tmp_path):
    def write(rows, name):
        path = tmp_path / name
        if ".parquet" in name:
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        elif ".csv" in name:
            with path.open("w", newline="") as file:
                table = csv.DictWriter(file, rows[0])
                table.writeheader()
                table.writerows(rows)
        else:
            lines = json.dumps(rows) if ".jsonl" not in name else "\n".join(map(json.dumps, rows))
            path.write_text(lines)
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(path.read_bytes()))
        return path

    return write


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.csv", "a.csv.gz", "a.parquet"]
)
def test_every_file_gives_the_same_pairs(write, name):
    found = read(write(ROWS, name))
    assert found.pairs == PAIRS and found.texts == () and found.dropped == ()


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_conversations_are_read_from_every_file_that_can_hold_them(write, name):
    turn = [{"role": "user", "content": "Hello!"}]
    rows = [
        {
            "prompt": turn,
            **{side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")},
        }
    ]
    assert read(write(rows, name)).pairs == (
        PreferencePair("\n\nHuman: Hello!\n\nAssistant:", " chosen", " rejected"),
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_texts_with_labels(write, name):
    found = read(write(REVIEWS, name))
    assert found.texts[:2] == (
        LabelledText(REVIEWS[0]["text"], False),
        LabelledText(REVIEWS[1]["text"], True),
    )
    assert list(beginnings(found, 3)) == ["A film, number"]  # each once
    pairs = pairs_of_labels(found.texts, seed=0)
    assert len(pairs) == 3 and all(pair.prompt == "" for pair in pairs)
    texts = {each.text: each.wanted for each in found.texts}
    assert all(texts[pair.chosen] and not texts[pair.rejected] for pair in pairs)
    with pytest.raises(ValueError, match="all texts have the same label"):
        pairs_of_labels(found.texts[::2], seed=0)


def test_first_words_are_the_texts_own_and_need_blanks(write):
    found = read(
        write([{"text": "One  two\nthree four", "label": "pos"}, {"text": " a", "label": "neg"}], "a.jsonl")
    )
    assert beginnings(found, 3) == {"One  two\nthree": "line 1", "a": "line 2"}
    found = read(write([{"text": "这部电影很好看", "label": 1}, {"text": "很无聊", "label": 0}], "a.jsonl"))
    with pytest.raises(ValueError, match="no spaces between words, so their first 8 words are not known"):
        beginnings(found, 8)


def test_a_json_file_may_hold_json_lines(tmp_path):
    (tmp_path / "a.json").write_text("\n".join(map(json.dumps, ROWS)))
    assert read(tmp_path / "a.json").pairs == PAIRS


def test_pairs_that_teach_nothing_are_left_out_and_counted(write):
    rows = [*ROWS, {**ROWS[0], "chosen": " "}, {**ROWS[0], "rejected": "c0"}, {**ROWS[1], "rejected": ""}]
    found = read(write(rows, "a.jsonl"))
    assert found.pairs == PAIRS
    assert dict(found.dropped) == {"with an empty answer": 2, "with two equal answers": 1}
    with pytest.raises(ValueError, match=r"holds no usable pair: 1 with an empty answer"):
        read(write(rows[5:6], "b.jsonl"))


@pytest.mark.parametrize(
    ("name", "row", "says"),
    [
        (
            "a.jsonl",
            {"prompt": "p", "chosen": 3, "rejected": "r"},
            "line 6: field 'chosen' must be a non-empty string",
        ),
        ("a.json", {"prompt": "p", "rejected": "r"}, "entry 6: field 'chosen' is missing"),
        ("a.json", 7, "entry 6: a JSON object is needed, got 7"),
        ("a.parquet", {"prompt": None, "chosen": "c", "rejected": "r"}, "row 6: field 'prompt' must be"),
        ("a.csv", {"prompt": " ", "chosen": "c", "rejected": "r"}, "line 7: field 'prompt' must be"),
        ("a.jsonl", {"text": "x", "label": "good"}, "line 6: field 'label' must be 0 or 1, or one of"),
        ("a.jsonl", {"text": 1, "label": 1}, "line 6: field 'text' must be a string, got 1"),
    ],
)
def test_a_bad_row_is_named_with_file_place_and_field_and_nothing_is_half_loaded(write, name, row, says):
    path = write([*ROWS, row], name)
    with pytest.raises(ValueError, match=says) as error:
        read(path)
    assert str(error.value).startswith(f"{path}, ") and "\n" not in str(error.value)
    with pytest.warns(UserWarning, match="1 bad rows left out"):
        assert read(path, skip_bad=True).pairs == PAIRS


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl.gz", b"no gzip", "cannot read"),
        ("a.json", b"[{", "is not JSON"),
        ("a.parquet", b"PAR1 no parquet", "cannot read"),
        ("a.csv", b'prompt,chosen,rejected\n"p,c,r', "after line 1: not CSV"),
        ("a.csv", b"prompt,chosen,rejected\np,c\n", "line 2: 2 fields, where the first line names 3"),
        ("a.txt", b"x", r"must end with \.jsonl, \.ndjson, \.json, .*, or with \.gz"),
        ("a.json", b"\xff\xfe[]", "not JSON|cannot read"),
        ("a.csv", b"", "is empty"),
    ],
)
def test_files_that_cannot_be_read_are_one_line(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value) and name in str(error.value)


def test_one_source_holds_one_kind(write):
    with pytest.raises(ValueError, match="both pairs and labelled texts"):
        read(write([*ROWS, *REVIEWS], "a.jsonl"))


def test_the_split_depends_on_the_seed_and_loses_nothing():
    train, held_out = split(range(100), 20, seed=3)
    assert (len(train), len(held_out)) == (80, 20) and sorted([*train, *held_out]) == list(range(100))
    assert (train, held_out) == split(range(100), 20, seed=3) != split(range(100), 20, seed=4)


# ---- the hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """Put a hub in place of `datasets`; returns what it was asked for."""
    asked = []

    def load_dataset(name, config=None, split=None):
        asked.append((name, config, split))
        if isinstance(ROWS_OF[name], Exception):
            raise ROWS_OF[name]
        return ROWS_OF[name]

    from datasets.exceptions import DatasetNotFoundError

    ROWS_OF = {
        "some/pairs": ROWS,
        "some/gated": DatasetNotFoundError(
            "Dataset 'some/gated' is a gated dataset on the Hub. You must be logged in."
        ),
        "some/none": DatasetNotFoundError(
            "Dataset 'some/none' doesn't exist on the Hub or cannot be accessed."
        ),
        "some/far": ConnectionError("Couldn't reach 'some/far' on the Hub (OfflineModeIsEnabled)"),
    }
    monkeypatch.setitem(
        sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset, __spec__=object())
    )
    return asked


def test_names_configurations_and_splits(hub):
    sources = (
        "some/pairs",
        "some/pairs:small",
        "some/pairs@test",
        "some/pairs:small@test",
        "some/pairs@train[:50]",
    )
    for source in sources:
        assert read(source).pairs == PAIRS
    assert hub == [
        ("some/pairs", None, "train"), ("some/pairs", "small", "train"), ("some/pairs", None, "test"),
        ("some/pairs", "small", "test"), ("some/pairs", None, "train[:50]"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("some/gated", "it is gated: accept its terms .* HF_TOKEN"),
        ("some/none", "the hub has no such name, or it is private"),
        ("some/far", "the hub cannot be reached; .* give the folder or file of a copy"),
    ],
)
def test_what_a_hub_answers_is_one_line(hub, name, says):
    with pytest.raises(ValueError, match=says) as error:
        read(name)
    assert str(error.value).startswith(f"cannot load data set '{name}' (expected a file, or NAME")
    assert "\n" not in str(error.value)


def test_without_datasets_the_fix_is_told(monkeypatch):
    monkeypatch.setattr("rlhflab.remedies.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match="data set 'some/pairs' of the hub needs datasets: python -m pip install datasets"
    ):
        read("some/pairs")


def test_hh_rlhf_is_read_with_what_is_left_out(hh_rlhf):
    found = read(hh_rlhf)
    assert len(found.pairs) == 2308 and found.dropped == (("with an empty answer", 4),)


@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        (1, True), ("1", True), ("pos", True), ("Positive", True), (True, True), (" TRUE ", True),
        (0, False), ("0", False), ("neg", False), ("Negative", False), (False, False), ("false", False),
    ],
)  # fmt: skip
def test_every_label_is_read_as_what_it_says(write, label, wanted):
    path = write([{"text": "A film.", "label": label}], "a.jsonl")
    assert read(path).texts == (LabelledText("A film.", wanted),)
