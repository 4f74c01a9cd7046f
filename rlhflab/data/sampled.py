"""A world too large to enumerate, seen through samples: answers drawn from a policy, and pairs from π_ref."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhflab.models.logps import AnswerBatch, append_answers, frozen_sequence_logps
from rlhflab.models.sampling import sample_answers
from rlhflab.objectives.preference import label_pairs
from rlhflab.worlds.preferences import PreferencePair
from rlhflab.worlds.world import World


class Drawn(NamedTuple):
    """Answers y ∼ π(·|x), on the CPU.

    Attributes:
        prompts: [answers] index into the world's prompts.
        tokens: [answers, max_tokens] token ids.
        mask: [answers, max_tokens] bool, True on the answer's tokens, the stop included.
    """

    prompts: Tensor
    tokens: Tensor
    mask: Tensor

    def rows(self, index: Tensor) -> Drawn:
        """Select rows."""
        return Drawn(self.prompts[index], self.tokens[index], self.mask[index])


def draw_answers(
    world: World, policy: Any, prompts: Tensor, generator: torch.Generator, chunk: int = 4096
) -> Drawn:
    """Draw one answer of `policy` to each prompt index ([answers], on the CPU), `chunk` answers at a time."""
    pad = int(world.tokenizer.pad_token_id)
    parts = [
        sample_answers(policy, world.prompt_ids[rows], world.max_tokens, world.stop_ids, pad, generator)
        for rows in prompts.split(chunk)
    ]
    tokens = torch.cat([part.answers for part in parts]).cpu()
    return Drawn(prompts, tokens, torch.cat([part.mask for part in parts]).cpu())


def drawn_logps(world: World, policy: Any, drawn: Drawn) -> Tensor:
    """log π(y|x) of drawn answers under any policy: [answers] float64 on the CPU, nats per answer."""
    return frozen_sequence_logps(policy, joined(world, drawn)).double()


def joined(world: World, drawn: Drawn) -> AnswerBatch:
    """Prompts and drawn answers as one batch, on the answers' device."""
    return append_answers(world.prompt_ids[drawn.prompts.cpu()], drawn.tokens, drawn.mask)


class DrawnPairs(NamedTuple):
    """Preference pairs of drawn answers.

    Attributes:
        chosen, rejected: answers to the same prompts, row by row.
        flipped: [pairs] bool, True where the noise swapped the label.
        margins: [pairs] float64, r*(x, y_w) − r*(x, y_l).
    """

    chosen: Drawn
    rejected: Drawn
    flipped: Tensor
    margins: Tensor


class SampledReference:
    """A world seen from one reference policy through samples; the counterpart of `ReferencePoint` in the micro world.

    Args:
        world: any world; its true reward labels the pairs.
        ref_policy: π_ref, any causal LM over the world's tokens.
    """

    def __init__(self, world: World, ref_policy: Any) -> None:
        self.world, self.ref_policy = world, ref_policy

    def sample_pairs(self, size: int, label_noise: float, generator: torch.Generator) -> DrawnPairs:
        """Draw preference pairs: two different answers of π_ref to a random prompt, labelled by Bradley–Terry.

        Args:
            size: number of pairs ≥ 1.
            label_noise: probability in [0, 0.5] that a label is swapped.
            generator: source of all randomness, on the CPU.
        """
        if size < 1:
            raise ValueError(f"pairs must be ≥ 1, got {size}")
        prompts = torch.randint(len(self.world.prompts), (size,), generator=generator)
        first, second = (
            draw_answers(self.world, self.ref_policy, prompts, generator) for _ in range(2)
        )  # fmt: skip
        while (same := (first.tokens == second.tokens).all(1)).any():
            again = draw_answers(self.world, self.ref_policy, prompts[same], generator)
            second.tokens[same], second.mask[same] = again.tokens, again.mask
        both = [self.world.answer_rewards(*answers) for answers in (first, second)]
        wins, flipped = label_pairs(both[0], both[1], label_noise, generator)
        chosen, rejected = _choose(wins, first, second), _choose(wins, second, first)
        margins = torch.where(wins, both[0] - both[1], both[1] - both[0])
        return DrawnPairs(chosen, rejected, flipped, margins)

    def texts(self, pairs: DrawnPairs) -> list[PreferencePair]:
        """The pairs as text, with the true reward difference and whether the noise swapped the label."""
        prompts = [self.world.prompts[prompt] for prompt in pairs.chosen.prompts.tolist()]
        chosen, rejected = (answer_texts(self.world, drawn) for drawn in (pairs.chosen, pairs.rejected))
        columns = zip(prompts, chosen, rejected, pairs.flipped.tolist(), pairs.margins.tolist(), strict=True)
        return [PreferencePair(*column) for column in columns]

    def pair_texts(self, size: int, label_noise: float, generator: torch.Generator) -> list[PreferencePair]:
        """Draw preference pairs as texts; see `sample_pairs`."""
        return self.texts(self.sample_pairs(size, label_noise, generator))


def speaker(world: World, policy: Any) -> Callable[[int, int], tuple[str, float, float]]:
    """A function that answers with `policy`: (prompt's position, seed) → text, probability π(y|x), true reward.

    With the same seed, two policies get the same random number for every token.
    """

    def speak(prompt: int, seed: int) -> tuple[str, float, float]:
        generator = torch.Generator().manual_seed(seed)
        drawn = draw_answers(world, policy, torch.tensor([prompt]), generator)
        probability = float(drawn_logps(world, policy, drawn).exp())
        return answer_texts(world, drawn)[0], probability, float(world.answer_rewards(*drawn))

    return speak


def answer_texts(world: World, drawn: Drawn) -> list[str]:
    """Texts of drawn answers."""
    rows = zip(drawn.tokens.tolist(), drawn.mask.sum(1).tolist(), strict=True)
    return [world.decode_answer(row[:length]) for row, length in rows]


def _choose(first: Tensor, yes: Drawn, no: Drawn) -> Drawn:
    rows = first.unsqueeze(1)
    return Drawn(yes.prompts, torch.where(rows, yes.tokens, no.tokens), torch.where(rows, yes.mask, no.mask))
