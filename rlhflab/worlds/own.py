"""A custom world: prompts, the answers of the clean language, and a reward function of texts.

    def reward(prompt, answer):
        return answer.split().count("sun") - 0.1 * len(answer.split())

    world = OwnWorld(["today we see", "tonight we see"], [f"the {a} {b}" for a in SKY for b in DOING], reward)
    Board(recipes.DPO(world=world))

If there are few enough answers over its vocabulary, all of them are listed and π*, Z and the frontier are exact, as in
the micro world; otherwise everything is estimated from samples, as in the reviews world.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rlhflab.boundary import Fault, given
from rlhflab.worlds.tokenizer import EOS
from rlhflab.worlds.tree import PrefixTree
from rlhflab.worlds.words import WordWorld

MOST_LISTED = 100_000
"""Most answers per prompt that are listed: about three times the micro world's."""


class OwnWorld(WordWorld):
    """A world from plain texts and a function; see `worlds.world.World`.

    Attributes:
        enumerable: whether all answers are listed. Then there are also `answers`, texts in the order of the `tree`, and
            `rewards` [prompts, answers] float64.

    Args:
        prompts: texts with the same number of words.
        answers: the clean language, one text each; the tiny model is pre-trained and fine-tuned on them, drawn with
            equal probability. Their words are the vocabulary, and the longest one sets the maximum length of an answer.
        reward: (prompt, answer) → a number; called with any sequence of the answers' words.
        nonsense: reward of an answer that ends with a word of the prompts.
        name: for titles and for the tiny model's folder in the cache.

    Raises:
        ValueError: the arguments do not make a world, in one line.
        Fault: the reward fails, or does not return a number.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        answers: Iterable[str],
        reward: Callable[[str, str], float],
        nonsense: float = -3.0,
        name: str = "own",
    ) -> None:
        self.clean = tuple(dict.fromkeys(" ".join(answer.split()) for answer in answers))
        if not self.clean or "" in self.clean:
            raise ValueError("a world needs at least one clean answer, and no empty one")
        words = dict.fromkeys(word for answer in self.clean for word in answer.split())
        longest = max(2, *(len(answer.split()) for answer in self.clean))
        length = longest + max((len(prompt.split()) for prompt in prompts), default=0) + 1
        super().__init__(prompts, words, longest, length)
        self.name, self._reward, self._nonsense = name, reward, nonsense
        size = (
            sum(len(words) ** level * len(self.stop_ids) for level in range(longest)) + len(words) ** longest
        )
        self.enumerable = size <= MOST_LISTED

    @cached_property
    def digest(self) -> str:
        """A hash of prompts, vocabulary and clean answers: everything that the tiny model learns from."""
        content = json.dumps([self.prompts, self._tokens, self.clean, self.max_tokens])
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def _worth(self, prompt: str, words: Sequence[str]) -> float:
        if words and words[-1] not in self._words:
            return self._nonsense
        answer = " ".join(words)
        with given(f"the reward of world {self.name!r}"):
            value = self._reward(prompt, answer)
            score = float(value)
        if not math.isfinite(score):
            raise Fault(
                f"the reward of world {self.name!r} must be a finite number, got {value!r} for {answer!r}"
            )
        return score

    # ---- the interface of a world -------------------------------------------------------------------------------

    def answer_rewards(self, prompts: Tensor, answers: Tensor, mask: Tensor) -> Tensor:
        """r*(x, y) of sampled answers; see `worlds.world.World`."""
        if self.enumerable:
            return self.rewards[prompts.cpu(), self.tree.positions(answers, mask)]
        texts = zip(prompts.tolist(), self._sampled(answers, mask), strict=True)
        return torch.tensor(
            [self._worth(self.prompts[prompt], words) for prompt, words in texts], dtype=torch.float64
        )

    def grammatical(self, answers: Tensor, mask: Tensor) -> Tensor:
        """[batch] bool: sampled answers of the clean language."""
        clean = set(self.clean)
        return torch.tensor([" ".join(words) in clean for words in self._sampled(answers, mask)])

    def true_reward(self, prompt: str, answer: str) -> float:
        """r*(x, y) of texts; raises ValueError for a prompt or answer that is not in this world."""
        self.prompt_position(prompt)
        self.encode_answer(answer)
        return self._worth(prompt, [] if answer == EOS else answer.split())

    def fault(self, prompt: str, answer: str) -> str:
        """The error in an answer; "" if it is in the clean language."""
        self.prompt_position(prompt)
        return "" if answer in self.clean else "not in the clean language"

    def corpus(self, size: int, seed: int, p_noise: float = 0.0) -> list[tuple[str, str]]:
        """Draw (prompt, answer) texts; a fraction `p_noise` of them has a word missing, doubled or wrong."""
        rng, words = random.Random(seed), sorted(self._words)
        return [
            (rng.choice(self.prompts), self._noisy(rng.choice(self.clean).split(), rng, words, p_noise))
            for _ in range(size)
        ]

    def _noisy(self, answer: list[str], rng: random.Random, words: Sequence[str], p_noise: float) -> str:
        if rng.random() < p_noise:
            at, kind = rng.randrange(len(answer)), rng.choice(("lost", "doubled", "wrong"))
            part = {"lost": [], "doubled": [answer[at]] * 2, "wrong": [rng.choice(words)]}[kind]
            answer = [*answer[:at], *part, *answer[at + 1 :]][: self.max_tokens]
        return " ".join(answer) or EOS

    # ---- if all answers are listed ------------------------------------------------------------------------------

    @cached_property
    def tree(self) -> PrefixTree:
        """The prefix tree of all answers."""
        words = [index for token, index in self._ids.items() if token in self._words]
        return PrefixTree(words, len(self.tokenizer), self.max_tokens)

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """All answers as text, in the tree's order; EOS is left out except in the empty answer, which is "<eos>"."""
        rows = zip(self.tree.answers.tolist(), self.tree.lengths.tolist(), strict=True)
        return tuple(self.decode_answer(row[:length]) for row, length in rows)

    @cached_property
    def answer_index(self) -> dict[str, int]:
        """Text of an answer → its position in `answers`."""
        return {answer: index for index, answer in enumerate(self.answers)}

    def answer_position(self, answer: str) -> int:
        """Position of an answer's text in `answers`; raises ValueError for any other text."""
        self.encode_answer(answer)
        return self.answer_index[answer]

    @cached_property
    def rewards(self) -> Tensor:
        """[prompts, answers] true rewards, float64."""
        split = [[] if answer == EOS else answer.split() for answer in self.answers]
        rows = [[self._worth(prompt, words) for words in split] for prompt in self.prompts]
        return torch.tensor(rows, dtype=torch.float64)

    @cached_property
    def is_grammatical(self) -> Tensor:
        """[answers] bool: the clean language."""
        clean = set(self.clean)
        return torch.tensor([answer in clean for answer in self.answers])

    def logps(self, model: Any) -> Tensor:
        """log π(y|x) of every answer to every prompt: [prompts, answers], float64 on the CPU."""
        return self.tree.logps(model, self.prompt_ids)
