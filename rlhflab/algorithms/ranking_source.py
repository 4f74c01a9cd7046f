"""Where reward modelling takes its rankings from: a pool of answers that people have ranked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rlhflab.models.logps import AnswerBatch, join_answers
from rlhflab.worlds.micro import ReferencePoint
from rlhflab.worlds.preferences import PreferencePair


class RankedRows(NamedTuple):
    """One batch of rankings, ready for the loss.

    Attributes:
        answers: [K·batch, time]: all first places, then all second places, …
        flipped: [batch] bool, True where label noise turned the ranking round.
        ids: [batch] twice the position in the pool, one more where the ranking was turned round: an id has one text.
        texts: each ranking's first and last place as a pair.
    """

    answers: AnswerBatch
    flipped: Tensor
    ids: list[int]
    texts: Sequence[PreferencePair]


class RankingSource(Protocol):
    """Gives rankings by their ids, with whatever label noise is in force."""

    ranked: int
    size: int

    def take(self, ids: Tensor, label_noise: float) -> RankedRows: ...


class WorldRankings:
    """K answers of π_ref to a prompt, ranked by a Plackett–Luce annotator of the true reward.

    Such an annotator sorts by r*(x, y) plus standard Gumbel noise (Yellott, 1977); with K = 2 that is Bradley–Terry.

    Args:
        reference: the micro world seen from π_ref.
        size: rankings in the pool, ≥ 1.
        ranked: K ≥ 2 answers a ranking, all different.
        seed: of the drawing. The first rankings of a larger pool are those of a smaller one.
    """

    def __init__(self, reference: ReferencePoint, size: int, ranked: int, seed: int) -> None:
        if size < 1:
            raise ValueError(f"pairs must be ≥ 1, got {size}")
        if not 2 <= ranked <= 16:
            raise ValueError(f"ranked must be from 2 to 16, got {ranked}")
        self.size, self.ranked, self._world = size, ranked, reference.world
        rows = [
            self._draw(reference, 512, ranked, torch.Generator().manual_seed(1_000_003 * seed + block))
            for block in range(-(-size // 512))
        ]
        self.prompts, self.order, self._heights = (
            torch.cat(column)[:size] for column in zip(*rows, strict=True)
        )
        tree = self._world.tree
        self._device = reference.logps.device
        self._mask = torch.arange(tree.depth) < tree.lengths.unsqueeze(1)

    @staticmethod
    def _draw(
        reference: ReferencePoint, size: int, ranked: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        prompts = torch.randint(len(reference.world.prompts), (size,), generator=generator)
        columns = prompts.unsqueeze(1).expand(-1, ranked)
        answers = reference.sample(columns, generator)
        while (repeated := _repeats(answers)).any():
            answers[repeated] = reference.sample(columns[repeated], generator)
        uniform = torch.rand(size, ranked, dtype=torch.float64, generator=generator)
        gumbel = -(-uniform.log()).log()
        liked = (reference.world.rewards[columns, answers] + gumbel).argsort(1, descending=True)
        return prompts, answers.gather(1, liked), torch.rand(size, generator=generator)

    def positions(self, ids: Tensor, label_noise: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return prompts [batch], answers in their labelled order [batch, K], and which rankings were turned round."""
        flipped = self._heights[ids] < label_noise
        order = self.order[ids]
        return self.prompts[ids], torch.where(flipped.unsqueeze(1), order.flip(1), order), flipped

    def take(self, ids: Tensor, label_noise: float) -> RankedRows:
        """Rankings by id; each is turned round with probability `label_noise`, the same ones every time."""
        prompts, order, flipped = self.positions(ids, label_noise)
        world = self._world
        index = order.T.flatten()
        before = world.prompt_ids[prompts].repeat(self.ranked, 1)
        mask = torch.cat([torch.zeros_like(before, dtype=torch.bool), self._mask[index]], 1)
        answers = AnswerBatch(torch.cat([before, world.tree.answers[index]], 1), mask).to(self._device)
        first, last = order[:, 0], order[:, -1]
        margins = (world.rewards[prompts, first] - world.rewards[prompts, last]).tolist()
        rows = zip(prompts.tolist(), first.tolist(), last.tolist(), flipped.tolist(), margins, strict=True)
        texts = [
            PreferencePair(world.prompts[p], world.answers[w], world.answers[loser], flip, margin)
            for p, w, loser, flip, margin in rows
        ]
        return RankedRows(answers, flipped, (2 * ids + flipped).tolist(), texts)


class TextRankings:
    """Pairs of texts that somebody labelled; K = 2.

    Args:
        pairs: the data set, at least one.
        encode_prompt, encode_answer: text → token ids (the answer's with its ending).
        device: where batches go.
        seed: of the label noise.
    """

    ranked = 2

    def __init__(
        self,
        pairs: Sequence[PreferencePair],
        encode_prompt: Callable[[str], list[int]],
        encode_answer: Callable[[str], list[int]],
        device: torch.device,
        seed: int,
    ) -> None:
        self.pairs, self.size = pairs, len(pairs)
        prompts = [encode_prompt(pair.prompt) for pair in pairs]
        answers = [encode_answer(p.chosen) for p in pairs] + [encode_answer(p.rejected) for p in pairs]
        self._answers = join_answers(prompts * 2, answers)
        self._device = device
        self._heights = torch.rand(len(pairs), generator=torch.Generator().manual_seed(seed))

    def take(self, ids: Tensor, label_noise: float) -> RankedRows:
        """Pairs by id; each is swapped with probability `label_noise`, the same ones every time."""
        flipped = self._heights[ids] < label_noise
        first, second = torch.where(flipped, ids + self.size, ids), torch.where(flipped, ids, ids + self.size)
        rows = self._answers.rows(torch.cat([first, second])).to(self._device)
        texts = [
            PreferencePair(p.prompt, p.rejected, p.chosen, True) if flip else p
            for p, flip in zip((self.pairs[i] for i in ids.tolist()), flipped.tolist(), strict=True)
        ]
        return RankedRows(rows, flipped, (2 * ids + flipped).tolist(), texts)


def _repeats(answers: Tensor) -> Tensor:
    """True where a row holds an answer that stands further left in it already; [rows, K]."""
    same = answers.unsqueeze(2) == answers.unsqueeze(1)
    return (same & torch.ones(answers.shape[1], answers.shape[1], dtype=torch.bool).tril(-1)).any(2)
