"""Log-probabilities of answers under a causal language model.

Batches are padded on the right. A causal model then never lets a real token see padding, so no attention mask is
passed (a mask costs time and changes nothing), and the LM head is applied only from the first answer token on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class AnswerBatch:
    """Prompts with answers, padded on the right.

    Attributes:
        input_ids: [batch, time] prompt, answer, padding (any token: see `mask`).
        mask: [batch, time] bool, True on the answer's tokens (EOS included).
    """

    input_ids: Tensor
    mask: Tensor

    def rows(self, index: Tensor | slice) -> AnswerBatch:
        """Select rows."""
        return AnswerBatch(self.input_ids[index], self.mask[index])

    def to(self, device: torch.device | str) -> AnswerBatch:
        """Move both tensors."""
        return AnswerBatch(self.input_ids.to(device), self.mask.to(device))


def join_answers(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> AnswerBatch:
    """Join prompts and answers (token ids, at least one each) into one right-padded batch.

    The padding repeats the last token: nothing real can see it, and so no pad token is needed (GPT-2 has none).
    """
    if len(prompts) != len(answers) or not prompts:
        raise ValueError(
            f"need as many prompts as answers and at least one, got {len(prompts)} and {len(answers)}"
        )
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    if not all(prompts) or not all(answers):
        raise ValueError("every prompt and every answer must have at least one token")
    time = max(map(len, rows))
    input_ids = torch.tensor([row + row[-1:] * (time - len(row)) for row in rows])
    position = torch.arange(time)
    begin = torch.tensor([len(prompt) for prompt in prompts]).unsqueeze(1)
    end = torch.tensor([len(row) for row in rows]).unsqueeze(1)
    return AnswerBatch(input_ids, (position >= begin) & (position < end))


def append_answers(prompt_ids: Tensor, answers: Tensor, mask: Tensor) -> AnswerBatch:
    """Join sampled answers to their prompts.

    Args:
        prompt_ids: [batch, time], prompts of one length; moved to the answers' device.
        answers: [batch, tokens] token ids.
        mask: [batch, tokens] bool, True on the answers' tokens.
    """
    before = prompt_ids.to(answers.device)
    return AnswerBatch(
        torch.cat([before, answers], 1), torch.cat([torch.zeros_like(before, dtype=torch.bool), mask], 1)
    )


def token_logps(model: Any, batch: AnswerBatch, start: int | None = None) -> tuple[Tensor, Tensor]:
    """log π(y_t | x, y_<t) of the answers' tokens.

    Args:
        model: any Hugging Face causal LM.
        batch: on the model's device; see `AnswerBatch`.
        start: a position ≥ 1 before which no answer begins; found from the mask where None (costs a sync on a GPU).

    Returns:
        logps: [batch, kept] float32, nats per token, 0 where `kept_mask` is False.
        kept_mask: [batch, kept] bool, the answers' tokens among the last `kept` positions.
    """
    input_ids, mask = batch.input_ids, batch.mask
    if start is None:
        start = int(mask.int().argmax(1).min())
    if start < 1:
        raise ValueError("an answer needs at least one prompt token before it")
    kept = input_ids.shape[1] - start
    logits = model(input_ids=input_ids[:, :-1], use_cache=False, logits_to_keep=kept).logits
    targets = input_ids[:, start:].unsqueeze(-1)
    logps = logits.float().log_softmax(-1).gather(-1, targets).squeeze(-1)
    kept_mask = mask[:, start:]
    return logps.masked_fill(~kept_mask, 0.0), kept_mask


def sequence_logps(model: Any, batch: AnswerBatch, start: int | None = None) -> Tensor:
    """log π(y|x) = Σ_t log π(y_t | x, y_<t), the sum over the answer's tokens, never the mean.

    Args and shapes as in `token_logps`. Returns [batch], nats per answer, ≤ 0.
    """
    return token_logps(model, batch, start)[0].sum(1)


@torch.no_grad()
def frozen_sequence_logps(model: Any, batch: AnswerBatch, chunk: int = 256) -> Tensor:
    """`sequence_logps` without gradient, in evaluation mode and in chunks of `chunk` rows; result on the CPU."""
    was_training = model.training
    model.eval()
    try:
        start = int(batch.mask.int().argmax(1).min())
        parts = [
            sequence_logps(model, batch.rows(slice(at, at + chunk)).to(model.device), start).cpu()
            for at in range(0, len(batch.input_ids), chunk)
        ]
    finally:
        model.train(was_training)
    return torch.cat(parts)
