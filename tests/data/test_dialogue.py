"""Dialogues as messages and as text."""

import pytest

from rlhflab.data.dialogue import dialogue_text, joined, messages_of
from rlhflab.data.layouts import UnusablePair, understand

USER, REPLY = {"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi."}
MORE = {"role": "user", "content": "Who are you?"}


def good(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [USER, REPLY],
        [USER, REPLY, MORE],
        [{"role": "system", "content": "Be kind."}, USER, REPLY, MORE],
    ],
)
def test_messages_survive_the_text(messages):
    assert messages_of(dialogue_text(messages)) == messages


def test_what_is_a_dialogue_and_what_is_not():
    assert messages_of("\n\nHuman: Hello!\n\nAssistant:") == [USER]
    assert messages_of("Human: Hello!") is None  # no turn begins it
    assert messages_of("A text\n\nHuman: Hello!") is None
    assert messages_of("\n\nAssistant:") is None


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": [USER], "chosen": [good("a")], "rejected": [good("b")]}, [USER]),
        (
            {"prompt": [USER, REPLY, MORE], "chosen": [good("a")], "rejected": [good("b")]},
            [USER, REPLY, MORE],
        ),
        ({"chosen": [USER, good("a")], "rejected": [USER, good("b")]}, [USER]),  # TRL's implicit prompt
        (
            {"prompt": "Hello!", "chosen": [USER, good("a")], "rejected": [USER, good("b")]},
            [USER],
        ),  # ultrafeedback
        ({"prompt": "Hello!", "chosen": [good("a")], "rejected": [good("b")]}, [USER]),
        (
            {"prompt": [USER], "chosen": [USER, good("a")], "rejected": [USER, good("b")]},
            [USER],
        ),  # told twice
    ],
)
def test_lists_of_messages_are_pairs(row, prompt):
    pair = understand(row)
    assert messages_of(pair.prompt) == prompt
    assert pair.prompt.endswith("\n\nAssistant:")
    assert (pair.chosen, pair.rejected) == (" a", " b")


@pytest.mark.parametrize("kind", [list, tuple])
def test_messages_in_both_parts_are_kept_once(kind):
    whole = [USER, REPLY, MORE]
    parts = [
        ([USER], whole),
        (whole, [MORE]),
        ([USER, REPLY], [MORE]),
        (whole, whole),
        (whole, []),
        ([], whole),
    ]
    for told, before in parts:
        assert joined(kind(told), kind(before)) == whole


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {"prompt": [USER], "chosen": "a", "rejected": [good("b")]},
            "field 'chosen' must be a list of messages",
        ),
        (
            {"prompt": [USER], "chosen": [USER], "rejected": [good("b")]},
            "'chosen' must end with a message of the assist",
        ),
        ({"chosen": [USER, good("a")], "rejected": [MORE, good("b")]}, "differ before their last message"),
        ({"chosen": [good("a")], "rejected": [good("b")]}, "field 'prompt' is missing"),
        (
            {"prompt": [{"role": "me", "content": "x"}], "chosen": [good("a")], "rejected": [good("b")]},
            "'prompt', message 0",
        ),
        (
            {"prompt": [{"role": "user"}], "chosen": [good("a")], "rejected": [good("b")]},
            "'prompt', message 0",
        ),
        ({"prompt": ["x"], "chosen": [good("a")], "rejected": [good("b")]}, "field 'prompt', message 0"),
        (
            {"prompt": [USER], "chosen": [good("a\n\nHuman: b")], "rejected": [good("b")]},
            "its content contains turns",
        ),
    ],
)
def test_bad_messages_name_their_field(row, says):
    with pytest.raises(ValueError, match=says) as error:
        understand(row)
    assert not isinstance(error.value, UnusablePair)


def test_an_empty_answer_is_unusable_and_not_bad():
    with pytest.raises(UnusablePair, match="field 'rejected' must be a non-empty string"):
        understand({"prompt": [USER], "chosen": [good("a")], "rejected": [good(" ")]})
