"""Dialogues: lists of messages {role, content}, and the text that Anthropic's hh-rlhf writes them as.

    "\\n\\nHuman: Hello!\\n\\nAssistant: Hi."        the prompt ends with "\\n\\nAssistant:", the answer is " Hi."

The text is what pairs hold, whatever the data's own form was; a model with a chat template gets messages made of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

MARKS = {"system": "\n\nSystem:", "user": "\n\nHuman:", "assistant": "\n\nAssistant:"}
ASSISTANT = MARKS["assistant"]
_ROLES = {mark: role for role, mark in MARKS.items()}
_ANY_MARK = re.compile("(" + "|".join(_ROLES) + ")")


def dialogue_text(messages: Sequence[Mapping[str, str]]) -> str:
    """Messages as text."""
    return "".join(f"{MARKS[message['role']]} {message['content'].strip()}" for message in messages)


def messages_of(text: str) -> list[dict[str, str]] | None:
    """The messages of a dialogue's text; None where it is no dialogue.

    An open last turn of the assistant is left out.

    >>> messages_of("\\n\\nHuman: Hello!\\n\\nAssistant:")
    [{'role': 'user', 'content': 'Hello!'}]
    """
    before, *parts = _ANY_MARK.split(text)
    if before.strip() or not parts:
        return None
    turns = zip(parts[::2], parts[1::2], strict=True)
    messages = [{"role": _ROLES[mark], "content": content.strip()} for mark, content in turns]
    if messages[-1] == {"role": "assistant", "content": ""}:
        messages.pop()
    return messages or None


def as_texts(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row with texts in place of lists of messages; one that has no such list as it is.

    The answers may be the last message alone, or whole dialogues that begin with the prompt.

    Raises:
        ValueError: names the field that is no list of messages, or dialogues that do not begin alike.
    """
    if not any(isinstance(data.get(name), list) for name in ("prompt", "chosen", "rejected")):
        return data
    answers = {name: _messages(name, data.get(name)) for name in ("chosen", "rejected")}
    prompt = data.get("prompt")
    told = _messages("prompt", prompt) if isinstance(prompt, list) else []
    for name, messages in answers.items():
        if messages[-1]["role"] != "assistant":
            raise ValueError(f"field {name!r} must end with a message of the assistant")
    before = [messages[:-1] for messages in answers.values()]
    if before[0] != before[1]:
        raise ValueError("fields 'chosen' and 'rejected' are dialogues that differ before their last message")
    if not told and not before[0] and isinstance(prompt, str) and prompt.strip():
        told = [{"role": "user", "content": prompt}]
    same = before[0][: len(told)] == told
    opening = before[0] if same else told + before[0]
    if not opening:
        raise ValueError("field 'prompt' is missing, and the dialogues are one message long")
    texts = {name: " " + messages[-1]["content"].strip() for name, messages in answers.items()}
    return {**data, "prompt": dialogue_text(opening) + ASSISTANT, **texts}


def _messages(field: str, value: Any) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"field {field!r} must be a list of messages, as the others are")
    messages = []
    for place, message in enumerate(value):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in MARKS or not isinstance(content, str):
            raise ValueError(
                f"field {field!r}, message {place}: a role of {', '.join(MARKS)} and a content that is text are needed"
            )
        if _ANY_MARK.search(content):
            raise ValueError(f"field {field!r}, message {place}: its content has turns of its own in it")
        messages.append({"role": role, "content": content})
    return messages
