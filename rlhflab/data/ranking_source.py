"""Sources of rankings for reward modelling: a pool of ranked answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rlhflab.data.encoding import PairTokens
from rlhflab.data.sampled import Drawn, answer_texts, draw_answers, joined
from rlhflab.models.logps import AnswerBatch, join_answers
from rlhflab.models.shared import Ends, shared_ends
from rlhflab.models.trie import can_share
from rlhflab.seeds import seed_of_part
from rlhflab.worlds.preferences import PreferencePair
from rlhflab.worlds.world import World

EVERY = slice(None)


class RankedRows(NamedTuple):
    """One batch of rankings, ready for the loss.

    Attributes:
        answers: [K·rows, time]: all first places, then all second places, …; `rows` is the batch, or a part of it.
        flipped: [batch] bool, True where label noise reversed the ranking.
        ids: [batch] twice the position in the pool, plus one if the ranking was reversed, so that an id has one text.
        texts: each ranking's first and last place as a pair.
        ends: the same answers, laid out differently for the reward model, such as with shared prompts.
    """

    answers: AnswerBatch
    flipped: Tensor
    ids: list[int]
    texts: Sequence[PreferencePair]
    ends: Ends | None = None


class RankingSource(Protocol):
    """Gives rankings by their ids with the current label noise, and the answers of some or all of them."""

    ranked: int
    size: int

    def take(self, ids: Tensor, label_noise: float, rows: slice = EVERY) -> RankedRows: ...


class WorldRankings:
    """K answers of π_ref to a prompt, ranked by a Plackett–Luce annotator of the true reward.

    Such an annotator sorts by r*(x, y) plus standard Gumbel noise (Yellott, 1977); with K = 2 that is Bradley–Terry.

    Args:
        world: any world; gives prompts and true rewards.
        ref_policy: π_ref, whose answers are ranked.
        size: rankings in the pool, ≥ 1.
        ranked: K answers per ranking, 2–16, all different.
        seed: of the drawing. A larger pool begins with the rankings of a smaller one.
        annotators: the world whose reward ranks, if annotators do not see everything that `world` does.
    """

    def __init__(
        self,
        world: World,
        ref_policy: Any,
        size: int,
        ranked: int,
        seed: int,
        annotators: World | None = None,
    ) -> None:
        if size < 1:
            raise ValueError(f"pairs must be ≥ 1, got {size}")
        if not 2 <= ranked <= 16:
            raise ValueError(f"ranked must be from 2 to 16, got {ranked}")
        self.size, self.ranked, self._world, self._device = size, ranked, world, ref_policy.device
        draw = _Drawing(world, ref_policy, ranked, annotators or world)
        blocks = [
            draw(BLOCK, torch.Generator().manual_seed(seed_of_part(seed, block)))
            for block in range(-(-size // BLOCK))
        ]
        columns = (torch.cat(column)[:size] for column in zip(*blocks, strict=True))
        self._prompts, self._tokens, self._mask, self._rewards, self._heights = columns

    def take(self, ids: Tensor, label_noise: float, rows: slice = EVERY) -> RankedRows:
        """Rankings by id; each is reversed with probability `label_noise`, always the same ones."""
        world, flipped, prompts = self._world, self._heights[ids] < label_noise, self._prompts[ids]
        places = torch.arange(self.ranked)
        order = torch.where(flipped.unsqueeze(1), places.flip(0), places)  # [batch, K]
        index = order.unsqueeze(2).expand(-1, -1, world.max_tokens)
        tokens, mask = (x[ids].gather(1, index).transpose(0, 1) for x in (self._tokens, self._mask))
        parts = (x[:, rows].flatten(0, 1) for x in (tokens, mask))
        answers = joined(world, Drawn(prompts[rows].repeat(self.ranked), *parts))
        rewards = self._rewards[ids].gather(1, order)
        margins = (rewards[:, 0] - rewards[:, -1]).tolist()
        first, last = (answer_texts(world, Drawn(prompts, tokens[k], mask[k])) for k in (0, -1))
        columns = zip(prompts.tolist(), first, last, flipped.tolist(), margins, strict=True)
        texts = [
            PreferencePair(world.prompts[p], best, worst, flip, margin)
            for p, best, worst, flip, margin in columns
        ]
        return RankedRows(answers.to(self._device), flipped, (2 * ids + flipped).tolist(), texts)


BLOCK = 512  # rankings drawn together


class _Drawing:
    """Draws and ranks: prompts [n], tokens and mask [n, K, max_tokens] best first, rewards [n, K], heights [n]."""

    def __init__(self, world: World, ref_policy: Any, ranked: int, annotators: World) -> None:
        self._world, self._ref_policy, self._ranked, self._annotators = world, ref_policy, ranked, annotators

    def __call__(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        prompts = torch.randint(len(self._world.prompts), (size,), generator=generator)
        every = prompts.unsqueeze(1).expand(-1, self._ranked)
        drawn = draw_answers(self._world, self._ref_policy, every.flatten(), generator)
        tokens, mask = (x.view(size, self._ranked, -1) for x in (drawn.tokens, drawn.mask))
        while (repeated := _repeats(tokens)).any():
            again = draw_answers(self._world, self._ref_policy, every[repeated], generator)
            tokens[repeated], mask[repeated] = again.tokens, again.mask
        uniform = torch.rand(size, self._ranked, dtype=torch.float64, generator=generator)
        gumbel = -(-uniform.log()).log()
        liked = (self._rewards(self._annotators, prompts, tokens, mask) + gumbel).argsort(1, descending=True)
        index = liked.unsqueeze(2).expand_as(tokens)
        tokens, mask = tokens.gather(1, index), mask.gather(1, index)
        rewards = self._rewards(self._world, prompts, tokens, mask)
        return prompts, tokens, mask, rewards, torch.rand(size, generator=generator)

    def _rewards(self, world: World, prompts: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        flat = world.answer_rewards(
            prompts.repeat_interleave(self._ranked), tokens.flatten(0, 1), mask.flatten(0, 1)
        )
        return flat.view(-1, self._ranked)


class TextRankings:
    """Labelled pairs of texts; K = 2.

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

    def take(self, ids: Tensor, label_noise: float, rows: slice = EVERY) -> RankedRows:
        """Pairs by id; each is swapped with probability `label_noise`, the same ones every time."""
        flipped = self._heights[ids] < label_noise
        first, second = torch.where(flipped, ids + self.size, ids), torch.where(flipped, ids, ids + self.size)
        answers = self._answers.rows(torch.cat([first[rows], second[rows]])).to(self._device)
        return RankedRows(
            answers, flipped, (2 * ids + flipped).tolist(), _as_labelled(self.pairs, ids, flipped)
        )


class LongRankings:
    """The same for real texts, long and of many lengths: a batch is as long as its longest row.

    If the model supports it, the two answers share their prompt.

    Args:
        pairs: the data set, at least one.
        tokens: the same as token ids.
        model: the reward model; batches go to its device.
        seed: of the label noise.
    """

    ranked = 2

    def __init__(self, pairs: Sequence[PreferencePair], tokens: PairTokens, model: Any, seed: int) -> None:
        self.pairs, self.size, self._tokens = pairs, len(pairs), tokens
        self._device, self._share = model.device, can_share(model)
        self._heights = torch.rand(len(pairs), generator=torch.Generator().manual_seed(seed))

    def take(self, ids: Tensor, label_noise: float, rows: slice = EVERY) -> RankedRows:
        """Pairs by id; each is swapped with probability `label_noise`, the same ones every time."""
        flipped = self._heights[ids] < label_noise
        taken = self._tokens.take(ids[rows].tolist())
        sides = zip(taken.chosen, taken.rejected, flipped[rows].tolist(), strict=True)
        first, second = zip(*((b, a) if flip else (a, b) for a, b, flip in sides), strict=True)
        answers = join_answers(taken.prompts * 2, [*first, *second])
        ends = shared_ends(answers).to(self._device) if self._share else None
        texts = _as_labelled(self.pairs, ids, flipped)
        return RankedRows(answers.to(self._device), flipped, (2 * ids + flipped).tolist(), texts, ends)


def _as_labelled(pairs: Sequence[PreferencePair], ids: Tensor, flipped: Tensor) -> list[PreferencePair]:
    taken = zip((pairs[index] for index in ids.tolist()), flipped.tolist(), strict=True)
    return [
        PreferencePair(pair.prompt, pair.rejected, pair.chosen, True) if flip else pair
        for pair, flip in taken
    ]


def _repeats(tokens: Tensor) -> Tensor:
    """True where the same answer occurs earlier in its row; [rows, K, time] in, [rows, K] out."""
    same = (tokens.unsqueeze(2) == tokens.unsqueeze(1)).all(-1)
    return (same & torch.ones(same.shape[1:], dtype=torch.bool).tril(-1)).any(2)
