"""The worlds' tokenizers: a word is a token."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, EOS = "<pad>", "<eos>"


def word_tokenizer(words: Iterable[str], length: int) -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer; an unknown word is an error, not a token.

    Args:
        words: their ids are 2, 3, … in this order, a repeated word counted once; 0 is PAD and 1 EOS.
        length: longest text, in tokens.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([PAD, EOS, *words]))}
    backend = Tokenizer(WordLevel(vocabulary))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, eos_token=EOS, padding_side="right", model_max_length=length
    )
