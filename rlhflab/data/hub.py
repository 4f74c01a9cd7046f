"""Real data in the forms people have it: preference pairs, or texts with a label, and how they were understood.

Where they come from is told by `rows`, and how a row becomes a pair by `layouts`. A row may also be {text, label}, as
in IMDb: label is 0 or 1, or a word such as "pos".
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
    """A text and whether it is of the wanted kind, such as a positive review; where it stands, for messages."""

    text: str
    wanted: bool
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Data:
    """What a source holds: pairs, or texts with labels; the other is empty.

    Attributes:
        source: its name, for messages.
        dropped: reason → how many rows were left out for it.
        note: in one line how it was understood: form, where the prompts come from, how many rows, what is not used, the
            first example.
    """

    source: str
    pairs: tuple[PreferencePair, ...] = ()
    texts: tuple[LabelledText, ...] = ()
    dropped: tuple[tuple[str, int], ...] = ()
    note: str = ""


def read_data(source: str, skip_bad: bool = False, progress: bool = True) -> Data:
    """Read a file, a folder or a hub's data set; nothing is returned from one that is partly bad.

    Args:
        source: see `rows`.
        skip_bad: leave bad rows out, with one warning that counts them. Pairs with an empty answer or with twice the
            same answer are no bad rows: real data has some, and they are left out and counted in `dropped`.
        progress: show a bar.

    Raises:
        ValueError: in one line: what cannot be read and why, or source, place and field of a bad row.
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
    if seen.unalike and seen.by_words():  # then these common beginnings are no prompts
        raise ValueError(
            f"{seen.unalike[0]}; so what others begin with is no prompt, and no row can be left out for it"
        )
    if seen.pairs and seen.texts:
        raise ValueError(f"{source} holds pairs and texts with labels; it must hold one of them")
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
    """What the rows hold that were read, and how they were understood."""

    def __init__(self) -> None:
        self.pairs: list[PreferencePair] = []
        self.texts: list[LabelledText] = []
        self.bad: list[str] = []
        self.unalike: list[str] = []  # of the bad ones, those whose answers do not begin alike
        self.dropped: Counter[str] = Counter()
        self._hows: Counter[str] = Counter()
        self._unused: Counter[str] = Counter()
        self._remark = ""

    def take(self, row: Any, place: str) -> None:
        """Take a row; ValueError where it is bad."""
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
            self.dropped["with twice the same answer" if same else "with an empty answer"] += 1
            return
        self.pairs.append(pair)
        self._hows[found.how] += 1
        self._unused.update(found.unused)

    def by_words(self) -> bool:
        """Whether a prompt is only the words that both answers begin with."""
        return BY_WORDS in self._hows

    def take_repeated_prompts_out(self) -> None:
        """Where all answers begin with their prompts, which would be trained as a part of them, cut these off."""
        begin = [
            pair.chosen.startswith(pair.prompt) and pair.rejected.startswith(pair.prompt)
            for pair in self.pairs
        ]
        if not any(begin):
            return
        if not all(begin):
            self._remark = f", and in {sum(begin)} pairs both answers begin with it, which is not changed"
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
    """Each wanted text with one that is not: chosen and rejected answers to the empty prompt.

    A reward model of these pairs is a classifier of texts, such as of sentiment.
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
    """Prompts for sampling: each pair's prompt, or each text's first `words` words; each once.

    Returns:
        prompt → where it stands in the source, "" where that is not known.

    Raises:
        ValueError: the texts have no blanks between words, so these cannot be counted.
    """
    if data.pairs:
        found = [(pair.prompt, pair.place) for pair in data.pairs]
    else:
        found = [(_first_words(each.text, words), each.place) for each in data.texts]
        if sum(bool(NO_BLANKS.search(prompt)) for prompt, _ in found) > len(found) / 2:
            raise ValueError(
                f"the texts of {data.source} have no blanks between words, so their first {words} words are not known"
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
    """A text in one line: its end where it is a prompt's matters as much as its beginning."""
    return shortened(
        text if len(text) <= EXAMPLE else f"{text[: EXAMPLE // 2]}…{text[-EXAMPLE // 2 :]}", 2 * EXAMPLE
    )
