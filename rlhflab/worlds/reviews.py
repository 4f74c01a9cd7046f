"""The reviews world: longer answers, a true reward that is known, and too many answers to enumerate.

A prompt is "this thriller , in short ,", an answer at most 24 tokens over about 200 words, such as "the plot was never
dull but the ending felt rather weak". A shorter answer ends with EOS; as in the micro world a token that belongs in no
answer ends one too, and its clause is then faulty. Z(x), KL and E[r] are means over samples here, so each comes with a
standard error, and none is called exact.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhflab.worlds import reviews_grammar as grammar
from rlhflab.worlds.tokenizer import EOS, word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class ReviewsWorld:
    """Prompts, answers and true rewards of film reviews; see `worlds.world.World`.

    Attributes:
        prompts: 18 texts of six tokens, three for each kind of film.
        tokenizer: word-level, about 200 tokens.
        prompt_ids: [18, 6] token ids.
        stop_ids: EOS, the padding and the words that stand in prompts only.
        max_tokens: 24.
        blind_to: features that this world's reward leaves out.

    Args:
        blind_to: names out of `reviews_grammar.FEATURES`; with one, the rewards are those of an annotator who does not
            see it: the proxy of over-optimisation.

    >>> truth, proxy = ReviewsWorld(), ReviewsWorld(blind_to=["repetition"])
    >>> twice = "the plot was superb and the plot was superb"
    >>> proxy.true_reward(truth.prompts[0], twice) - truth.true_reward(truth.prompts[0], twice)
    2.0
    """

    name = "reviews"
    enumerable = False

    def __init__(self, blind_to: Collection[str] = ()) -> None:
        unknown = set(blind_to) - set(grammar.FEATURES)
        if unknown:
            raise ValueError(f"unknown feature {min(unknown)!r}; known: {', '.join(grammar.FEATURES)}")
        self.blind_to = tuple(blind_to)
        self._weights = {name: 0.0 if name in blind_to else w for name, w in grammar.WEIGHTS.items()}
        self.prompts: tuple[str, ...] = grammar.PROMPTS
        self.tokenizer: PreTrainedTokenizerFast = word_tokenizer(
            [word for prompt in self.prompts for word in prompt.split()] + list(grammar.WORDS), length=32
        )
        self._tokens: list[str] = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        self._ids = {token: index for index, token in enumerate(self._tokens)}
        self._words = set(grammar.WORDS)
        self.prompt_ids = torch.tensor(
            [[self._ids[word] for word in prompt.split()] for prompt in self.prompts]
        )
        self.stop_ids = tuple(index for token, index in self._ids.items() if token not in self._words)
        self.max_tokens = grammar.MAX_WORDS

    def prompt_position(self, prompt: str) -> int:
        """Position of a prompt's text in `prompts`; raises ValueError for any other text."""
        if prompt not in self.prompts:
            raise ValueError(f"unknown prompt {prompt!r}; one of this world's is {self.prompts[0]!r}")
        return self.prompts.index(prompt)

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of a prompt's text."""
        return self.prompt_ids[self.prompt_position(prompt)].tolist()

    def encode_answer(self, answer: str) -> list[int]:
        """Token ids of an answer's text, its ending included; raises ValueError for a text that is no answer.

        The empty answer's text is "<eos>".
        """
        words = [] if answer == EOS else answer.split()
        ended = bool(words) and words[-1] not in self._words  # by a token that belongs in no answer
        for word in words[:-1] if ended else words:
            if word not in self._words:
                raise ValueError(f"{word!r} is no word of an answer: {answer!r}")
        if not answer.split() or (ended and words[-1] not in self._ids) or EOS in words:
            raise ValueError(f"{answer!r} is no answer: known words are needed, or {EOS} alone")
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

    def answer_features(self, prompts: Tensor, answers: Tensor, mask: Tensor) -> Tensor:
        """What the true reward looks at in sampled answers.

        Args:
            prompts, answers, mask: as in `answer_rewards`.

        Returns:
            [batch, features] float64, columns in the order of `reviews_grammar.FEATURES`.
        """
        texts = zip(prompts.tolist(), self._sampled(answers, mask), strict=True)
        rows = [
            list(grammar.review_features(self.prompts[prompt], words).values()) for prompt, words in texts
        ]
        return torch.tensor(rows, dtype=torch.float64).view(-1, len(grammar.FEATURES))

    def answer_rewards(self, prompts: Tensor, answers: Tensor, mask: Tensor) -> Tensor:
        """r*(x, y) of sampled answers, less the features this world is blind to; see `worlds.world.World`."""
        weights = torch.tensor(list(self._weights.values()), dtype=torch.float64)
        return self.answer_features(prompts, answers, mask) @ weights

    def grammatical(self, answers: Tensor, mask: Tensor) -> Tensor:
        """[batch] bool: answers without a fault; see `worlds.world.World`."""
        features = self.answer_features(torch.zeros(len(answers), dtype=torch.long), answers, mask)
        return features[:, grammar.FEATURES.index("faults")] == 0

    def features(self, prompt: str, answer: str) -> dict[str, float]:
        """The features of a text, by name; raises ValueError for a prompt or answer that is not of this world."""
        self.prompt_position(prompt)
        self.encode_answer(answer)
        return grammar.review_features(prompt, [] if answer == EOS else answer.split())

    def true_reward(self, prompt: str, answer: str) -> float:
        """r*(x, y) of texts; raises ValueError for a prompt or answer that is not of this world."""
        features = self.features(prompt, answer)
        return sum(self._weights[name] * value for name, value in features.items())

    def fault(self, prompt: str, answer: str) -> str:
        """What is wrong with an answer; "" where it is of the clean language."""
        return "faulty clause" if self.features(prompt, answer)["faults"] else ""

    def corpus(self, size: int, seed: int, p_noise: float = 0.0) -> list[tuple[str, str]]:
        """Draw (prompt, answer) texts: the clean language, or with `p_noise` > 0 the unedited one."""
        rng = random.Random(seed)
        return [
            (rng.choice(self.prompts), " ".join(grammar.sample_noisy_review(rng, p_noise)))
            for _ in range(size)
        ]
