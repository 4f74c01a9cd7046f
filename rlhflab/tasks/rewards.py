"""Sources of scores for policy optimisation: the true reward, a learned model, or any function of texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhflab.boundary import Fault, given, one_line
from rlhflab.models.loading import positions_of
from rlhflab.models.logps import AnswerBatch
from rlhflab.models.precision import reading_dtype
from rlhflab.models.quiet import quiet_loading
from rlhflab.models.reward import HEAD_FILE, answer_scores
from rlhflab.models.tokens import load_tokenizer
from rlhflab.models.weights import base_of, load_weights
from rlhflab.worlds.world import World


class Answers(NamedTuple):
    """Sampled answers to be scored.

    Attributes:
        prompts: [batch] index of the prompt.
        tokens: [batch, max_tokens] token ids.
        mask: [batch, max_tokens] bool, True on the answer's tokens.
        batch: the same, prompts and answers joined.
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
    """r*(x, y): known in the built-in worlds, never in a real problem."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, answers: Answers) -> Tensor:
        return self.world.answer_rewards(answers.prompts, answers.tokens, answers.mask)


class ModelReward:
    """A learned reward r_φ, centred for every prompt on the reference: π_ref's mean score is 0.

    Preferences determine r_φ up to a shift per prompt. The shift changes no optimum, but without centring, scores of
    different prompts could not be compared.

    Args:
        reward_model: from `models.reward`.
        offsets: [prompts] E_{y∼π_ref}[r_φ(x, y)]; None leaves the model's scores unchanged, when there are too many
            prompts to sample.
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

    The wanted label is the one whose name begins with "pos", else the last one; its odds are against all others
    together, or, if labels are not exclusive (multi_label_classification), against its own absence.

    Args:
        name: a folder or a hub id of a sequence classifier with at least two labels, such as a sentiment model.
        prompts, decode: see `TextReward`.
        device: where it runs, in the precision given by `reading_dtype`.

    Attributes:
        note: one line: which label is rewarded, and against which.

    Raises:
        Fault: nothing to load there, not a classifier with labels, or weights that do not fit, in one line.
    """

    def __init__(
        self, name: str, prompts: Sequence[str], decode: Callable[[list[int]], str], device: torch.device
    ) -> None:
        from transformers import AutoConfig, AutoModelForSequenceClassification

        what, remedy = f"reward {name!r}", "give a text classifier or a Python function"
        expected = "expected a reward-model run, a text classifier's folder or hub id, or FILE.py:FUNCTION"
        base = base_of(name)
        if base != name:
            raise Fault(f"{what} holds adapters, not a classifier: {remedy}")
        with one_line(what, expected), quiet_loading():
            config = AutoConfig.from_pretrained(name)
            labels = {int(place): str(label) for place, label in config.id2label.items()}
        if "ForSequenceClassification" not in str(config.architectures):
            raise Fault(f"cannot load {what} ({expected}): it is not a classifier with two labels")
        if len(labels) < 2 or config.problem_type == "regression":
            raise Fault(
                f"{what} is not a classifier with two labels: it gives {len(labels)} number(s) with no label to "
                f"reward; {remedy}; a reward model of rlhflab has a {HEAD_FILE} in its folder"
            )
        text = config.get_text_config()
        self.tokenizer = load_tokenizer(name, text.vocab_size, repr(name))
        dtype = reading_dtype(config.dtype, device, getattr(text, "hidden_size", 0))
        self.model, _ = load_weights(
            AutoModelForSequenceClassification, name, "classifier", what, expected, config=config, dtype=dtype
        )
        self.model = self.model.to(device).eval().requires_grad_(False)
        self.wanted = next(
            (place for place, label in labels.items() if label.lower().startswith("pos")), max(labels)
        )
        others = [label for place, label in labels.items() if place != self.wanted]
        self._alone = config.problem_type == "multi_label_classification"
        self.note = f"{name} rewards its label {labels[self.wanted]!r}, " + (
            "by itself"
            if self._alone
            else f"against {', '.join(map(repr, others[:5]))}{', …' * (len(others) > 5)}"
        )
        self._what, self._longest = what, min(self.tokenizer.model_max_length, positions_of(self.model))
        self._reads_last = hasattr(
            self.model, "score"
        )  # a decoder's head reads at the last token that is not padding
        if self._reads_last:
            self.tokenizer.padding_side = "right"  # otherwise positions would depend on the longest text
        self._together = True
        texts = ["a", "a b c d e"]
        both, each = self._logits(texts), torch.cat([self._logits([text]) for text in texts])
        if not bool(each.isfinite().all()):
            raise Fault(f"{what} gives NaN or infinity: its weights are damaged")
        room = 1e-4 if dtype == torch.float32 else 1e-2
        self._together = torch.allclose(both, each, rtol=room, atol=room)
        super().__init__(self._log_odds, prompts, decode)

    def _log_odds(self, prompts: list[str], answers: list[str]) -> Tensor:
        logits = self._logits([prompt + answer for prompt, answer in zip(prompts, answers, strict=True)])
        if self._alone:
            return logits[:, self.wanted]
        others = torch.arange(logits.shape[1], device=logits.device) != self.wanted
        return logits[:, self.wanted] - logits[:, others].logsumexp(1)

    @torch.no_grad()
    def _logits(self, texts: list[str]) -> Tensor:
        """[texts, labels] float32; texts are run one by one if padding would change the classifier's output."""
        batches = [texts] if self._together else [[text] for text in texts]
        with given(self._what):
            return torch.cat([self.model(**self._inputs(batch)).logits.float() for batch in batches])

    def _inputs(self, texts: list[str]) -> Any:
        """The texts as one batch; without a pad token, rows are filled with a token that ends none of them."""
        cut, pad = {"truncation": True, "max_length": self._longest}, self.tokenizer.pad_token_id
        if pad is None:
            rows = self.tokenizer(texts, **cut)
            ends = {ids[-1] for ids in rows["input_ids"] if ids}
            pad = next(token for token in range(len(ends) + 1) if token not in ends)
            longest = max(1, *map(len, rows["input_ids"]))
            inputs = {
                name: torch.tensor(
                    [row + [pad if name == "input_ids" else 0] * (longest - len(row)) for row in column]
                ).to(self.model.device)
                for name, column in rows.items()
            }
        else:
            inputs = self.tokenizer(texts, padding=True, return_tensors="pt", **cut).to(self.model.device)
        if self._reads_last:
            self.model.config.get_text_config().pad_token_id = pad
        return inputs


def score_texts(
    function: Callable[[list[str], list[str]], Any], prompts: Sequence[str], answers: Sequence[str]
) -> Tensor:
    """Call a reward function of texts and check what it returns.

    Args:
        function: (prompts, answers) → one finite number each, as a list, array or tensor.
        prompts, answers: texts, the same number of both, at least one.

    Returns:
        [answers] float64.

    Raises:
        ValueError: no answers.
        Fault: the function raises, does not return one score per answer, or returns NaN or infinity (with the answer);
            in one line with the function's name and place.
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
            f"{name}: a reward must be one number per answer, ({len(answers)},), got {tuple(scores.shape)}"
        )
    for prompt, answer, score in zip(prompts, answers, scores.tolist(), strict=True):
        if not math.isfinite(score):
            raise Fault(
                f"{name}: the reward of {_shown(answer)} to {_shown(prompt)} is {score}; rewards must be finite"
            )
    return scores


def _named(function: Callable[..., Any]) -> str:
    """A reward function's name for messages, with the place of its definition if known."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(function, "__code__", None)
    place = "" if code is None else f" ({Path(code.co_filename).name}, line {code.co_firstlineno})"
    return f"reward {name}{place}"


def _shown(value: Any) -> str:
    """A value in at most 80 characters; by its class if it has no readable form."""
    try:
        return f"{value!r:.80}"
    except Exception:  # such as a number of 5,000 digits
        return f"a {type(value).__name__}"
