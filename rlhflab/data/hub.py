"""Real data in common forms: preference pairs, or labelled texts, and a note on how they were read.

`rows` says where data comes from, and `layouts` how a row becomes a pair. A row may also be {text, label}, as in IMDb:
label is 0 or 1, or a word such as "pos".
"""

from __future__ import annotations

import random
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from rlhflab.data.layouts import (
    BY_WORDS,
    NO_BLANKS,
    NoCommonBeginning,
    UnusablePair,
    fields_of,
    pair_of,
    shortened,
)
from rlhflab.data.rows import open_rows
from rlhflab.worlds.preferences import PreferencePair

LABELS = {
    "1": True, "pos": True, "positive": True, "true": True, "0": False, "neg": False, "negative": False, "false": False,
}  # fmt: skip
EXAMPLE = 60  # characters of an example's texts
Item = TypeVar("Item")


@dataclass(frozen=True)
class LabelledText:
    """A text and whether it is of the wanted kind, such as a positive review; and its place, for messages."""

    text: str
    wanted: bool
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Data:
    """The contents of a source: pairs, or labelled texts; the other list is empty.

    Attributes:
        source: its name, for messages.
        dropped: reason → number of rows left out.
        note: one line on how it was read: form, where the prompts come from, number of rows, unused fields, the first
            example.
    """

    source: str
    pairs: tuple[PreferencePair, ...] = ()
    texts: tuple[LabelledText, ...] = ()
    dropped: tuple[tuple[str, int], ...] = ()
    note: str = ""


def read_data(source: str, skip_bad: bool = False, progress: bool = True) -> Data:
    """Read a file, a folder or a data set of the hub; a bad row is an error.

    Args:
        source: see `rows`.
        skip_bad: leave bad rows out, with one warning that counts them. Pairs with an empty answer or with two equal
            answers are not bad rows: real data has some, and they are left out and counted in `dropped`.
        progress: show a bar.

    Raises:
        ValueError: in one line, what cannot be read and why, or source, place and field of a bad row.
    """
    from tqdm.auto import tqdm

    form, rows = open_rows(source)
    shown = tqdm(rows, desc=f"reading {Path(source).name}", unit=" rows", leave=False, disable=not progress)
    seen = _Seen()
    for place, row in shown:
        try:
            if isinstance(row, ValueError):
                raise row
            seen.take(row, place)
        except ValueError as error:
            seen.bad.append(f"{source}, {place}: {error}")
            if isinstance(error, NoCommonBeginning):
                seen.unalike.append(seen.bad[-1])
            if not skip_bad:
                raise ValueError(seen.bad[0]) from None
    if seen.unalike and seen.by_words():  # then these common beginnings are not prompts
        raise ValueError(
            f"{seen.unalike[0]}; so the common beginnings of other rows are not prompts, and skipping rows cannot help"
        )
    if seen.pairs and seen.texts:
        raise ValueError(f"{source} holds both pairs and labelled texts; it must hold only one kind")
    seen.take_repeated_prompts_out()
    if not seen.pairs and not seen.texts:
        if seen.dropped:
            raise ValueError(f"{source} holds no usable pair: {counted(seen.dropped)}")
        raise ValueError(seen.bad[0] if seen.bad else f"{source} is empty; it must hold at least one row")
    if seen.bad:
        warnings.warn(
            f"{len(seen.bad)} bad rows left out of {source}; the first: {seen.bad[0]}", stacklevel=2
        )
    note = f"{Path(source).name}, {form}: {seen.words()}"
    return Data(source, tuple(seen.pairs), tuple(seen.texts), tuple(seen.dropped.items()), note)


class _Seen:
    """The contents of the rows read so far, and how they were understood."""

    def __init__(self) -> None:
        self.pairs: list[PreferencePair] = []
        self.texts: list[LabelledText] = []
        self.bad: list[str] = []
        self.unalike: list[str] = []  # the bad rows whose answers do not begin alike
        self.dropped: Counter[str] = Counter()
        self._hows: Counter[str] = Counter()
        self._unused: Counter[str] = Counter()
        self._remark = ""

    def take(self, row: Any, place: str) -> None:
        """Add a row; ValueError if it is bad."""
        if "chosen" not in (fields := fields_of(row)) and {"text", "label"} <= fields.keys():
            text = _labelled(fields, place)
            self._unused.update(fields.keys() - {"text", "label"})
            if text.text.strip():
                self.texts.append(text)
            else:
                self.dropped["with an empty text"] += 1
            return
        try:
            pair, found = pair_of(row, place)
        except UnusablePair as error:
            same = "identical" in str(error)
            self.dropped["with two equal answers" if same else "with an empty answer"] += 1
            return
        self.pairs.append(pair)
        self._hows[found.how] += 1
        self._unused.update(found.unused)

    def by_words(self) -> bool:
        """Whether prompts are only the words that both answers begin with."""
        return BY_WORDS in self._hows

    def take_repeated_prompts_out(self) -> None:
        """If all answers begin with their prompts, cut these off, as they would be trained as part of the answer."""
        begin = [
            pair.chosen.startswith(pair.prompt) and pair.rejected.startswith(pair.prompt)
            for pair in self.pairs
        ]
        if not any(begin):
            return
        if not all(begin):
            self._remark = f", and in {sum(begin)} pairs both answers begin with it, which is left unchanged"
            return
        self._remark = ", which all answers repeat"
        cut = [
            replace(pair, chosen=pair.chosen[len(pair.prompt) :], rejected=pair.rejected[len(pair.prompt) :])
            for pair in self.pairs
        ]
        self.pairs = [pair for pair in cut if pair.chosen.strip() and pair.rejected.strip()]
        self.dropped += Counter({"with an empty answer": len(cut) - len(self.pairs)})

    def words(self) -> str:
        """How the rows were understood, in one line."""
        rows = len(self.pairs) + len(self.texts) + sum(self.dropped.values()) + len(self.bad)
        if self.texts:
            wanted = sum(each.wanted for each in self.texts)
            first = f"first: {_example(self.texts[0].text)} is {'' if self.texts[0].wanted else 'not '}wanted"
            words = [f"{rows} rows, {len(self.texts)} texts, {wanted} of them wanted by their labels", first]
        else:
            several = len(self._hows) > 1
            hows = [f"{how} ({count} rows)" if several else how for how, count in self._hows.items()]
            pair = self.pairs[0]
            texts = (("prompt", pair.prompt), ("chosen", pair.chosen), ("rejected", pair.rejected))
            first = ", ".join(f"{name} {_example(text)}" for name, text in texts)
            words = [
                f"{rows} rows, {len(self.pairs)} pairs",
                f"prompt: {', or '.join(hows)}{self._remark}",
                f"first: {first}",
            ]
        if left := [counted(self.dropped)] * bool(self.dropped) + [f"{len(self.bad)} bad"] * bool(self.bad):
            words.append(f"left out: {', '.join(left)}")
        if self._unused:
            words.append(f"not used: {', '.join(sorted(self._unused))}")
        return "; ".join(words)


def counted(reasons: Mapping[str, int]) -> str:
    """Reasons with their counts, in words."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())


def pairs_of_labels(texts: Sequence[LabelledText], seed: int) -> list[PreferencePair]:
    """Pair each wanted text with an unwanted one, as chosen and rejected answers to the empty prompt.

    A reward model of these pairs is a text classifier, such as one for sentiment.
    """
    sides: list[list[str]] = [
        [each.text for each in texts if each.wanted is wanted] for wanted in (True, False)
    ]
    for side in sides:
        random.Random(seed).shuffle(side)
    if not all(sides):
        raise ValueError("all texts have the same label; pairs need some of both")
    return [PreferencePair("", chosen, rejected) for chosen, rejected in zip(*sides, strict=False)]


def beginnings(data: Data, words: int) -> dict[str, str]:
    """Prompts for sampling: each pair's prompt, or each text's first `words` words; without repetition.

    Returns:
        prompt → its place in the source, "" if unknown.

    Raises:
        ValueError: the texts have no spaces between words, so words cannot be counted.
    """
    if data.pairs:
        found = [(pair.prompt, pair.place) for pair in data.pairs]
    else:
        found = [(_first_words(each.text, words), each.place) for each in data.texts]
        if sum(bool(NO_BLANKS.search(prompt)) for prompt, _ in found) > len(found) / 2:
            raise ValueError(
                f"the texts of {data.source} have no spaces between words, so their first {words} words are not known"
            )
    places: dict[str, str] = {}
    for prompt, place in found:
        if prompt.strip():
            places.setdefault(prompt, place)
    return places


def split(items: Sequence[Item], held_out: int, seed: int) -> tuple[list[Item], list[Item]]:
    """Shuffle with `seed`, and put the last `held_out` aside: (to train on, held out)."""
    order = random.Random(seed).sample(range(len(items)), len(items))
    shuffled = [items[index] for index in order]
    return shuffled[: len(items) - held_out], shuffled[len(items) - held_out :]


def _labelled(fields: Mapping[str, Any], place: str) -> LabelledText:
    text, label = fields["text"], fields["label"]
    if not isinstance(text, str):
        raise ValueError(f"field 'text' must be a string, got {shortened(text)}")
    wanted = LABELS.get(str(label).strip().lower().removesuffix(".0"))
    if wanted is None:
        raise ValueError(
            f"field 'label' must be 0 or 1, or one of {', '.join(LABELS)}, got {shortened(label)}"
        )
    return LabelledText(text, wanted, place)


def _first_words(text: str, words: int) -> str:
    found = re.match(rf"(\s*\S+){{0,{words}}}", text)
    return found.group().strip() if found else ""


def _example(text: str) -> str:
    """A text in one line, with beginning and end, as the end of a prompt matters just as much."""
    return shortened(
        text if len(text) <= EXAMPLE else f"{text[: EXAMPLE // 2]}…{text[-EXAMPLE // 2 :]}", 2 * EXAMPLE
    )
