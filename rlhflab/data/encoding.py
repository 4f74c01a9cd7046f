"""Texts as token ids of a model's tokenizer: what precedes a prompt, how a dialogue is formatted, how an answer ends.

- A text is preceded by what the tokenizer adds itself: OPT's </s>, Llama's <s>, nothing for GPT-2; it is not doubled if
  the text already begins with it.
- If the tokenizer has a chat template, it formats dialogues, and the answer ends as the template's turns do. Without
  one, a dialogue is its plain text with "Human:" and "Assistant:". Other texts are used unchanged, without the
  template; their answers end as its turns do if a prompt contains the template's own tokens.
- An answer ends with a token that ends generation: EOS unless the template has another. Without it the model could not
  learn to stop, and log π(y|x) would not be that of a complete answer. If the data already has one, it is not doubled.
- Spaces in an answer are kept, except those that the template strips.
- No pad token is needed: batches repeat a row's last token and never count it. GPT-2 has none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlhflab.boundary import Fault, cause, given
from rlhflab.data.dialogue import Message, content_of, messages_of
from rlhflab.files import cache_folder, written_beside
from rlhflab.worlds.preferences import PreferencePair

CACHE_VERSION = 2  # raise when the encoding changes
WORTH_KEEPING = 1000  # texts; fewer are tokenised in a moment
AT_ONCE = 500
REFUSES = "the chat template refuses it"
_WORDS = ("rlhflabs-question", "rlhflabs-answer")  # searched for in the template's output


class PairTokens(NamedTuple):
    """Pairs as token ids, one list each; answers include their ending. Only a rejected prompt is empty."""

    prompts: list[list[int]]
    chosen: list[list[int]]
    rejected: list[list[int]]

    def take(self, ids: Sequence[int]) -> PairTokens:
        """The pairs at the positions `ids`."""
        return PairTokens(*([column[index] for index in ids] for column in self))

    def lengths(self) -> list[int]:
        """Length in tokens of each pair's longer dialogue."""
        return [len(p) + max(len(c), len(r)) for p, c, r in zip(*self, strict=True)]


class TextEncoder:
    """Converts texts to token ids and back, in the form that the tokenizer's model expects.

    Args:
        tokenizer: any Hugging Face tokenizer with an EOS token.
        ends: further tokens that end generation, such as those of a model's generation_config.json.

    Attributes:
        stop_ids: the tokens that end an answer.

    Raises:
        ValueError: the chat template cannot format even the shortest dialogue, in one line.
    """

    def __init__(self, tokenizer: Any, ends: Collection[int] = ()) -> None:
        self.tokenizer = tokenizer
        self._chat = bool(tokenizer.chat_template)
        eos = int(tokenizer.eos_token_id)
        added = list(tokenizer("")["input_ids"])[:1]
        self._before = added if added == [tokenizer.bos_token_id] else []
        self._nothing = self._before or [
            eos if tokenizer.bos_token_id is None else int(tokenizer.bos_token_id)
        ]
        self._end, self._chat_end = [eos], [eos]
        self._lead, self._strips, self._opening = "", (False, False), ""
        self._turns: list[str] = []  # the template's own tokens
        self._chat_before = self._before
        self.stop_ids = tuple(dict.fromkeys([eos, *sorted(ends)]))
        if self._chat:
            self._look_at_template(set(self.stop_ids))
            self.stop_ids = tuple(dict.fromkeys([*self.stop_ids, self._chat_end[-1]]))

    @property
    def note(self) -> str:
        """One line: how dialogues are formatted and how answers end."""
        told = "the chat template formats them" if self._chat else "plain text, as there is no chat template"
        note = f"dialogues as {told}; answers end with {self._words(self._chat_end)}"
        if self._opening:
            note += f"; without a system turn the template begins them with {self._opening!r:.200}"
        return note

    def note_on(self, prompts: Sequence[str]) -> str:
        """The same, and how many of some prompts are not dialogues."""
        note = self.note
        others = [prompt for prompt in prompts if messages_of(prompt) is None] if self._chat else []
        ready = sum(self._is_ready(prompt) for prompt in others)
        if ready:
            note += f"; {ready} prompts contain the template's own tokens and are used unchanged"
        if len(others) > ready:
            note += (
                f"; {len(others) - ready} of {len(prompts)} prompts are not dialogues: plain text WITHOUT the chat "
                f"template, with answers that end with {self._words(self._end)}; it formats only lists of messages"
            )
        return note

    def complaint(self, prompt: str) -> str:
        """The chat template's message if it rejects a prompt, else ""."""
        try:
            self._told(prompt)
        except Fault as refused:
            return str(refused).removeprefix(f"{REFUSES}: ")
        return ""

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a prompt's text; ValueError if the chat template rejects it."""
        (ids,) = self.encode_prompts([text])
        if not ids:
            raise ValueError(f"{REFUSES}: {self.complaint(text)}")
        return ids

    def encode_answer(self, text: str) -> list[int]:
        """Token ids of the text of an answer to a prompt that is not a dialogue, with its ending."""
        return self._ended(self._ids(text), self._end)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens and tokens that end an answer."""
        kept = [token for token in ids if token not in self.stop_ids]
        return str(self.tokenizer.decode(kept, skip_special_tokens=True))

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts; empty for one that the chat template rejects, see `complaint`."""
        told: list[str | None] = []
        refused = set()
        for place, text in enumerate(texts):
            try:
                told.append(self._told(text))
            except Fault:
                refused.add(place)
                told.append("")
        ids = self._batch([text if chat is None else chat for text, chat in zip(texts, told, strict=True)])
        return [
            [] if place in refused else (row if chat is not None else self._begun(row, text)) or self._nothing
            for place, (row, chat, text) in enumerate(zip(ids, told, texts, strict=True))
        ]

    def encode_pairs(self, pairs: Sequence[PreferencePair], progress: bool = True) -> PairTokens:
        """Token ids of pairs; large sets are kept in the cache folder, by content and tokenizer.

        A prompt that the chat template rejects gets an empty list; see `complaint`.

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
                prompts = [pair.prompt for pair in part]
                found.prompts.extend(self.encode_prompts(prompts))
                found.chosen.extend(self._answers(prompts, [pair.chosen for pair in part]))
                found.rejected.extend(self._answers(prompts, [pair.rejected for pair in part]))
                bar.update(len(part))
        if path is not None:
            _write(path, found)
        return found

    def _answers(self, prompts: Sequence[str], texts: Sequence[str]) -> list[list[int]]:
        chat = [self._chat and messages_of(prompt) is not None for prompt in prompts]
        ids = self._batch(
            [self._turn(text) if told else text for text, told in zip(texts, chat, strict=True)]
        )
        ends = [
            self._chat_end if told or self._is_ready(prompt) else self._end
            for prompt, told in zip(prompts, chat, strict=True)
        ]
        return [self._ended(row, end) for row, end in zip(ids, ends, strict=True)]

    def _turn(self, text: str) -> str:
        """An answer's text as the template writes it after a prompt."""
        content = content_of(text)
        content = content.lstrip() if self._strips[0] else content
        return self._lead + (content.rstrip() if self._strips[1] else content)

    def _is_ready(self, prompt: str) -> bool:
        """Whether a text contains the template's own tokens, so that it is already formatted."""
        return any(word in prompt for word in self._turns)

    def _begun(self, ids: list[int], text: str) -> list[int]:
        """Prepend what the tokenizer or the template puts before such a text, unless it begins with it."""
        before = self._chat_before if self._is_ready(text) else self._before
        return ids if ids[: len(before)] == before else [*before, *ids]

    def _ended(self, ids: list[int], end: list[int]) -> list[int]:
        """Append an answer's ending, replacing one that the text may have."""
        while True:
            last = next((at for at in range(len(ids) - 1, -1, -1) if ids[at] in self.stop_ids), None)
            if last is None or self.decode(ids[last:]).strip():
                return [*ids, *end]
            ids = ids[:last]

    def _told(self, prompt: str) -> str | None:
        """A dialogue's prompt formatted by the chat template; None without one, or if the prompt is not a dialogue.

        Raises:
            Fault: the template rejects it.
        """
        messages = messages_of(prompt) if self._chat else None
        return None if messages is None else self._through_template(messages, open_turn=True)

    def _through_template(self, messages: Sequence[Message], open_turn: bool) -> str:
        with given(REFUSES, _complaint):
            return str(
                self.tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=open_turn
                )
            )

    def _look_at_template(self, stops: set[int]) -> None:
        """Find out what the template begins with, what it puts around an answer, and what it strips.

        The end of a turn is the first token after an answer that is special, in any list of the tokenizer, or ends
        generation; if there is none, the first token that ends generation at the start of the next turn.
        """
        question, answer = _WORDS
        user = {"role": "user", "content": question}
        try:
            prompt = self._through_template([user], open_turn=True)
            before, after = self._around([user], answer)
        except Fault as refused:
            why = str(refused).removeprefix(f"{REFUSES}: ")
            raise Fault(
                f"the tokenizer's chat template cannot format a question and its answer: {why}"
            ) from None
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        special = {*self.tokenizer.all_special_ids, *(at for at, token in added.items() if token.special)}
        turns = special.intersection(self._ids(prompt)).difference(self._before)
        self._chat_before = self._before if self._ids(prompt)[: len(self._before)] == self._before else []
        self._turns = [word for word in self.tokenizer.convert_ids_to_tokens(sorted(turns)) if word]
        try:
            middle = self._around([user], answer, [user])[1]
        except Fault:  # it accepts nothing after an answer
            middle = ""
        for text, ends in ((after, special | stops), (middle, stops)):
            ids = self._ids(text)
            end = next((at for at, token in enumerate(ids) if token in ends), None)
            if end is not None:
                self._chat_end = ids[: end + 1]
                break
        self._lead = before.removeprefix(prompt) if before.startswith(prompt) else ""
        wide = self._around([user], f" \n {answer} \n ")
        self._strips = (wide[0] == before, wide[1] == after)
        first, later = prompt.partition(question)[0], middle.partition(question)[0]
        begun, turn = self._ids(first), self._ids(later)
        own = next(at for at in range(len(begun) + 1) if turn[len(turn) - len(begun) + at :] == begun[at:])
        self._opening = self.decode(begun[:own]).strip()

    def _around(self, asked: Sequence[Message], answer: str, then: Sequence[Message] = ()) -> tuple[str, str]:
        """The template's text before and after an answer's word."""
        messages = [*asked, {"role": "assistant", "content": answer}, *then]
        before, _, after = self._through_template(messages, open_turn=False).rpartition(_WORDS[1])
        return before, after

    def _words(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids))).strip()

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _batch(self, texts: Sequence[str]) -> list[list[int]]:
        found = self.tokenizer(
            list(texts), add_special_tokens=False, verbose=False
        )  # too long texts are handled later
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
            [self._lead, *self._strips, *self.stop_ids],
            str(self.tokenizer.chat_template),
            words,
        ]
        key = hashlib.sha256(json.dumps(told).encode())
        for pair in pairs:
            key.update(json.dumps([pair.prompt, pair.chosen, pair.rejected]).encode())
        name = f"tokens-{key.hexdigest()[:20]}.safetensors"
        return cache_folder(name) / name


def _complaint(error: BaseException) -> str:
    """A template's own message when it rejects, or else the error in it."""
    its_own = "TemplateError" in {kind.__name__ for kind in type(error).__mro__}
    return " ".join(str(error).split())[:300] if its_own and str(error) else cause(error)


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
