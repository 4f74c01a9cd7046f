"""Pairs whose prompt goes through the model once: prompt, first answer and second answer in one row.

    x x x x | a a a | b b        b stands at the positions after x and does not see a

A dialogue is often longer than its answers, so this saves up to half of the work. It needs a custom attention mask and
explicit positions, which not every architecture supports: see `can_share`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlhflab.models.logps import AnswerBatch, Reads


class Ends(NamedTuple):
    """A model's input, and where the answers in it end.

    Attributes:
        inputs: arguments of the model: `input_ids` [rows, time] and others it needs.
        rows, places: [answers] row and position of each answer's last token.
    """

    inputs: dict[str, Tensor]
    rows: Tensor
    places: Tensor

    def to(self, device: torch.device | str) -> Ends:
        """Move everything."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return Ends(inputs, self.rows.to(device), self.places.to(device))


def shared_reads(batch: AnswerBatch) -> Reads:
    """Two answers to each prompt in one row, and where their tokens are predicted.

    Args:
        batch: [2·pairs, time] all first answers, then all second ones, to the same prompts; on the CPU.

    Returns:
        inputs are [pairs, time'], with `attention_mask` [pairs, 1, time', time'] and `position_ids`.
    """
    inputs, begin, shift = _share(batch)
    answers, ends = batch.mask.nonzero(as_tuple=True)
    at_stem = ends == begin[answers]  # an answer's first token is predicted by the prompt's last
    places = ends - 1 + torch.where(at_stem, 0, shift[answers])
    return Reads(inputs, answers % (len(begin) // 2), places, batch.input_ids[answers, ends], batch.mask)


def shared_ends(batch: AnswerBatch) -> Ends:
    """The same for a reward model, which reads at each answer's last token."""
    inputs, begin, shift = _share(batch)
    rows = torch.arange(len(begin)) % (len(begin) // 2)
    return Ends(inputs, rows, begin + batch.mask.sum(1) - 1 + shift)


def _share(batch: AnswerBatch) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The model's inputs; [2·pairs] the start of each answer in its own dialogue, and its shift in the row."""
    pairs = len(batch.mask) // 2
    begin, length = batch.mask.int().argmax(1), batch.mask.sum(1)
    first, second = length[:pairs, None], length[pairs:, None]
    stem = begin[:pairs, None]
    place = torch.arange(int((stem + first + second).max()))
    part = (place >= stem).long() + (place >= stem + first)  # 0 prompt, 1 first answer, 2 second answer
    own = torch.where(part == 2, place - first, place).where(place < stem + first + second, 0)
    source = torch.arange(pairs)[:, None] + pairs * (part == 2)
    sees = (part[:, None, :] == 0) | (part[:, None, :] == part[:, :, None])
    inputs = {
        "input_ids": batch.input_ids[source, own],
        "attention_mask": (sees & (place[:, None] >= place))[:, None],
        "position_ids": own,
    }
    return inputs, begin, torch.cat([torch.zeros(pairs, dtype=torch.long), length[:pairs]])
