"""The meaning of a row's fields: the layouts in which preference pairs are usually kept.

    prompt, chosen, rejected                     plain texts, or messages
    chosen, rejected                             whole dialogues, whose common beginning is the prompt
    instruction [input], question or query       the user's turn before the answers `chosen` and `rejected`
    conversations (ShareGPT)                     the messages before the answers
    system                                       beside any of these: a turn before them

Messages are {role, content} or {from, value}; they may be written as text, in JSON or as Python prints them. Names are
case-insensitive. A field that may belong to the prompt but is in no layout is an error, unless its text is in the pair
anyway; other fields are ignored, and named in `Understood`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rlhflab.data.dialogue import (
    ASSISTANT,
    Message,
    dialogue_text,
    from_text,
    is_messages,
    joined,
    messages_in,
    messages_of,
    said,
)
from rlhflab.text import clipped
from rlhflab.worlds.preferences import PreferencePair

PROMPTS = ("prompt", "instruction", "question", "query", "conversations")
"""Fields that hold the prompt; of several the first counts."""
SYSTEMS = ("system", "system_prompt", "system_message")
ANSWERS = ("chosen", "rejected")
Texts = tuple[str, str, str]
MAY_BE_PROMPT = {
    *PROMPTS, *SYSTEMS, "input", "inputs", "context", "history", "messages", "conversation", "dialogue", "dialog",
    "user", "human", "user_prompt", "passage", "document", "article", "post", "request", "problem", "prefix", 
    "background", "persona",
}  # fmt: skip
_BY_TURNS = "the common beginning of the texts, up to its last 'Assistant:'"
BY_WORDS = "the common beginning of the texts, up to a word's end"
NO_BLANKS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
)


class UnusablePair(ValueError):
    """A well-formed pair that teaches nothing: an empty answer, or two equal ones."""


class NoCommonBeginning(ValueError):
    """There is no prompt, and the answers do not begin alike; in other rows they may do so by chance."""


class Understood(NamedTuple):
    """A row's texts, and how they were found.

    Attributes:
        prompt, chosen, rejected: the texts; the dialogue is `prompt + chosen` or `prompt + rejected`.
        how: where the prompt comes from, in words.
        unused: the names of fields that were not used.
    """

    prompt: str
    chosen: str
    rejected: str
    how: str
    unused: tuple[str, ...]


def fields_of(row: Any) -> dict[str, Any]:
    """A row's fields by their lower-case names.

    Raises:
        ValueError: the row is not an object, or two names differ only in case.
    """
    if not isinstance(row, dict):
        raise ValueError(f"a JSON object is needed, got {shortened(row)}")
    fields = {str(name).strip().lower(): value for name, value in row.items()}
    if len(fields) < len(row):
        raise ValueError(f"two fields have names that differ only in case: {', '.join(map(str, row))}")
    return fields


def understand(row: Any) -> Understood:
    """The pair that a row holds.

    Raises:
        ValueError: names the field that is missing, bad or not understood; `UnusablePair` if the answers are equal or
            one is empty.
    """
    fields = fields_of(row)
    for name in ANSWERS:
        if name not in fields:
            raise ValueError(f"field {name!r} is missing; there are {', '.join(fields) or 'none'}")
    values = {name: from_text(name, fields[name]) for name in (*PROMPTS, *ANSWERS) if name in fields}
    prompt = next((name for name in PROMPTS if _given(values.get(name))), None)
    if "prompt" in fields and prompt is None:
        raise ValueError(
            f"field 'prompt' must be a non-empty string or messages, got {shortened(fields['prompt'])}"
        )
    lists = [name for name in ANSWERS if is_messages(values[name])]
    if len(lists) == 1:
        other = next(name for name in ANSWERS if name not in lists)
        raise ValueError(f"field {other!r} must be a list of messages, as {lists[0]!r} is")
    system = next((name for name in SYSTEMS if name in fields), None)
    if lists or system or prompt not in (None, "prompt") or is_messages(values.get("prompt")):
        texts, used, how = _in_turns(values, prompt, fields, system)
    else:
        texts, used, how = _as_they_are(fields, prompt)
    _require_told(fields, used, texts)
    _require_two(*texts[1:])
    known = {*used, *MAY_BE_PROMPT, *ANSWERS, "flipped", "margin"}
    unused = tuple(name or "one without a name" for name in fields if name not in known)
    return Understood(*texts, how, unused)


def _in_turns(
    values: Mapping[str, Any], prompt: str | None, fields: Mapping[str, Any], system: str | None
) -> tuple[Texts, list[str], str]:
    """Prompt and answers as a dialogue's text, the fields used, and where the prompt comes from."""
    sides = []
    for name in ANSWERS:
        value = values[name]
        sides.append(
            messages_in(name, value) if is_messages(value) else [said("assistant", name, _text(name, value))]
        )
        if sides[-1][-1]["role"] != "assistant":
            raise ValueError(f"field {name!r} must end with a message of the assistant")
    before = sides[0][:-1]
    if sides[1][:-1] != before:
        raise ValueError("fields 'chosen' and 'rejected' are dialogues that differ before their last message")
    told, used = _told(prompt, values, fields, bool(before))
    opening = joined(told, before)
    how = ", which the answers repeat" if told and len(opening) < len(told) + len(before) else ""
    if system and fields[system]:
        first = said("system", system, _text(system, fields[system]))
        if opening[:1] != [first]:  # else the messages hold it
            opening, used = [first, *opening], [system, *used]
        if [message["role"] for message in opening[:2]] == ["system", "system"]:
            raise ValueError(
                f"field {system!r} and the messages begin with different turns of the system; keep only one"
            )
    if not opening:
        raise ValueError("field 'prompt' is missing, and the dialogues have only one message")
    source = [*map(repr, used), *(["the messages before the answers"] if before and not how else [])]
    answers = [" " + messages[-1]["content"] for messages in sides]
    return (
        (dialogue_text(opening) + ASSISTANT, answers[0], answers[1]),
        used,
        f"{' and '.join(source)}, in turns{how}",
    )


def _told(
    name: str | None, values: Mapping[str, Any], fields: Mapping[str, Any], dialogues: bool
) -> tuple[list[Message], list[str]]:
    """The messages of the prompt's field and the fields used; none if the answers are dialogues with its text."""
    if name is None:
        return [], []
    if is_messages(values[name]):
        return messages_in(name, values[name]), [name]
    if dialogues:  # whether they contain it is checked later
        return [], []
    text, used = _text(name, values[name]), [name]
    if name == "instruction" and "input" in fields:
        used.append("input")
        text += "\n\n" + _text("input", fields["input"]) if fields["input"] else ""
    return [said("user", name, text)], used


def _as_they_are(fields: Mapping[str, Any], prompt: str | None) -> tuple[Texts, list[str], str]:
    chosen, rejected = (_text(name, fields[name]) for name in ANSWERS)
    if prompt is not None:
        text = _text("prompt", fields["prompt"])
        if messages_of(chosen) and messages_of(rejected) and not chosen.startswith(text):
            raise ValueError("the answers are whole dialogues that differ from 'prompt'; leave 'prompt' out")
        return (text, chosen, rejected), ["prompt"], "'prompt', as it is"
    for name in (name for name in fields if name in MAY_BE_PROMPT):
        raise ValueError(f"field 'prompt' is missing; if {name!r} is the prompt, rename it")
    _require_two(chosen, rejected)
    cut, how = _common(chosen, rejected)
    if not chosen[:cut].strip():
        raise NoCommonBeginning("field 'prompt' is missing and 'chosen' and 'rejected' do not begin alike")
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if not text[cut:].strip():
            raise UnusablePair(f"field {name!r} has no answer after the common prompt")
    if how == BY_WORDS:  # a guess: no other field may be the prompt
        for name, value in fields.items():
            if name not in ANSWERS and isinstance(value, str) and _of_words(value):
                raise ValueError(
                    f"field 'prompt' is missing; if {name!r} is the prompt, rename it; else leave it out"
                )
    return (chosen[:cut], chosen[cut:], rejected[cut:]), [], how


def _common(chosen: str, rejected: str) -> tuple[int, str]:
    """Where the common prompt of two texts ends; the space before the first differing word belongs to the answer."""
    differing = (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b)
    common = chosen[: next(differing, min(len(chosen), len(rejected)))]
    marker = common.rfind(ASSISTANT)
    if marker >= 0:
        return marker + len(ASSISTANT), _BY_TURNS
    if NO_BLANKS.search(common):
        raise NoCommonBeginning(
            "field 'prompt' is missing, and the texts have no spaces between words that could show where it ends"
        )
    if all(re.match(r"\W", text[len(common) :]) for text in (chosen, rejected)):
        return len(common), BY_WORDS
    last_word = re.search(r"\s+\S*$", common)
    return last_word.start() if last_word else 0, BY_WORDS


def _require_two(chosen: str, rejected: str) -> None:
    for name, text in zip(ANSWERS, (chosen, rejected), strict=True):
        if not text.strip():
            raise UnusablePair(f"field {name!r} must be a non-empty string, got {shortened(text)}")
    if chosen == rejected:
        raise UnusablePair("fields 'chosen' and 'rejected' are identical; a pair needs two answers")


def _require_told(fields: Mapping[str, Any], used: list[str], texts: Texts) -> None:
    """Reject a field that may belong to the prompt and is not in it; messages may also hold an answer."""
    others = [name for name in fields if name in MAY_BE_PROMPT and name not in used]
    prompt, pair = (" ".join(text.split()) for text in (texts[0], " ".join(texts))) if others else ("", "")
    for name in others:
        try:
            value = from_text(name, fields[name])
        except ValueError:
            value = fields[name]
        whole = pair if is_messages(value) else prompt
        if any(" ".join(leaf.split()) not in whole for leaf in _leaves(value)):
            raise ValueError(
                f"field {name!r} may belong to the prompt but is not read; move it into 'prompt', or leave it out"
            )


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = [item for name, item in value.items() if name not in ("role", "from", "type")]
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif value is not None:
        yield str(value)


def _given(value: Any) -> bool:
    return bool(value.strip() if isinstance(value, str) else value)


def _of_words(text: str) -> bool:
    return bool(re.search(r"\S\s+\S", text) or NO_BLANKS.search(text))


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"field {name!r} must be a non-empty string, got {shortened(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"field {name!r} holds half of a character (a lone surrogate)") from None
    return value


def shortened(value: Any, most: int = 40) -> str:
    """A value in one line, as JSON; with its type if it cannot be written as JSON."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = f"{type(value).__name__} {value!r}"
    return clipped(text, most)


def pair_of(row: Any, place: str = "") -> tuple[PreferencePair, Understood]:
    """The pair that a row holds, and how it was understood; see `layouts`.

    Args:
        row: an object; besides the fields of `layouts` it may have `flipped` (true, false, null) and `margin` (number,
            null).
        place: its place in the source.

    Raises:
        ValueError: names the bad field; `UnusablePair` if the answers are equal or one is empty.
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
