"""Where policy optimisation takes its scores from: the true reward, a learned model, or any function of texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhflab.boundary import Fault, given, one_line
from rlhflab.models.logps import AnswerBatch
from rlhflab.models.precision import reading_dtype
from rlhflab.models.quiet import quiet_loading
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
        offsets: [prompts] E_{y∼π_ref}[r_φ(x, y)]; None leaves the scores as the model gives them, where prompts are
            too many for so many samples.
    """

    def __init__(self, reward_model: Any, offsets: Tensor | None = None) -> None:
        self.reward_model, self.offsets = reward_model, None if offsets is None else offsets.cpu()

    def __call__(self, answers: Answers) -> Tensor:
        scores = answer_scores(self.reward_model, answers.batch)
        return scores if self.offsets is None else scores - self.offsets[answers.prompts].to(scores.device)


class TextReward:
    """Any Python function of texts as a reward.

    Args:
        function: (prompts, answers), two lists of texts → one finite number each.
        prompts: text of every prompt, by index.
        decode: an answer's token ids → text.
    """

    def __init__(
        self,
        function: Callable[[list[str], list[str]], Sequence[float] | Tensor],
        prompts: Sequence[str],
        decode: Callable[[list[int]], str],
    ) -> None:
        self.function, self.prompts, self.decode = function, prompts, decode

    def __call__(self, answers: Answers) -> Tensor:
        prompts = [self.prompts[index] for index in answers.prompts.tolist()]
        texts = [self.decode(tokens) for tokens in answers.token_lists()]
        return score_texts(self.function, prompts, texts)


class ClassifierReward(TextReward):
    """A text classifier as a reward: its log-odds of the wanted label for prompt and answer together.

    The wanted label is the one whose name begins with "pos", else the last one; against all others together.

    Args:
        name: a folder or a hub id of a sequence classifier with at least two labels, such as of sentiment.
        prompts, decode: see `TextReward`.
        device: where it runs, in the precision that `reading_dtype` says.

    Raises:
        ValueError: nothing to load there, or no classifier, in one line.
    """

    def __init__(
        self, name: str, prompts: Sequence[str], decode: Callable[[list[int]], str], device: torch.device
    ) -> None:
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        expected = "expected a reward-model run, a text classifier's folder or hub id, or FILE.py:FUNCTION"
        with one_line(f"reward {name!r}", expected), quiet_loading():
            labels = AutoConfig.from_pretrained(name)
            if "ForSequenceClassification" not in str(labels.architectures) or labels.num_labels < 2:
                raise ValueError("it is no classifier with two labels")
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            width = getattr(labels.get_text_config(), "hidden_size", 0)
            self.model = AutoModelForSequenceClassification.from_pretrained(
                name, use_safetensors=True, dtype=reading_dtype(labels.dtype, device, width)
            )
        self.model = self.model.to(device).eval().requires_grad_(False)
        names = {place: str(label).lower() for place, label in labels.id2label.items()}
        self.wanted = next(
            (place for place, label in names.items() if label.startswith("pos")), labels.num_labels - 1
        )
        super().__init__(self._log_odds, prompts, decode)

    @torch.no_grad()
    def _log_odds(self, prompts: list[str], answers: list[str]) -> Tensor:
        texts = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        inputs = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(
            self.model.device
        )
        logits = self.model(**inputs).logits.float()
        others = torch.arange(logits.shape[1], device=logits.device) != self.wanted
        return logits[:, self.wanted] - logits[:, others].logsumexp(1)


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
        ValueError: no answers.
        Fault: the function raises, returns another number of scores than answers, or a score that is NaN or infinite,
            with its answer; in one line with the function's name and place.
    """
    if not answers or len(prompts) != len(answers):
        raise ValueError(
            f"need as many prompts as answers and at least one, got {len(prompts)} and {len(answers)}"
        )
    name, ours = _named(function), (getattr(function, "__module__", None) or "").startswith("rlhflab.")
    with nullcontext() if ours else given(name):
        found = function(list(prompts), list(answers))
    with given(name, lambda _: f"a reward must be a list of {len(answers)} numbers, got {_shown(found)}"):
        scores = torch.as_tensor(found, dtype=torch.float64).detach().cpu()
    if scores.shape != (len(answers),):
        raise Fault(
            f"{name}: a reward must be one number an answer, ({len(answers)},), got {tuple(scores.shape)}"
        )
    for prompt, answer, score in zip(prompts, answers, scores.tolist(), strict=True):
        if not math.isfinite(score):
            raise Fault(
                f"{name}: the reward of {_shown(answer)} to {_shown(prompt)} is {score}; rewards must be finite"
            )
    return scores


def _named(function: Callable[..., Any]) -> str:
    """A reward function for a message, with the place of its definition where it has one."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(function, "__code__", None)
    place = "" if code is None else f" ({Path(code.co_filename).name}, line {code.co_firstlineno})"
    return f"reward {name}{place}"


def _shown(value: Any) -> str:
    """A value in at most 80 signs; what has no such form, or fails to give it, by its class."""
    try:
        return f"{value!r:.80}"
    except Exception:  # such as a number of 5,000 digits
        return f"a {type(value).__name__}"
