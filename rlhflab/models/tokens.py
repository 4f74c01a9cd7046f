"""A model's tokenizer, checked to be present, complete and within the model's vocabulary."""

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
    """Load a tokenizer; adapters saved without one use that of their model.

    Args:
        name: a folder or a hub id.
        size: the model's vocabulary size.
        what: whose tokenizer it is, for messages: "'gpt2'".

    Raises:
        Fault: missing, damaged, empty, or with token ids that have no embedding in the model.
    """
    if is_adapters(name) and not any((Path(name) / file).is_file() for file in _FILES):
        name = base_of(name)
    from transformers import AutoTokenizer

    with one_line(f"the tokenizer of {what}"), quiet_loading():
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
        tokenizer("")  # settings of the wrong type fail only here
        vocabulary, added = tokenizer.get_vocab(), set(tokenizer.added_tokens_decoder)
    if not set(vocabulary.values()) - added:
        raise Fault(
            f"the tokenizer of {what} has no vocabulary: its files (tokenizer.json, or vocab.json and merges.txt) are "
            "missing or damaged"
        )
    if len(tokenizer) > size:
        raise Fault(f"the tokenizer of {what} has {len(tokenizer)} tokens, its model only {size}")
    if (last := max(vocabulary, key=vocabulary.__getitem__)) and vocabulary[last] >= size:
        raise Fault(
            f"the tokenizer of {what} gives {last!r} the id {vocabulary[last]}, its model has only {size} tokens"
        )
    return tokenizer
