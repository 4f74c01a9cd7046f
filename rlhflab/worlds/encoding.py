"""Texts as a model's tokenizer writes them: what stands before a prompt, how a dialogue is told, how an answer ends.

- Before a text stands what the tokenizer puts there by itself: OPT's </s>, Llama's <s>, nothing for GPT-2.
- Where the tokenizer has a chat template, a dialogue is told through it, and the answer ends as its turns do. Where it
  has none, a dialogue is its plain text with "Human:" and "Assistant:". Other texts are used as they are.
- An answer ends with a token that ends generation: EOS where the template names no other. Without it the model could
  not learn to stop, and log π(y|x) would not be that of a whole answer.
- No pad token is needed: batches repeat a row's last token and count it nowhere. GPT-2 has none to give.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlhflab.files import cache_folder, written_beside
from rlhflab.worlds.dialogue import messages_of
from rlhflab.worlds.preferences import PreferencePair

CACHE_VERSION = 1  # raise when texts are encoded in another way
WORTH_KEEPING = 1000  # texts; fewer are tokenised in a moment
AT_ONCE = 500


class PairTokens(NamedTuple):
    """Pairs as token ids, one list each; the answers' ending is among them."""

    prompts: list[list[int]]
    chosen: list[list[int]]
    rejected: list[list[int]]

    def take(self, ids: Sequence[int]) -> PairTokens:
        """Those at the positions `ids`."""
        return PairTokens(*([column[index] for index in ids] for column in self))

    def lengths(self) -> list[int]:
        """Tokens of each pair's longer dialogue."""
        return [len(p) + max(len(c), len(r)) for p, c, r in zip(*self, strict=True)]


class TextEncoder:
    """Texts to token ids and back, as a tokenizer's model expects them.

    Args:
        tokenizer: any Hugging Face tokenizer with an EOS token.

    Attributes:
        stop_ids: the tokens that end an answer.
        note: in one line how dialogues are told and answers end.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._chat = bool(tokenizer.chat_template)
        eos = int(tokenizer.eos_token_id)
        added = list(tokenizer("")["input_ids"])[:1]
        self._before = added if added == [tokenizer.bos_token_id] else []
        self._nothing = self._before or [
            eos if tokenizer.bos_token_id is None else int(tokenizer.bos_token_id)
        ]
        self._end = [eos]
        self._chat_end = self._turn_end(eos) if self._chat else [eos]
        self.stop_ids = tuple(dict.fromkeys([eos, self._chat_end[-1]]))
        told = "the chat template" if self._chat else "plain text, as there is no chat template"
        end = tokenizer.convert_ids_to_tokens(self._chat_end)
        self.note = f"dialogues as {told}; answers end with {' '.join(end)}"

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a prompt's text."""
        return self.encode_prompts([text])[0]

    def encode_answer(self, text: str) -> list[int]:
        """Token ids of the text of an answer to a prompt that is no dialogue, with its ending."""
        return [*self._ids(text), *self._end]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts."""
        told = [self._told(text) for text in texts]
        ids = self._batch([text if chat is None else chat for text, chat in zip(texts, told, strict=True)])
        return [
            (row if chat is not None else [*self._before, *row]) or self._nothing
            for row, chat in zip(ids, told, strict=True)
        ]

    def encode_pairs(self, pairs: Sequence[PreferencePair], progress: bool = True) -> PairTokens:
        """Token ids of pairs; those of many pairs are kept in the cache folder, by content and tokenizer.

        Args:
            pairs: the texts.
            progress: show a bar.
        """
        path = self._kept(pairs) if 3 * len(pairs) >= WORTH_KEEPING else None
        if path is not None and path.is_file():
            return _read(path)
        from tqdm.auto import tqdm

        found = PairTokens([], [], [])
        with tqdm(
            total=len(pairs), desc="tokenising", unit=" pairs", leave=False, disable=not progress
        ) as bar:
            for at in range(0, len(pairs), AT_ONCE):
                part = pairs[at : at + AT_ONCE]
                found.prompts.extend(self.encode_prompts([pair.prompt for pair in part]))
                for column, texts in (
                    (found.chosen, [pair.chosen for pair in part]), (found.rejected, [pair.rejected for pair in part])
                ):  # fmt: skip
                    column.extend(self._answers([pair.prompt for pair in part], texts))
                bar.update(len(part))
        if path is not None:
            _write(path, found)
        return found

    def _answers(self, prompts: Sequence[str], texts: Sequence[str]) -> list[list[int]]:
        chat = [self._chat and messages_of(prompt) is not None for prompt in prompts]
        ids = self._batch([text.strip() if told else text for text, told in zip(texts, chat, strict=True)])
        return [[*row, *(self._chat_end if told else self._end)] for row, told in zip(ids, chat, strict=True)]

    def _told(self, prompt: str) -> str | None:
        """A dialogue's prompt through the chat template; None where there is none, or the prompt is no dialogue."""
        messages = messages_of(prompt) if self._chat else None
        if messages is None:
            return None
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _turn_end(self, eos: int) -> list[int]:
        """What the template puts after an answer, up to the token that ends it."""
        messages = [{"role": "user", "content": "a"}]
        prompt = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        messages.append({"role": "assistant", "content": "b"})
        whole = self.tokenizer.apply_chat_template(messages, tokenize=False)
        after = whole[len(prompt) :].partition("b")[2] if whole.startswith(prompt) else ""
        ids = self._ids(after)
        special = set(self.tokenizer.all_special_ids)
        stops = [at for at, token in enumerate(ids) if token == eos] or [
            at for at, token in enumerate(ids) if token in special
        ]
        return ids[: stops[0] + 1] if stops else [eos]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _batch(self, texts: Sequence[str]) -> list[list[int]]:
        found = self.tokenizer(
            list(texts), add_special_tokens=False, verbose=False
        )  # texts may be too long here
        return [list(ids) for ids in found["input_ids"]]

    def _kept(self, pairs: Sequence[PreferencePair]) -> Path:
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        words = (
            backend.to_str()
            if backend is not None
            else json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        )
        told = [
            CACHE_VERSION,
            self._before,
            self._end,
            self._chat_end,
            str(self.tokenizer.chat_template),
            words,
        ]
        key = hashlib.sha256(json.dumps(told).encode())
        for pair in pairs:
            key.update(json.dumps([pair.prompt, pair.chosen, pair.rejected]).encode())
        name = f"tokens-{key.hexdigest()[:20]}.safetensors"
        return cache_folder(name) / name


def _write(path: Path, tokens: PairTokens) -> None:
    import torch
    from safetensors.torch import save_file

    rows = [row for column in tokens for row in column]
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as beside:
        save_file(
            {
                "ids": torch.tensor([token for row in rows for token in row], dtype=torch.int32),
                "lengths": torch.tensor([len(row) for row in rows], dtype=torch.int32),
            },
            beside,
        )


def _read(path: Path) -> PairTokens:
    from safetensors.torch import load_file

    kept = load_file(path)
    rows = [part.tolist() for part in kept["ids"].split(kept["lengths"].tolist())]
    third = len(rows) // 3
    return PairTokens(rows[:third], rows[third : 2 * third], rows[2 * third :])
