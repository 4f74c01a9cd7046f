"""The micro world: nine prompts about films, every answer enumerable, the true reward known.

A prompt is "the plot seemed", an answer at most four tokens over twelve words, such as "not very good". An answer of
four words ends by its length; a shorter one ends with EOS. A model with a full softmax can also end an answer with a
token that does not belong in one ("good the"); such answers are included too, with the reward of nonsense, so that
probabilities sum to 1 without masking. That makes 37,701 answers per prompt, and Z(x), π*, the reward–KL frontier, Q*
and V* are sums over them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rlhflab.objectives.optimum import Evaluation, Frontier, evaluate, frontier, optimal_logps, reward_levels
from rlhflab.objectives.preference import label_pairs
from rlhflab.worlds import grammar
from rlhflab.worlds.preferences import PreferencePair
from rlhflab.worlds.tokenizer import EOS, word_tokenizer
from rlhflab.worlds.tree import PrefixTree


@dataclass(frozen=True)
class PairBatch:
    """Preference pairs as positions in the world's list of answers; all tensors [pairs].

    Attributes:
        prompts: index of the prompt.
        chosen, rejected: index of the answer in `MicroWorld.answers`.
        flipped: bool, True where the noise swapped the label.
    """

    prompts: Tensor
    chosen: Tensor
    rejected: Tensor
    flipped: Tensor

    def __len__(self) -> int:
        return len(self.prompts)


class MicroWorld:
    """Prompts, answers, true rewards and everything that can be computed exactly from them.

    Attributes:
        prompts: the nine prompts.
        tokenizer: word-level, 21 tokens.
        tree: the prefix tree of all answers.
        prompt_ids: [prompts, 3] token ids.
        max_tokens: 4.
        rewards: [prompts, answers] true rewards, float64.
    """

    name = "micro"
    enumerable = True

    def __init__(self) -> None:
        self.tokenizer = word_tokenizer(["the", *grammar.SUBJECTS, *grammar.VERBS, *grammar.WORDS], length=16)
        self.prompts: tuple[str, ...] = grammar.PROMPTS
        ids = self.tokenizer.convert_tokens_to_ids
        self.tree = PrefixTree(ids(list(grammar.WORDS)), len(self.tokenizer), grammar.MAX_WORDS)
        self.prompt_ids = torch.tensor([ids(prompt.split()) for prompt in self.prompts])
        self.max_tokens = grammar.MAX_WORDS
        self.rewards = self._true_rewards()

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Token ids that end an answer."""
        return tuple(self.tree.stops.tolist())

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """All answers as text, in the tree's order; EOS is left out except in the empty answer, which is "<eos>"."""
        tokens = self._token_texts
        rows, lengths = self.tree.answers.tolist(), self.tree.lengths.tolist()
        return tuple(
            " ".join(tokens[token] for token in row[:length]).removesuffix(f" {EOS}")
            for row, length in zip(rows, lengths, strict=True)
        )

    @cached_property
    def answer_index(self) -> dict[str, int]:
        """Text of an answer → its position in `answers`."""
        return {answer: index for index, answer in enumerate(self.answers)}

    def _true_rewards(self) -> Tensor:
        """[prompts, answers]: only answers made of words that end properly can parse; the rest is nonsense."""
        rewards = torch.full(
            (len(self.prompts), len(self.tree.answers)), grammar.UNGRAMMATICAL, dtype=torch.float64
        )
        values = {}
        for subject in grammar.SUBJECTS:
            prompt = f"the {subject} was"
            values[subject] = [
                (index, grammar.remark_reward(prompt, words)) for index, words in self._grammatical
            ]
        for row, prompt in enumerate(self.prompts):
            index, scores = zip(*values[prompt.split()[1]], strict=True)
            rewards[row, list(index)] = torch.tensor(scores, dtype=torch.float64)
        return rewards

    @cached_property
    def _grammatical(self) -> list[tuple[int, list[str]]]:
        words = [answer.split() for answer in self.answers]
        return [(index, answer) for index, answer in enumerate(words) if grammar.parse(answer) is not None]

    @cached_property
    def is_grammatical(self) -> Tensor:
        """[answers] bool: True on the clean language."""
        mask = torch.zeros(len(self.answers), dtype=torch.bool)
        mask[[index for index, _ in self._grammatical]] = True
        return mask

    @cached_property
    def kinds(self) -> dict[str, Tensor]:
        """The kinds of answers: "clean" and every error of `grammar.FAULTS` → [answers] bool, disjoint."""
        words = [answer.removesuffix(EOS).split() for answer in self.answers]
        found = [grammar.fault(answer) or "clean" for answer in words]
        names = ("clean", *grammar.FAULTS)
        return {name: torch.tensor([kind == name for kind in found]) for name in names}

    def language(self, p_noise: float = 0.0) -> Tensor:
        """[answers] float64: the exact distribution that `corpus` draws from; it is the same for all prompts."""
        probabilities = torch.zeros(len(self.answers), dtype=torch.float64)
        for answer, probability in grammar.remark_probabilities(p_noise).items():
            probabilities[self.answer_position(answer)] = probability
        return probabilities

    def true_reward(self, prompt: str, answer: str) -> float:
        """r*(x, y) of texts; raises ValueError for a prompt or answer that is not in this world."""
        return float(self.rewards[self.prompt_position(prompt), self.answer_position(answer)])

    def prompt_position(self, prompt: str) -> int:
        """Position of a prompt's text in `prompts`; raises ValueError for any other text."""
        if prompt not in self.prompts:
            raise ValueError(f"unknown prompt {prompt!r}; the micro world's are: {', '.join(self.prompts)}")
        return self.prompts.index(prompt)

    def answer_position(self, answer: str) -> int:
        """Position of an answer's text in `answers`; raises ValueError for any other text."""
        index = self.answer_index.get(answer)
        if index is None:
            raise ValueError(
                f"unknown answer {answer!r}; answers are at most 4 of: {', '.join(grammar.WORDS)}"
            )
        return index

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of a prompt's text."""
        return self.prompt_ids[self.prompt_position(prompt)].tolist()

    def encode_answer(self, answer: str) -> list[int]:
        """Token ids of an answer's text, its ending included; inverse of `answers`."""
        index = self.answer_position(answer)
        return self.tree.answers[index, : int(self.tree.lengths[index])].tolist()

    def decode_answer(self, tokens: Sequence[int]) -> str:
        """Text of an answer's token ids, its EOS left out; inverse of `encode_answer`."""
        return " ".join(self._token_texts[token] for token in tokens).removesuffix(f" {EOS}")

    @cached_property
    def _token_texts(self) -> list[str]:
        return list(self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer)))))

    def answer_rewards(self, prompts: Tensor, answers: Tensor, mask: Tensor) -> Tensor:
        """r*(x, y) of sampled answers; see `worlds.world.World`."""
        return self.rewards[prompts.cpu(), self.tree.positions(answers, mask)]

    def grammatical(self, answers: Tensor, mask: Tensor) -> Tensor:
        """[batch] bool: sampled answers of the clean language; see `worlds.world.World`."""
        return self.is_grammatical[self.tree.positions(answers, mask)]

    def logps(self, model: Any) -> Tensor:
        """log π(y|x) of every answer to every prompt: [prompts, answers], float64 on the CPU, like all tables."""
        return self.tree.logps(model, self.prompt_ids)

    def fault(self, prompt: str, answer: str) -> str:
        """The error in an answer, one of grammar.FAULTS; "" if it is in the clean language."""
        self.prompt_position(prompt)
        return grammar.fault(() if answer == EOS else answer.split())

    def corpus(self, size: int, seed: int, p_noise: float = 0.0) -> list[tuple[str, str]]:
        """Draw (prompt, answer) texts: the clean language, or with `p_noise` > 0 the unedited one."""
        rng = random.Random(seed)
        return [
            (rng.choice(self.prompts), " ".join(grammar.sample_noisy_remark(rng, p_noise)))
            for _ in range(size)
        ]


class ReferencePoint:
    """A world seen from one reference policy: everything that π_ref and the true reward determine.

    Attributes:
        world: the micro world.
        logps: [prompts, answers] log π_ref(y|x), float64.
        rewards: [prompts, answers] the true rewards.
    """

    def __init__(self, world: MicroWorld, ref_model: Any) -> None:
        self.world = world
        self.logps = world.logps(ref_model)
        self.rewards = world.rewards
        self._levels = reward_levels(self.logps, self.rewards)
        self._staircase = _staircase(self.logps)

    def evaluate(self, model: Any, beta: float) -> Evaluation:
        """Exact standing of `model` for KL strength `beta`; see `objectives.optimum.Evaluation`."""
        return self.evaluate_logps(self.world.logps(model), beta)

    def evaluate_logps(self, logps: Tensor, beta: float) -> Evaluation:
        """`evaluate` from given log π(y|x), [prompts, answers]."""
        return evaluate(logps, self.logps, self.rewards, beta, self._levels)

    def frontier(self, betas: Tensor) -> Frontier:
        """The exact reward–KL frontier at `betas` ([points], ascending)."""
        return frontier(*self._levels, betas)

    def optimal_logps(self, beta: float) -> Tensor:
        """log π*(y|x), [prompts, answers]."""
        return optimal_logps(self.logps, self.rewards, beta)

    def sample(self, prompts: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an answer y ∼ π_ref(·|x) for each prompt index; returns answer indices, same shape as `prompts`."""
        uniform = torch.rand(prompts.shape, dtype=torch.float64, generator=generator)
        answers = self.logps.shape[-1]
        return (torch.searchsorted(self._staircase, prompts + uniform) - prompts * answers).clamp_(
            0, answers - 1
        )

    @staticmethod
    def invert(logps: Tensor, uniform: Tensor) -> Tensor:
        """The answer at height `uniform` of each prompt's cumulative distribution; [prompts] in and out.

        With the same `uniform`, answers of two policies differ only as far as the policies do.
        """
        return (
            torch.searchsorted(_staircase(logps), torch.arange(len(logps)) + uniform)
            - torch.arange(len(logps)) * logps.shape[-1]
        )

    def sample_pairs(self, size: int, label_noise: float, generator: torch.Generator) -> PairBatch:
        """Draw preference pairs: two different answers of π_ref to a random prompt, labelled by Bradley–Terry.

        Args:
            size: number of pairs ≥ 1.
            label_noise: probability in [0, 0.5] that a label is swapped.
            generator: source of randomness, on the CPU.
        """
        if size < 1:
            raise ValueError(f"pairs must be ≥ 1, got {size}")
        prompts = torch.randint(len(self.world.prompts), (size,), generator=generator)
        first, second = self.sample(prompts, generator), self.sample(prompts, generator)
        while (same := first == second).any():
            second[same] = self.sample(prompts[same], generator)
        rewards = self.world.rewards
        wins, flipped = label_pairs(rewards[prompts, first], rewards[prompts, second], label_noise, generator)
        return PairBatch(prompts, torch.where(wins, first, second), torch.where(wins, second, first), flipped)

    def texts(self, pairs: PairBatch) -> list[PreferencePair]:
        """The pairs as text, with the true reward difference and whether the noise swapped the label."""
        world = self.world
        margins = world.rewards[pairs.prompts, pairs.chosen] - world.rewards[pairs.prompts, pairs.rejected]
        columns: Sequence[list[Any]] = [
            c.tolist() for c in (pairs.prompts, pairs.chosen, pairs.rejected, pairs.flipped, margins)
        ]
        return [
            PreferencePair(world.prompts[p], world.answers[w], world.answers[loser], flipped, margin)
            for p, w, loser, flipped, margin in zip(*columns, strict=True)
        ]

    def pair_texts(self, size: int, label_noise: float, generator: torch.Generator) -> list[PreferencePair]:
        """Draw preference pairs as texts; see `sample_pairs`."""
        return self.texts(self.sample_pairs(size, label_noise, generator))


def _staircase(logps: Tensor) -> Tensor:
    """[prompts·answers] cumulative probabilities; row i rises from i to i + 1, so one search serves all prompts."""
    cumulative = logps.exp().cumsum(-1)
    rows = torch.arange(len(cumulative), dtype=torch.float64).unsqueeze(-1)
    return (cumulative / cumulative[:, -1:] + rows).flatten()
