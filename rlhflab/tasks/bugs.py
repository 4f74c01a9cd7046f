"""Three classic bugs of RLHF to switch on: each spoils the rollouts on their way to a correct algorithm.

    run = recipes.PPO().build()
    run.task = WrongKLSign(run.task)

Nothing crashes, and every loss looks normal; the effect shows only where the truth is known.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlhflab.models.logps import token_logps
from rlhflab.tasks.language import LanguageTask
from rlhflab.tasks.rollout import Collected, Rollout


class Spoilt:
    """A language task whose KL term is computed wrongly; everything else is unchanged.

    Args:
        task: of the run to spoil, with a frozen reference.
    """

    def __init__(self, task: LanguageTask) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    @torch.no_grad()
    def collect(self, knobs: Mapping[str, float]) -> Collected:
        """The task's rollout with −β·log(π_θ/π_ref) of every token replaced by the bug's version."""
        collected = self._task.collect(knobs)
        rollout = collected.rollout
        ref_logps, _ = token_logps(self._task.ref_policy, rollout.inputs, self._task.prompt_length)
        right = -knobs["beta"] * (rollout.logps - ref_logps) * rollout.mask
        rewards = rollout.rewards - right + self.kl_term(right, rollout)
        return collected._replace(rollout=dataclasses.replace(rollout, rewards=rewards))

    def kl_term(self, right: Tensor, rollout: Rollout) -> Tensor:
        """The bug's version of [batch, time] −β·log(π_θ/π_ref)."""
        raise NotImplementedError


class WrongKLSign(Spoilt):
    """+β·(log π_θ − log π_ref): leaving the reference is rewarded instead of penalised."""

    def kl_term(self, right: Tensor, rollout: Rollout) -> Tensor:
        """The negative."""
        return -right


class MeanForSum(Spoilt):
    """log π(y|x) as the mean over the answer's tokens: an answer of T tokens pays only β/T per nat."""

    def kl_term(self, right: Tensor, rollout: Rollout) -> Tensor:
        """The right term divided by the answer's length."""
        return right / rollout.mask.sum(1, keepdim=True)


class CutSampling(Spoilt):
    """Answers drawn from a restricted distribution, log-probabilities taken from the full softmax.

    Here an answer may not stop before it has some words, as with `min_length`; `top_k` and `top_p` are similar. The
    mean of log(π_θ/π_ref) is then not an estimate of a KL and may be negative; what is never sampled costs nothing.

    Args:
        task: as for `Spoilt`.
        words: the minimum number of words.
    """

    def __init__(self, task: LanguageTask, words: int = 2) -> None:
        super().__init__(task)
        self._cut = copy.copy(task)  # the same weights, a different sampler
        self._cut.policy = _NoEarlyStop(task.policy, task.stop_ids, task.prompt_length + words)

    @torch.no_grad()
    def collect(self, knobs: Mapping[str, float]) -> Collected:
        """Draw from the restricted distribution and compute the KL term with the full one."""
        collected = self._cut.collect(knobs)
        rollout = collected.rollout
        logps, _ = token_logps(self._task.policy, rollout.inputs, self._task.prompt_length)
        change = logps - rollout.logps
        rewards = rollout.rewards - knobs["beta"] * change
        scalars = dict(collected.scalars)
        scalars["objective/kl"] += float(change.sum(1).mean())
        return Collected(dataclasses.replace(rollout, logps=logps, rewards=rewards), scalars)


class _NoEarlyStop:
    """A model that cannot stop while prompt and answer have fewer than `least` tokens."""

    def __init__(self, model: Any, stop_ids: tuple[int, ...], least: int) -> None:
        self._model, self._stops, self._least = model, list(stop_ids), least

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, **inputs: Any) -> Any:
        output = self._model(**inputs)
        if output.past_key_values.get_seq_length() < self._least:
            output.logits = output.logits.clone()
            output.logits[..., self._stops] = -torch.inf
        return output
