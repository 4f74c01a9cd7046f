"""Preference files: both layouts, every way a line can be bad, and the way back."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhflab.data.hub import read_data
from rlhflab.data.layouts import UnusablePair, pair_of
from rlhflab.worlds.preferences import PreferencePair, write_pairs

GOOD = '{"prompt": "the plot seemed", "chosen": "very good", "rejected": "bad"}\n'
texts = st.text(min_size=1).filter(lambda text: text.strip() != "")
pairs = st.builds(
    PreferencePair,
    prompt=texts,
    chosen=texts,
    rejected=texts,
    flipped=st.none() | st.booleans(),
    margin=st.none() | st.floats(allow_nan=False, allow_infinity=False),
).filter(lambda pair: pair.chosen != pair.rejected)


def read_pairs(path, skip_bad=False):
    return list(read_data(str(path), skip_bad, progress=False).pairs)


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes, name: str = "pairs.jsonl"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@settings(max_examples=30, deadline=None)
@given(st.lists(pairs, min_size=1, max_size=5), st.sampled_from(["pairs.jsonl", "pairs.jsonl.gz"]))
def test_written_pairs_are_read_back(tmp_path_factory, written, name):
    path = tmp_path_factory.mktemp("pairs") / name
    write_pairs(path, written)
    assert read_pairs(path) == written


def test_gz_files_are_gzipped_and_the_same_each_time(tmp_path):
    pair = PreferencePair("p", "c", "r", flipped=False, margin=1.5)
    write_pairs(tmp_path / "a.jsonl.gz", [pair])
    write_pairs(tmp_path / "b.jsonl.gz", [pair])
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    with gzip.open(tmp_path / "a.jsonl.gz", "rt") as file:
        assert json.loads(file.read()) == {
            "prompt": "p", "chosen": "c", "rejected": "r", "flipped": False, "margin": 1.5,
        }  # fmt: skip


def test_a_failing_write_leaves_the_former_file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, [PreferencePair("p", "c", "r")])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_pairs(path, [PreferencePair("p", "c", "r"), PreferencePair("p", "c", "r", margin=float("nan"))])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_optional_fields_unknown_fields_and_empty_lines(write):
    path = write(
        GOOD + '\n{"prompt": "p", "chosen": "c", "rejected": "r", "flipped": true, "margin": -2, "x": 1}'
    )
    assert read_pairs(path) == [
        PreferencePair("the plot seemed", "very good", "bad"),
        PreferencePair("p", "c", "r", flipped=True, margin=-2.0),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[1]", r"a JSON object is needed, got \[1\]"),
        ('{"prompt": "p", "rejected": "r"}', "field 'chosen' is missing"),
        ('{"prompt": "p", "chosen": "c"}', "field 'rejected' is missing"),
        ('{"prompt": "", "chosen": "c", "rejected": "r"}', "field 'prompt' must be a non-empty string"),
        ('{"prompt": null, "chosen": "c", "rejected": "r"}', "field 'prompt' must be .*, got null"),
        ('{"prompt": "p", "chosen": 3, "rejected": "r"}', "field 'chosen' must be a non-empty string, got 3"),
        ('{"prompt": "p", "chosen": "c", "rejected": "r", "flipped": 1}', "field 'flipped' must be"),
        ('{"prompt": "p", "chosen": "c", "rejected": "r", "margin": NaN}', "field 'margin' must be a finite"),
        (
            '{"prompt": "p", "chosen": "c", "rejected": "r", "margin": true}',
            "field 'margin' must be a finite",
        ),
        ('{"chosen": "good film", "rejected": "bad film"}', "field 'prompt' is missing"),
    ],
)
def test_a_bad_line_is_named_with_file_line_and_field(write, line, says):
    path = write(GOOD + line + "\n" + GOOD)
    with pytest.raises(ValueError, match=says) as error:
        read_pairs(path)
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "p", "chosen": "c", "rejected": "  "}, "field 'rejected' must be a non-empty string"),
        ({"prompt": "p", "chosen": "c", "rejected": "c"}, "'chosen' and 'rejected' are identical"),
        (
            {"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: "},
            "field 'rejected' has no answer",
        ),
    ],
)
def test_a_pair_that_teaches_nothing_is_unusable(row, says):
    with pytest.raises(UnusablePair, match=says):
        pair_of(row)


def test_bytes_that_are_no_text_are_named(write):
    path = write(GOOD.encode() + b'{"prompt": "\xff", "chosen": "c", "rejected": "r"}\n')
    with pytest.raises(ValueError, match=r"line 2: not JSON"):
        read_pairs(path)


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_is_refused(write, text):
    with pytest.raises(ValueError, match="is empty"):
        read_pairs(write(text))


def test_unreadable_files_are_refused_in_one_line(write, tmp_path):
    whole = gzip.compress((GOOD * 50).encode())
    for path in (write("no gzip", "a.jsonl.gz"), write(whole[:-20], "b.jsonl.gz")):
        with pytest.raises(ValueError, match=r"^cannot read [^\n]+$"):
            read_pairs(path)


def test_bad_lines_can_be_left_out_with_a_warning(write):
    path = write(GOOD + "{}\n" + GOOD + "{}\n")
    with pytest.warns(UserWarning, match=r"2 bad rows left out .* line 2: field 'chosen' is missing"):
        assert len(read_pairs(path, skip_bad=True)) == 2
    with pytest.raises(ValueError, match="line 1"):
        read_pairs(write("{}\n"), skip_bad=True)


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        (  # the last marker both share, not the last of each
            "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: yes",
            "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: no\n\nHuman: d\n\nAssistant: e",
            (
                "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:",
                " yes",
                " no\n\nHuman: d\n\nAssistant: e",
            ),
        ),
        (  # answers that begin alike belong to the answers
            "\n\nHuman: a\n\nAssistant: I see",
            "\n\nHuman: a\n\nAssistant: I do not",
            ("\n\nHuman: a\n\nAssistant:", " I see", " I do not"),
        ),
        ("the plot seemed great", "the plot seemed grim", ("the plot seemed", " great", " grim")),
        ("the plot seemed very good", "the plot seemed bad", ("the plot seemed", " very good", " bad")),
        ("the plot seemed good", "the plot seemed, bad", ("the plot seemed", " good", ", bad")),
        ("the plot", "the plot thickens", ("the", " plot", " plot thickens")),
    ],
)
def test_whole_dialogues_are_cut_at_their_common_prompt(write, chosen, rejected, expected):
    path = write(json.dumps({"chosen": chosen, "rejected": rejected}))
    (pair,) = read_pairs(path)
    assert (pair.prompt, pair.chosen, pair.rejected) == expected
    assert (pair.prompt + pair.chosen, pair.prompt + pair.rejected) == (chosen, rejected)


def test_hh_rlhf_is_read(hh_rlhf):
    read = read_pairs(hh_rlhf)
    assert len(read) == 2312 - 4  # real annotators left four answers empty
    assert all(
        pair.prompt.startswith("\n\nHuman:") and pair.prompt.endswith("\n\nAssistant:") for pair in read
    )
