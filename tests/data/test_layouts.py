"""Every layout of fields that is read, and that what may be the prompt is never ignored."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhflab.data.dialogue import MARKS, dialogue_text, messages_of
from rlhflab.data.hub import read_data
from rlhflab.data.layouts import Understood, understand

SYSTEM, USER = {"role": "system", "content": "be nice"}, {"role": "user", "content": "q"}
TWO = {"chosen": "yes", "rejected": "no"}
TURN = "\n\nHuman: q\n\nAssistant:"


def answers(*before):
    return {
        name: [*before, {"role": "assistant", "content": text}]
        for name, text in (("chosen", "yes"), ("rejected", "no"))
    }


def shaped(row):
    """As ShareGPT writes messages."""
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return [{"from": names[message["role"]], "value": message["content"]} for message in row]


@pytest.mark.parametrize(
    ("row", "prompt", "how", "unused"),
    [
        ({"prompt": "q", **TWO}, "q", "'prompt', as it is", ()),
        ({"Prompt": "q", " CHOSEN ": "yes", "Rejected": "no"}, "q", "'prompt', as it is", ()),
        ({"prompt": "q", **TWO, "score": 3, "frage": "a b"}, "q", "'prompt', as it is", ("score", "frage")),
        (
            {"instruction": "q", "input": "", "output": "x y", **TWO},
            TURN,
            "'instruction' and 'input', in turns",
            ("output",),
        ),
        (
            {"instruction": "q", "input": "i", **TWO},
            "\n\nHuman: q\n\ni\n\nAssistant:",
            "'instruction' and 'input', in turns",
            (),
        ),
        ({"instruction": "q", **TWO}, TURN, "'instruction', in turns", ()),
        ({"question": "q", **TWO}, TURN, "'question', in turns", ()),
        ({"query": "q", **answers()}, TURN, "'query', in turns", ()),
        (
            {"system": "be nice", "question": "q", **TWO},
            "\n\nSystem: be nice" + TURN,
            "'system' and 'question', in turns",
            (),
        ),
        ({"system": "", "question": "q", **TWO}, TURN, "'question', in turns", ()),
        (
            {"system": "be nice", "prompt": "q", **TWO},
            "\n\nSystem: be nice" + TURN,
            "'system' and 'prompt', in turns",
            (),
        ),
        (
            {"system": "be nice", "prompt": [SYSTEM, USER], **TWO},
            "\n\nSystem: be nice" + TURN,
            "'prompt', in turns",
            (),
        ),
        ({"prompt": [USER], **TWO}, TURN, "'prompt', in turns", ()),
        ({"prompt": "q", **answers(USER)}, TURN, "the messages before the answers, in turns", ()),
        ({"prompt": [USER], **answers(USER)}, TURN, "'prompt', in turns, which the answers repeat", ()),
        (
            {"prompt": [SYSTEM, USER], **answers(USER)},
            "\n\nSystem: be nice" + TURN,
            "'prompt', in turns, which the answers repeat",
            (),
        ),
        (
            {"prompt": [USER], **answers(SYSTEM, USER)},
            "\n\nSystem: be nice" + TURN,
            "'prompt', in turns, which the answers repeat",
            (),
        ),
        (
            {"prompt": [SYSTEM], **answers(USER)},
            "\n\nSystem: be nice" + TURN,
            "'prompt' and the messages before the answers, in turns",
            (),
        ),
        (
            {"prompt": str([USER]), **{k: str(v) for k, v in answers().items()}},
            TURN,
            "'prompt', in turns",
            (),
        ),
        (
            {k: json.dumps(v) for k, v in answers(USER).items()},
            TURN,
            "the messages before the answers, in turns",
            (),
        ),
        (
            {"conversations": shaped([USER]), **{k: shaped(v)[0] for k, v in answers().items()}},
            TURN,
            "'conversations', in turns",
            (),
        ),
        (
            {"prompt": [{"role": "user", "content": [{"type": "text", "text": "q"}]}], **answers()},
            TURN,
            "'prompt', in turns",
            (),
        ),
        # what may be the prompt, and stands in the pair: ultrafeedback_binarized, orpo-dpo-mix
        (
            {"prompt": "q", "messages": answers(USER)["chosen"], **answers(USER), "prompt_id": "1"},
            TURN,
            "the messages before the answers, in turns",
            ("prompt_id",),
        ),
        (
            {"source": "s", "question": "q", "prompt": "q", **answers(USER)},
            TURN,
            "the messages before the answers, in turns",
            ("source",),
        ),
        ({"prompt": "q", "context": None, "input": "", "history": [], **TWO}, "q", "'prompt', as it is", ()),
    ],
)
def test_every_layout_is_read(row, prompt, how, unused):
    found = understand(row)
    space = "" if prompt == "q" else " "
    assert found == Understood(prompt, space + "yes", space + "no", how, unused)


@pytest.mark.parametrize(
    "name", ["context", "history", "input", "messages", "document", "user", "query", "system", "conversation"]
)
@pytest.mark.parametrize("layout", [{"prompt": "q"}, {}, {"instruction": "q"}])
def test_a_field_that_may_be_the_prompt_is_read_or_refused(name, layout):
    value = [["before", "after"]] if name == "history" else "of importance"
    whole = {"chosen": "so it is yes", "rejected": "so it is no"}
    try:
        found = understand({name: value, **layout, **whole})
    except ValueError as error:
        assert repr(name) in str(error)
    else:
        assert (
            "of importance" in found.prompt
            and found.how != "the common beginning of the texts, up to a word's end"
        )


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {"frage": "was ist es?", "chosen": "es ist a", "rejected": "es ist b"},
            "if 'frage' is the prompt, rename it",
        ),
        ({"题目": "一加一等于几", "chosen": "a b", "rejected": "a c"}, "if '题目' is the prompt, rename it"),
        ({"chosen": "今天天气很好", "rejected": "今天天气不好"}, "no spaces between words"),
        ({"chosen": "東京は 日本です", "rejected": "東京は 首都です"}, "no spaces between words"),
        ({"prompt": "q", "answers": []}, "field 'chosen' is missing; there are prompt, answers"),
        ({"prompt": "other", **answers(USER)}, "field 'prompt' may belong to the prompt but is not read"),
        (
            {"prompt": "[{'role': 'user', 'content': 'q'} {'role'", **TWO},
            "'prompt' looks like messages written as text",
        ),
        (
            {"prompt": [{"role": "tool", "content": "3"}], **TWO},
            "message 0: its role is 'tool'; only system, user, assis",
        ),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image_url"}]}], **TWO},
            "a part of its content is 'image_url'",
        ),
        ({"prompt": [{"role": "user", "content": None}], **TWO}, "its content must be text, got None"),
        (
            {"prompt": [{**USER, "content": "q?"}], **answers(USER)},
            "begin with a turn of the user that the prompt does not",
        ),
        (
            {"prompt": [USER], **answers({"role": "system", "content": "x"}, {**USER, "content": "r"})},
            "a turn of the system",
        ),
        (
            {"prompt": [USER, {"role": "assistant", "content": "so"}], **answers()},
            "the assistant speaks last",
        ),
        ({"system": "x", "prompt": [SYSTEM, USER], **TWO}, "different turns of the system"),
        (
            {"prompt": "q", "chosen": f"{TURN} a", "rejected": f"{TURN} b"},
            "whole dialogues that differ from 'prompt'",
        ),
        ({"prompt": "q", "Prompt": "r", **TWO}, "names that differ only in case"),
        ({"prompt": b"q", **TWO}, "'prompt' must be a non-empty string, got bytes b'q'"),
        ({"prompt": {"text": "q"}, **TWO}, r"'prompt' must be a non-empty string, got {\"text\": \"q\"}"),
        ({"prompt": "q", "chosen": "\ud83d", "rejected": "no"}, "'chosen' holds half of a character"),
        (
            {"prompt": "q", "chosen": ["yes"], "rejected": ["no"]},
            r"a message {role, content} is needed, got 'yes'",
        ),
    ],
)
def test_what_is_not_understood_is_named(row, says):
    with pytest.raises(ValueError, match=says) as error:
        understand(row)
    assert "\n" not in str(error.value)


contents = st.text(st.sampled_from("ab \n\t:H"), max_size=12)


@given(st.lists(st.tuples(st.sampled_from(["system", "user"]), contents), min_size=1, max_size=4))
def test_every_character_of_a_message_survives_the_text(turns):
    messages = [{"role": role, "content": content} for role, content in turns]
    assert messages_of(dialogue_text(messages) + MARKS["assistant"]) == messages


def test_blanks_of_an_answer_are_kept():
    code = {"prompt": [USER], **answers()}
    code["chosen"][0]["content"], code["rejected"][0]["content"] = "    return 1\n", "return 1"
    assert understand(code)[1:3] == ("     return 1\n", " return 1")


def write(tmp_path, rows):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return read_data(str(tmp_path / "a.jsonl"), progress=False)


def test_a_prompt_that_all_answers_repeat_is_kept_once_and_said(tmp_path):
    rows = [{"prompt": f"p {n}:", "chosen": f"p {n}: yes", "rejected": f"p {n}: no"} for n in range(3)]
    found = write(tmp_path, rows)
    assert [(pair.chosen, pair.rejected) for pair in found.pairs] == [(" yes", " no")] * 3
    assert "'prompt', as it is, which all answers repeat" in found.note
    found = write(tmp_path, [*rows, {"prompt": "q", **TWO}])
    assert found.pairs[0].chosen == "p 0: yes"  # a few may begin so by chance
    assert "in 3 pairs both answers begin with it, which is left unchanged" in found.note


def test_the_note_says_in_one_line_what_was_read(tmp_path):
    long = "x" * 200
    rows = [{"prompt": "q\n", "chosen": long, "rejected": "no", "id": 1}] * 2 + [
        {"question": "q", **TWO},
        {"prompt": "q", "chosen": " ", "rejected": "no"},
    ]
    note = write(tmp_path, rows).note
    assert note.startswith(
        "a.jsonl, JSON Lines: 4 rows, 3 pairs; prompt: 'prompt', as it is (2 rows), or 'question', in turns (1 rows);"
    )
    assert f'first: prompt "q\\n", chosen "{"x" * 30}…{"x" * 30}", rejected "no"' in note
    assert note.endswith("left out: 1 with an empty answer; not used: id") and "\n" not in note
    texts = write(tmp_path, [{"text": "Good.", "label": 1.0}, {"text": "Bad.", "label": "0.0"}])
    assert (
        texts.note
        == 'a.jsonl, JSON Lines: 2 rows, 2 texts, 1 of them wanted by their labels; first: "Good." is wanted'
    )


def test_answers_without_prompts_are_not_cut_where_some_begin_alike_by_chance(tmp_path):
    alike = [{"chosen": f"I am {n} good", "rejected": f"I am {n} bad"} for n in range(3)]
    assert write(tmp_path, alike).pairs[0].prompt == "I am 0"
    (tmp_path / "a.jsonl").write_text(
        "\n".join(map(json.dumps, [*alike, {"chosen": "Yes.", "rejected": "No."}]))
    )
    for skip_bad in (False, True):
        with pytest.raises(
            ValueError, match="line 4: field 'prompt' is missing and 'chosen' and 'rejected' do not begin"
        ):
            read_data(str(tmp_path / "a.jsonl"), skip_bad, progress=False)
