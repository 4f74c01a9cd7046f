"""Where policy optimisation takes its scores from: the true reward, a learned model, or any function of texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhflab.models.logps import AnswerBatch
from rlhflab.models.reward import answer_scores
from rlhflab.worlds.world import World


class Answers(NamedTuple):
    """Sampled answers, waiting for their scores.

    Attributes:
        prompts: [batch] index of the prompt.
        tokens: [batch, max_tokens] token ids.
        mask: [batch, max_tokens] bool, True on the answer's tokens.
        batch: the same, prompt and answer joined.
    """

    prompts: Tensor
    tokens: Tensor
    mask: Tensor
    batch: AnswerBatch

    def token_lists(self) -> list[list[int]]:
        """Each answer's token ids."""
        return [row[keep].tolist() for row, keep in zip(self.tokens.cpu(), self.mask.cpu(), strict=True)]


RewardFunction = Callable[[Answers], Tensor]
"""Answers → scores [batch], higher is better."""


class TrueReward:
    """r*(x, y): what the world knows and a real problem never shows."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, answers: Answers) -> Tensor:
        return self.world.answer_rewards(answers.prompts, answers.tokens, answers.mask)


class ModelReward:
    """A learned reward r_φ, centred for every prompt on the reference: a score of 0 is π_ref's mean answer.

    Preferences fix r_φ up to a shift for each prompt. The shift changes no optimum, but without it scores of different
    prompts could not be compared.

    Args:
        reward_model: from `models.reward`.
        offsets: [prompts] E_{y∼π_ref}[r_φ(x, y)].
    """

    def __init__(self, reward_model: Any, offsets: Tensor) -> None:
        self.reward_model, self.offsets = reward_model, offsets.cpu()

    def __call__(self, answers: Answers) -> Tensor:
        return answer_scores(self.reward_model, answers.batch) - self.offsets[answers.prompts].to(
            answers.batch.input_ids.device
        )


class TextReward:
    """Any Python function of texts as a reward.

    Args:
        function: (prompts, answers), two lists of texts → one finite number each.
        prompts: text of every prompt, by index.
        decode: an answer's token ids → text.
    """

    def __init__(
        self,
        function: Callable[[list[str], list[str]], Sequence[float]],
        prompts: Sequence[str],
        decode: Callable[[list[int]], str],
    ) -> None:
        self.function, self.prompts, self.decode = function, prompts, decode

    def __call__(self, answers: Answers) -> Tensor:
        prompts = [self.prompts[index] for index in answers.prompts.tolist()]
        texts = [self.decode(tokens) for tokens in answers.token_lists()]
        return score_texts(self.function, prompts, texts)


def score_texts(
    function: Callable[[list[str], list[str]], Any], prompts: Sequence[str], answers: Sequence[str]
) -> Tensor:
    """Call a reward function of texts and check what it returns.

    Args:
        function: (prompts, answers) → one finite number each, as a list, array or tensor.
        prompts, answers: texts, at least one, equally many.

    Returns:
        [answers] float64.

    Raises:
        ValueError: no answers, another number of scores than answers, or a score that is NaN or infinite, with its
            answer.
    """
    if not answers or len(prompts) != len(answers):
        raise ValueError(
            f"need as many prompts as answers and at least one, got {len(prompts)} and {len(answers)}"
        )
    found = function(list(prompts), list(answers))
    try:
        scores = torch.as_tensor(found, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"a reward must be a list of {len(answers)} numbers, got {found!r:.80}") from None
    if scores.shape != (len(answers),):
        raise ValueError(
            f"a reward must be one number an answer, ({len(answers)},), got {tuple(scores.shape)}"
        )
    for prompt, answer, score in zip(prompts, answers, scores.tolist(), strict=True):
        if not math.isfinite(score):
            raise ValueError(f"the reward of {answer!r} to {prompt!r} is {score}; rewards must be finite")
    return scores
