"""Judges called every few updates: exact in the micro world, sample answers elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from rlhflab.algorithms.record import Backdrop, Sample
from rlhflab.models.sampling import sample_answers
from rlhflab.worlds.micro import ReferencePoint

BACKDROP_BETAS = torch.logspace(-1.7, 2, 75)  # 0.02 to 100


def frontier_backdrop(reference: ReferencePoint) -> Backdrop:
    """The exact frontier as boards and runs keep it."""
    curve = reference.frontier(BACKDROP_BETAS)
    return Backdrop(
        beta=tuple(curve.beta.tolist()),
        kl=tuple(curve.kl.tolist()),
        reward=tuple(curve.reward.tolist()),
        objective=tuple(curve.objective.tolist()),
        ref_reward=reference.evaluate_logps(reference.logps, 1.0).ref_reward,
    )


class ExactEvaluator:
    """Exact reward, KL, regret and efficiency in the micro world, and one sample answer a prompt.

    Samples before and after use the same random number, so a sample changes only where the policy does.

    Args:
        reference: the world seen from π_ref.
        seed: of the samples.
    """

    def __init__(self, reference: ReferencePoint, seed: int) -> None:
        self.reference = reference
        self.backdrop: Backdrop | None = frontier_backdrop(reference)
        prompts = len(reference.world.prompts)
        generator = torch.Generator().manual_seed(seed)
        self._heights = torch.rand(prompts, dtype=torch.float64, generator=generator)
        self._before = reference.invert(reference.logps, self._heights)

    def __call__(self, policy: Any, beta: float) -> tuple[Mapping[str, float], tuple[Sample, ...]]:
        """Return the exact block and the samples."""
        world = self.reference.world
        logps = world.logps(policy)
        after = self.reference.invert(logps, self._heights)
        answers, rewards = world.answers, world.rewards
        drawn = zip(world.prompts, self._before.tolist(), after.tolist(), strict=True)
        samples = tuple(
            Sample(prompt, answers[b], answers[a], float(rewards[row, b]), float(rewards[row, a]))
            for row, (prompt, b, a) in enumerate(drawn)
        )
        return self.reference.evaluate_logps(logps, beta)._asdict(), samples


class SampleEvaluator:
    """Sample answers of any model to a few prompts; no exact values.

    Args:
        ref_policy: π_ref, for the answers before.
        prompts: texts.
        encode_prompt, decode: text → token ids and back.
        stop_ids: token ids that end an answer.
        max_tokens: longest answer.
        seed: of the samples.
    """

    backdrop: Backdrop | None = None

    def __init__(
        self,
        ref_policy: Any,
        prompts: Sequence[str],
        encode_prompt: Callable[[str], list[int]],
        decode: Callable[[list[int]], str],
        stop_ids: Sequence[int],
        max_tokens: int,
        seed: int,
    ) -> None:
        self._prompts, self._decode, self._stop_ids = prompts, decode, stop_ids
        self._ids = [torch.tensor([encode_prompt(prompt)]) for prompt in prompts]
        self._max_tokens, self._seed = max_tokens, seed
        self._before = self._sample(ref_policy)

    def _sample(self, model: Any) -> list[str]:
        generator = torch.Generator().manual_seed(self._seed)
        texts = []
        for ids in self._ids:
            drawn = sample_answers(model, ids, self._max_tokens, self._stop_ids, 0, generator)
            texts.append(self._decode(drawn.answers[0][drawn.mask[0]].tolist()))
        return texts

    def __call__(self, policy: Any, beta: float) -> tuple[None, tuple[Sample, ...]]:
        """Return no exact block, and the samples."""
        rows = zip(self._prompts, self._before, self._sample(policy), strict=True)
        return None, tuple(Sample(prompt, before, after) for prompt, before, after in rows)
