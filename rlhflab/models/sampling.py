"""Sampling answers from the full distribution of a causal language model, with its key–value cache.

No top-k, top-p, temperature or minimum length: with any of them the samples would not be the policy's, and every KL
estimate from them would be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad as pad_on_right

from rlhflab.models.precision import float32_logits


class Sampled(NamedTuple):
    """Answers y ∼ π(·|x); all [batch, max_tokens].

    Attributes:
        answers: token ids; `pad` after the end.
        mask: bool, True on the answer's tokens, the stop included.
        logps: log π(y_t|x, y_<t) of the tokens drawn, float32; 0 outside the mask.
        values: `value` of the state before each token; 0 without `value`, and outside the mask.
    """

    answers: Tensor
    mask: Tensor
    logps: Tensor
    values: Tensor


def left_padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
    """Prompts of any lengths as one batch that ends where its answers begin.

    Args:
        prompts: token ids, at least one each.

    Returns:
        prompt_ids: [prompts, time]; rows are filled on the left with their own first token, as GPT-2 has no pad token.
        prompt_mask: [prompts, time] bool, True on the prompts' tokens; None if nothing was filled.
    """
    if not prompts or not all(map(len, prompts)):
        raise ValueError("at least one prompt is needed, and a token in every prompt")
    time = max(map(len, prompts))
    rows = [[prompt[0]] * (time - len(prompt)) + list(prompt) for prompt in prompts]
    mask = torch.arange(time) >= torch.tensor([[time - len(prompt)] for prompt in prompts])
    return torch.tensor(rows), None if bool(mask.all()) else mask


def random_heights(max_tokens: int, batch: int, generator: torch.Generator) -> Tensor:
    """The uniform random numbers for drawing `batch` answers: [max_tokens, batch, 1] float64 in [0, 1)."""
    return torch.rand(max_tokens, batch, 1, dtype=torch.float64, generator=generator)


@torch.no_grad()
def sample_answers(
    model: Any,
    prompt_ids: Tensor,
    max_tokens: int,
    stop_ids: Collection[int],
    pad: int,
    generator: torch.Generator | Tensor,
    value: Callable[[], Tensor] | None = None,
    prompt_mask: Tensor | None = None,
) -> Sampled:
    """Draw one answer per prompt, y ∼ π(·|x), by inverting each step's cumulative distribution.

    All random numbers are drawn beforehand, one per token; so the same generator state gives two policies the same
    random numbers, and a GPU never waits for the CPU. Answers to the same prompt share its first pass.

    Args:
        model: any Hugging Face causal LM.
        prompt_ids: [batch, time], prompts of one length; with `prompt_mask`, of any lengths, padded on the left.
        max_tokens: longer answers are cut.
        stop_ids: token ids that end an answer (they belong to it).
        pad: fills the positions after the end.
        generator: source of randomness, on the CPU; or the numbers themselves, from `random_heights`.
        value: called after every forward pass; returns [rows, 1], the value of the state it read last.
        prompt_mask: [batch, time] bool, True on the prompts' tokens; see `left_padded`. A token's position is then
            counted from its prompt's own beginning, and nothing attends to the padding.

    Returns:
        see `Sampled`.
    """
    device, batch = model.device, len(prompt_ids)
    if isinstance(generator, torch.Generator):
        generator = random_heights(max_tokens, batch, generator)
    exact = torch.float32 if device.type == "mps" else torch.float64  # Apple GPUs have no float64
    heights = generator.to(exact).to(device)
    stops = torch.tensor(sorted(stop_ids), device=device)
    answers = torch.full((batch, max_tokens), pad, device=device)
    mask = torch.zeros(batch, max_tokens, dtype=torch.bool, device=device)
    logps = torch.zeros(batch, max_tokens, device=device)
    values = torch.zeros(batch, max_tokens, device=device)
    alive = torch.ones(batch, dtype=torch.bool, device=device)
    time = prompt_ids.shape[1]
    filled = prompt_ids if prompt_mask is None else torch.cat([prompt_ids, prompt_mask], 1)
    prompts, rows = filled.unique(dim=0, return_inverse=True)
    ids, rows, cache = prompts[:, :time].to(device), rows.to(device), None
    seen = None if prompt_mask is None else prompts[:, time:].to(device)
    was_training = model.training
    model.eval()
    try:
        for step in range(max_tokens):
            with float32_logits(model):
                output = model(
                    input_ids=ids,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                    **_places(seen, ids),
                )
            logits, cache = output.logits[:, -1], output.past_key_values
            worth = value()[:, -1] if value else logits.new_zeros(len(logits))
            if step == 0:  # from one row per prompt to one row per answer
                cache.batch_select_indices(rows)
                logits, worth, seen = logits[rows], worth[rows], None if seen is None else seen[rows]
            step_logps = logits.float().log_softmax(-1)
            cdf = step_logps.to(exact).exp().cumsum(-1)
            ids = torch.searchsorted(cdf, heights[step] * cdf[:, -1:], right=True)
            ids.clamp_(max=cdf.shape[-1] - 1)
            answers[:, step] = torch.where(alive, ids[:, 0], pad)
            logps[:, step] = step_logps.gather(1, ids)[:, 0] * alive
            values[:, step] = worth * alive
            mask[:, step] = alive
            seen = None if seen is None else pad_on_right(seen, (0, 1), value=1)
            alive = alive & ~torch.isin(ids[:, 0], stops)
            if not alive.any():
                break
    finally:
        model.train(was_training)
    return Sampled(answers, mask, logps, values)


def _places(seen: Tensor | None, ids: Tensor) -> dict[str, Tensor]:
    """What a model needs with padding on the left: which tokens to attend to, and the positions of the new ones."""
    if seen is None:
        return {}
    return {"attention_mask": seen, "position_ids": (seen.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]}
