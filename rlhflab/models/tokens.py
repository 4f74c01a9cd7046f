"""A model's tokenizer: there, whole, and within the model's vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhflab.boundary import Fault, one_line
from rlhflab.models.quiet import quiet_loading
from rlhflab.models.weights import base_of, is_adapters

_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)


def load_tokenizer(name: str, size: int, what: str, trust_remote_code: bool = False) -> Any:
    """Load a tokenizer; that of adapters which were saved without one is their model's.

    Args:
        name: a folder or a hub id.
        size: tokens that the model knows.
        what: whose tokenizer it is, for messages: "'gpt2'".

    Raises:
        Fault: none there, damaged, without words, or with token ids that the model has no embedding for.
    """
    if is_adapters(name) and not any((Path(name) / file).is_file() for file in _FILES):
        name = base_of(name)
    from transformers import AutoTokenizer

    with one_line(f"the tokenizer of {what}"), quiet_loading():
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
        tokenizer("")  # settings of the wrong type show only here
        vocabulary, added = tokenizer.get_vocab(), set(tokenizer.added_tokens_decoder)
    if not set(vocabulary.values()) - added:
        raise Fault(
            f"the tokenizer of {what} knows no words: its files (tokenizer.json, or vocab.json and merges.txt) are "
            "missing or damaged"
        )
    if len(tokenizer) > size:
        raise Fault(f"the tokenizer of {what} has {len(tokenizer)} tokens, its model only {size}")
    if (last := max(vocabulary, key=vocabulary.__getitem__)) and vocabulary[last] >= size:
        raise Fault(
            f"the tokenizer of {what} gives {last!r} the id {vocabulary[last]}, its model has only {size} tokens"
        )
    return tokenizer
