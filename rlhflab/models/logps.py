"""Log-probabilities of answers under a causal language model.

Batches are padded on the right. In a causal model no real token can then see padding, so no attention mask is passed
(a mask costs time and changes nothing), and no pad token is needed. The LM head is applied only to answers: from a
common position on if all begin together, else to each answer's own tokens. Short answers of a small language go
through the model as tries: see `share_beginnings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rlhflab.models.precision import float32_logits
from rlhflab.models.trie import pick, share_beginnings
from rlhflab.objectives.divergence import kl_from_logps

LOGITS_AT_ONCE = 2**26
"""Logits (answer tokens × vocabulary) at once; more are computed in parts, and recomputed for gradients."""

SCALED_LOGITS = (
    "final_logit_softcapping", "lm_head_multiplier", "logit_scale", "logits_scaling", "output_multiplier",
)  # fmt: skip
"""Settings of models that change their logits after the LM head, which then cannot be called by itself."""


@dataclass(frozen=True)
class AnswerBatch:
    """Prompts with answers, padded on the right.

    Attributes:
        input_ids: [batch, time] prompt, answer, padding (any token: see `mask`).
        mask: [batch, time] bool, True on the answer's tokens (EOS included).
    """

    input_ids: Tensor
    mask: Tensor

    @property
    def lengths(self) -> Tensor:
        """[batch] tokens of prompt and answer together, without the padding."""
        return self.mask.shape[1] - self.mask.flip(1).int().argmax(1)

    def rows(self, index: Tensor | slice) -> AnswerBatch:
        """Select rows."""
        return AnswerBatch(self.input_ids[index], self.mask[index])

    def trimmed(self) -> AnswerBatch:
        """Drop the columns that are padding in every row."""
        longest = int(self.lengths.max())
        return AnswerBatch(self.input_ids[:, :longest], self.mask[:, :longest])

    def to(self, device: torch.device | str) -> AnswerBatch:
        """Move both tensors."""
        return AnswerBatch(self.input_ids.to(device), self.mask.to(device))


def join_answers(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> AnswerBatch:
    """Join prompts and answers (token ids, at least one each) into one right-padded batch.

    The padding repeats the last token: no real token can see it, so no pad token is needed (GPT-2 has none).
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


class Reads(NamedTuple):
    """A model's input, and where the answers' tokens are predicted in it.

    Attributes:
        inputs: arguments of the model: `input_ids` [rows, time] and others it needs.
        rows, places: [tokens] row and position whose hidden state predicts each token, answer after answer.
        targets: [tokens] the answers' tokens.
        mask: [answers, time] bool, True at the positions of those tokens in the answers' own batch.
    """

    inputs: dict[str, Tensor]
    rows: Tensor
    places: Tensor
    targets: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> Reads:
        """Move everything."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return Reads(inputs, *(tensor.to(device) for tensor in self[1:]))


def answer_reads(batch: AnswerBatch) -> Reads:
    """The reads of a batch whose answers begin anywhere: logits only for the answers' tokens."""
    rows, ends = batch.mask.nonzero(as_tuple=True)
    if int(ends.min()) < 1:
        raise ValueError("an answer needs at least one prompt token before it")
    return Reads({"input_ids": batch.input_ids}, rows, ends - 1, batch.input_ids[rows, ends], batch.mask)


@contextmanager
def before_head(model: Any, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the block, apply `change` to the LM head's input [rows, time, hidden], for any architecture."""

    def hook(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (change(args[0]), *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(hook, prepend=True)
    try:
        yield
    finally:
        handle.remove()


def read_logps(model: Any, reads: Reads) -> Tensor:
    """log π of the tokens that are read: [tokens] float32, nats per token."""
    config = model.config.get_text_config()
    scaled = any(getattr(config, name, None) is not None for name in SCALED_LOGITS)
    if not scaled and len(reads.targets) * config.vocab_size > LOGITS_AT_ONCE:
        return _read_in_parts(model, reads, max(1, LOGITS_AT_ONCE // config.vocab_size))
    with before_head(model, lambda hidden: hidden[reads.rows, reads.places]), float32_logits(model):
        logits = model(**reads.inputs, use_cache=False).logits
    return _logps_of(logits, reads.targets)


def _read_in_parts(model: Any, reads: Reads, size: int) -> Tensor:
    """The same with the logits of `size` tokens at a time, recomputed in the backward pass."""
    kept: list[Tensor] = []

    def keep(hidden: Tensor) -> Tensor:
        kept.append(hidden[reads.rows, reads.places])
        return hidden[:, :0]

    with before_head(model, keep):
        model(**reads.inputs, use_cache=False)
    head = model.get_output_embeddings()

    def part(hidden: Tensor, targets: Tensor) -> Tensor:
        with float32_logits(model):
            return _logps_of(head(hidden), targets)

    pieces = zip(kept[0].split(size), reads.targets.split(size), strict=True)
    return torch.cat([checkpoint(part, *piece, use_reentrant=False) for piece in pieces])


def _logps_of(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.float().log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def token_logps(model: Any, batch: AnswerBatch, start: int | None = None) -> tuple[Tensor, Tensor]:
    """log π(y_t | x, y_<t) of the answers' tokens.

    Args:
        model: any Hugging Face causal LM.
        batch: see `AnswerBatch`; it is moved to the model's device.
        start: position ≥ 1 from which logits are computed for all rows, if all answers begin there or soon after;
            None if they begin anywhere (costs a sync on a GPU).

    Returns:
        logps: [batch, kept] float32, nats per token, 0 where `kept_mask` is False.
        kept_mask: [batch, kept] bool, the answers' tokens among the last `kept` positions.
    """
    batch = batch.to(model.device)
    input_ids, mask = batch.input_ids, batch.mask
    if start is None:
        reads = answer_reads(batch)
        found = read_logps(model, reads)
        logps = found.new_zeros(mask.shape).masked_scatter(mask, found)
        begin = int(mask.int().argmax(1).min())
        return logps[:, begin:], mask[:, begin:]
    found = _next_token_logps(model, batch, start)
    kept_mask, targets = mask[:, start:], input_ids[:, start:]
    logps = found.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return logps.masked_fill(~kept_mask, 0.0), kept_mask


def _next_token_logps(model: Any, batch: AnswerBatch, start: int) -> Tensor:
    """log π(·|x, y_<t) of every token at the positions from `start` on: [batch, kept, vocabulary] float32."""
    if start < 1:
        raise ValueError("an answer needs at least one prompt token before it")
    input_ids = batch.input_ids[:, :-1]
    shared = share_beginnings(model, input_ids, batch.lengths - 1)
    with float32_logits(model):
        if shared is None:
            kept = batch.input_ids.shape[1] - start
            logits = model(input_ids=input_ids, use_cache=False, logits_to_keep=kept).logits
            return logits.float().log_softmax(-1)
        logits = model(**shared.inputs, use_cache=False).logits
    before = shared.since(start - 1)
    return pick(logits.float().log_softmax(-1), before.rows, before.places)


def sequence_logps(model: Any, batch: AnswerBatch | Reads, start: int | None = None) -> Tensor:
    """log π(y|x) = Σ_t log π(y_t | x, y_<t), the sum over the answer's tokens, never the mean.

    Args and shapes as in `token_logps`; or prepared `Reads`. Returns [batch], nats per answer, ≤ 0, on the model's
    device.
    """
    if isinstance(batch, Reads):
        found = read_logps(model, batch.to(model.device))
        return found.new_zeros(batch.mask.shape).masked_scatter(batch.mask.to(found.device), found).sum(1)
    return token_logps(model, batch, start)[0].sum(1)


def common_start(batch: AnswerBatch) -> int | None:
    """The position where all answers begin; None if they do not begin together."""
    begins = batch.mask.int().argmax(1)
    return int(begins[0]) if bool((begins == begins[0]).all()) else None


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode without gradient within the block; the mode is restored afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def frozen_sequence_logps(model: Any, batch: AnswerBatch, chunk: int = 256) -> Tensor:
    """`sequence_logps` without gradient, in evaluation mode and in chunks of `chunk` rows; result on the CPU."""
    start = common_start(batch)
    with evaluating(model):
        parts = [
            sequence_logps(model, batch.rows(slice(at, at + chunk)), start).cpu()
            for at in range(0, len(batch.input_ids), chunk)
        ]
    return torch.cat(parts)


class Compared(NamedTuple):
    """Answers under two policies; all [batch] float64 on the CPU, nats per answer.

    Attributes:
        logps, ref_logps: log π(y|x) and log π_ref(y|x).
        kl: Σ_t KL(π(·|x, y_<t)‖π_ref(·|x, y_<t)) ≥ 0 along the answer; its mean over y ∼ π is KL(π‖π_ref).
    """

    logps: Tensor
    ref_logps: Tensor
    kl: Tensor


def compare_policies(policy: Any, ref_policy: Any, batch: AnswerBatch, chunk: int = 256) -> Compared:
    """Log-probabilities of answers under both policies, and the KL between the two at every token, summed.

    Without gradient, in evaluation mode and in chunks of `chunk` rows. Both policies must have the same tokens; all
    logits of a chunk exist at once, so this is for small vocabularies.

    Args:
        policy, ref_policy: any Hugging Face causal LMs.
        batch: answers; see `AnswerBatch`.
    """
    start = int(batch.mask.int().argmax(1).min())
    parts = []
    with evaluating(policy), evaluating(ref_policy):
        for at in range(0, len(batch.input_ids), chunk):
            rows = batch.rows(slice(at, at + chunk))
            both = [
                _next_token_logps(model, rows.to(model.device), start).cpu() for model in (policy, ref_policy)
            ]
            mask, targets = rows.mask[:, start:].cpu(), rows.input_ids[:, start:, None].cpu()
            tables = (*(logps.gather(-1, targets).squeeze(-1) for logps in both), kl_from_logps(*both))
            parts.append(torch.stack([table.double().masked_fill(~mask, 0).sum(1) for table in tables]))
    return Compared(*torch.cat(parts, 1))
