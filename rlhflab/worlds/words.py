"""Base class of worlds whose answers are words: texts to tokens and back, and the endings of answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhflab.worlds.tokenizer import EOS, word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class WordWorld:
    """Prompts and answers over a vocabulary; a word is a token.

    An answer ends with EOS, or with a token that belongs in no answer, or by its length.

    Attributes:
        prompts: texts.
        tokenizer: word-level.
        prompt_ids: [prompts, time] token ids.
        stop_ids: EOS, the padding and the words that occur only in prompts.
        max_tokens: longest answer.

    Args:
        prompts: all with the same number of words.
        words: those of answers.
        max_tokens: longest answer, in words.
        length: longest text, in tokens.

    Raises:
        ValueError: no prompt, or prompts of several lengths.
    """

    def __init__(self, prompts: Sequence[str], words: Iterable[str], max_tokens: int, length: int) -> None:
        self.prompts, words = tuple(prompts), tuple(words)
        lengths = {len(prompt.split()) for prompt in self.prompts}
        if len(lengths) != 1:
            raise ValueError(
                f"prompts must all have the same number of words, got {sorted(lengths) or 'no prompt'}"
            )
        in_prompts = [word for prompt in self.prompts for word in prompt.split()]
        self.tokenizer: PreTrainedTokenizerFast = word_tokenizer([*in_prompts, *words], length=length)
        self._tokens: list[str] = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        self._ids = {token: index for index, token in enumerate(self._tokens)}
        self._words = set(words)
        self.prompt_ids = torch.tensor(
            [[self._ids[word] for word in prompt.split()] for prompt in self.prompts]
        )
        self.stop_ids = tuple(index for token, index in self._ids.items() if token not in self._words)
        self.max_tokens = max_tokens

    def prompt_position(self, prompt: str) -> int:
        """Position of a prompt's text in `prompts`; raises ValueError for any other text."""
        if prompt not in self.prompts:
            raise ValueError(f"unknown prompt {prompt!r}; one of this world's is {self.prompts[0]!r}")
        return self.prompts.index(prompt)

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of a prompt's text."""
        return self.prompt_ids[self.prompt_position(prompt)].tolist()

    def encode_answer(self, answer: str) -> list[int]:
        """Token ids of an answer's text, its ending included; raises ValueError for a text that is not an answer.

        The empty answer's text is "<eos>".
        """
        words = [] if answer == EOS else answer.split()
        ended = bool(words) and words[-1] not in self._words  # by a token that belongs in no answer
        for word in words[:-1] if ended else words:
            if word not in self._words:
                raise ValueError(f"{word!r} is not a word of an answer: {answer!r}")
        if not answer.split() or (ended and words[-1] not in self._ids) or EOS in words:
            raise ValueError(f"{answer!r} is not an answer: it must be known words, or {EOS} alone")
        if len(words) > self.max_tokens:
            raise ValueError(f"an answer has at most {self.max_tokens} words, got {len(words)}: {answer!r}")
        ids = [self._ids[word] for word in words]
        return ids if ended or len(ids) == self.max_tokens else [*ids, self._ids[EOS]]

    def decode_answer(self, tokens: Sequence[int]) -> str:
        """Text of an answer's token ids, its EOS left out; inverse of `encode_answer`."""
        return " ".join(self._tokens[token] for token in tokens).removesuffix(f" {EOS}")

    def _sampled(self, answers: Tensor, mask: Tensor) -> list[tuple[str, ...]]:
        """The words of sampled answers, EOS left out."""
        tokens, lengths = self._tokens, mask.sum(1).tolist()
        rows = zip(answers.tolist(), lengths, strict=True)
        words = [tuple(tokens[token] for token in row[:length]) for row, length in rows]
        return [row[:-1] if row and row[-1] == EOS else row for row in words]
