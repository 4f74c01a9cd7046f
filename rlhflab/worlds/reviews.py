"""The reviews world: longer answers, a known true reward, and too many answers to enumerate.

A prompt is "this thriller , in short ,", an answer at most 24 tokens over about 200 words, such as "the plot was never
dull but the ending felt rather weak". A shorter answer ends with EOS; as in the micro world, a token that belongs in no
answer ends one too, and its clause is then ungrammatical. Z(x), KL and E[r] are means over samples here, so each comes
with a standard error, and none is called exact.
"""

from __future__ import annotations

import random
from collections.abc import Collection

import torch
from torch import Tensor

from rlhflab.worlds import reviews_grammar as grammar
from rlhflab.worlds.tokenizer import EOS
from rlhflab.worlds.words import WordWorld


class ReviewsWorld(WordWorld):
    """Prompts, answers and true rewards of film reviews; see `worlds.world.World`.

    Attributes:
        prompts: 18 texts of six tokens, three for each kind of film.
        tokenizer: word-level, about 200 tokens.
        prompt_ids: [18, 6] token ids.
        stop_ids: EOS, the padding and the words that occur only in prompts.
        max_tokens: 24.
        blind_to: features that this world's reward leaves out.

    Args:
        blind_to: names from `reviews_grammar.FEATURES`; the rewards are those of an annotator who does not see these
            features: a proxy that can be over-optimised.

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
        super().__init__(grammar.PROMPTS, grammar.WORDS, grammar.MAX_WORDS, length=32)

    def answer_features(self, prompts: Tensor, answers: Tensor, mask: Tensor) -> Tensor:
        """The features of sampled answers that the true reward depends on.

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
        """r*(x, y) of sampled answers, without the features this world is blind to; see `worlds.world.World`."""
        weights = torch.tensor(list(self._weights.values()), dtype=torch.float64)
        return self.answer_features(prompts, answers, mask) @ weights

    def grammatical(self, answers: Tensor, mask: Tensor) -> Tensor:
        """[batch] bool: answers without an error; see `worlds.world.World`."""
        features = self.answer_features(torch.zeros(len(answers), dtype=torch.long), answers, mask)
        return features[:, grammar.FEATURES.index("faults")] == 0

    def features(self, prompt: str, answer: str) -> dict[str, float]:
        """The features of a text, by name; raises ValueError for a prompt or answer that is not in this world."""
        self.prompt_position(prompt)
        self.encode_answer(answer)
        return grammar.review_features(prompt, [] if answer == EOS else answer.split())

    def true_reward(self, prompt: str, answer: str) -> float:
        """r*(x, y) of texts; raises ValueError for a prompt or answer that is not in this world."""
        features = self.features(prompt, answer)
        return sum(self._weights[name] * value for name, value in features.items())

    def fault(self, prompt: str, answer: str) -> str:
        """The error in an answer; "" if it is in the clean language."""
        return "faulty clause" if self.features(prompt, answer)["faults"] else ""

    def corpus(self, size: int, seed: int, p_noise: float = 0.0) -> list[tuple[str, str]]:
        """Draw (prompt, answer) texts: the clean language, or with `p_noise` > 0 the unedited one."""
        rng = random.Random(seed)
        return [
            (rng.choice(self.prompts), " ".join(grammar.sample_noisy_review(rng, p_noise)))
            for _ in range(size)
        ]
