"""Dialogues: lists of messages {role, content}, and the text that Anthropic's hh-rlhf writes them as.

    "\\n\\nHuman: Hello!\\n\\nAssistant: Hi."        the prompt ends with "\\n\\nAssistant:", the answer is " Hi."

Pairs hold this text whatever the form of the data was; a model with a chat template gets messages made from it. It
keeps every character of a message: after a mark comes one space, then the unchanged content, spaces included.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

MARKS = {"system": "\n\nSystem:", "user": "\n\nHuman:", "assistant": "\n\nAssistant:"}
ASSISTANT = MARKS["assistant"]
_ROLES = {mark: role for role, mark in MARKS.items()}
_ANY_MARK = re.compile("(" + "|".join(_ROLES) + ")")
_OTHER_NAMES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
_AS_TEXT = re.compile(r"\s*(array\()?\[?\s*\{\s*['\"](role|content|from|value)['\"]\s*:")

Message = dict[str, str]


def dialogue_text(messages: Sequence[Mapping[str, str]]) -> str:
    """Messages as text."""
    return "".join(f"{MARKS[message['role']]} {message['content']}" for message in messages)


def content_of(answer: str) -> str:
    """The message content of an answer to a dialogue: without the space after the mark."""
    return answer.removeprefix(" ")


def messages_of(text: str) -> list[Message] | None:
    """The messages of a dialogue's text; None if it is not a dialogue.

    An open last turn of the assistant is left out.

    >>> messages_of("\\n\\nHuman: Hello!\\n\\nAssistant:")
    [{'role': 'user', 'content': 'Hello!'}]
    """
    before, *parts = _ANY_MARK.split(text)
    if before.strip() or not parts:
        return None
    turns = zip(parts[::2], parts[1::2], strict=True)
    messages = [{"role": _ROLES[mark], "content": content_of(content)} for mark, content in turns]
    if messages[-1]["role"] == "assistant" and not messages[-1]["content"].strip():
        messages.pop()
    return messages or None


def is_messages(value: Any) -> bool:
    """Whether a field's value looks like messages: a list, or one message."""
    return isinstance(value, list) or (isinstance(value, dict) and bool({"role", "from"} & value.keys()))


def from_text(field: str, value: Any) -> Any:
    """Parse messages that a table keeps as text, in JSON or as Python prints them; return other values unchanged.

    Raises:
        ValueError: the text begins like messages but cannot be parsed.
    """
    if not isinstance(value, str) or not _AS_TEXT.match(value):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if is_messages(found):
            return found
    raise ValueError(f"field {field!r} looks like messages written as text and cannot be read: {value!r:.60}")


def messages_in(field: str, value: Any) -> list[Message]:
    """The messages of a field: a list, a single one, or the text of what `role` says; {from, value} as in ShareGPT too.

    Raises:
        ValueError: names the field and the bad message.
    """
    messages = []
    for place, message in enumerate(value if isinstance(value, list) else [value]):
        what = f"field {field!r}, message {place}"
        if not isinstance(message, dict):
            raise ValueError(f"{what}: a message {{role, content}} is needed, got {message!r:.40}")
        role, content = (_either(message, names) for names in (("role", "from"), ("content", "value")))
        told = str(role).strip().lower()
        told = _OTHER_NAMES.get(told, told)
        if told not in MARKS:
            raise ValueError(f"{what}: its role is {role!r:.40}; only {', '.join(MARKS)} are supported")
        if message.get("tool_calls"):
            raise ValueError(f"{what}: it calls tools, which are not supported")
        messages.append({"role": told, "content": _plain(what, content)})
    if not messages:
        raise ValueError(f"field {field!r} must be messages, got an empty list")
    return messages


def said(role: str, field: str, text: str) -> Message:
    """A field's plain text as a message; ValueError if the text contains turns."""
    return {"role": role, "content": _plain(f"field {field!r}", text)}


def joined(told: Sequence[Message], before: Sequence[Message]) -> list[Message]:
    """A prompt's messages followed by those before the answer; messages in both are kept once.

    Raises:
        ValueError: it is not clear how they fit together, or no answer can follow.
    """
    told, before = list(told), list(before)
    if told and before[-len(told) :] == told:
        told = []
    same = next(size for size in range(len(told), -1, -1) if told[len(told) - size :] == before[:size])
    if told and before and not same and before[0]["role"] in (told[-1]["role"], "system"):
        raise ValueError(
            f"the answers begin with a turn of the {before[0]['role']} that the prompt does not have; keep only one"
        )
    messages = told + before[same:]
    if messages and messages[-1]["role"] == "assistant":
        raise ValueError("the assistant speaks last before the answer; a user's turn must come before it")
    return messages


def _either(message: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((message[name] for name in names if name in message), None)


def _plain(what: str, content: Any) -> str:
    """The text of a message's content, which may come in parts."""
    if isinstance(content, list) and content:
        for part in content:
            if not isinstance(part, dict) or not isinstance(part.get("text"), str):
                kind = part.get("type") if isinstance(part, dict) else type(part).__name__
                raise ValueError(f"{what}: a part of its content is {kind!r:.40}; only text is supported")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise ValueError(f"{what}: its content must be text, got {content!r:.40}")
    if _ANY_MARK.search(content):
        raise ValueError(f"{what}: its content contains turns")
    return content
