"""Sampling answers from a causal language model, with its key–value cache and nothing cut off its distribution.

No top-k, top-p, temperature or minimum length: with any of them the samples are not the policy's and every KL
estimate made from them is wrong.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def sample_answers(
    model: Any,
    prompt_ids: Tensor,
    max_tokens: int,
    stop_ids: Collection[int],
    pad: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw one answer a prompt, y ∼ π(·|x).

    Args:
        model: any Hugging Face causal LM.
        prompt_ids: [batch, time], prompts of one length, without padding.
        max_tokens: an answer that has not stopped by then is cut.
        stop_ids: token ids that end an answer (they belong to it).
        pad: fills the positions after the end.
        generator: source of randomness, on the CPU.

    Returns:
        answers: [batch, max_tokens] token ids.
        mask: [batch, max_tokens] bool, True on the answer's tokens, the stop included.
    """
    device = model.device
    batch = len(prompt_ids)
    stops = torch.tensor(sorted(stop_ids), device=device)
    answers = torch.full((batch, max_tokens), pad, device=device)
    mask = torch.zeros(batch, max_tokens, dtype=torch.bool, device=device)
    alive = torch.ones(batch, dtype=torch.bool, device=device)
    ids, cache = prompt_ids.to(device), None
    was_training = model.training
    model.eval()
    try:
        for step in range(max_tokens):
            output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            probs = output.logits[:, -1].float().softmax(-1)
            tokens = torch.multinomial(probs.cpu(), 1, generator=generator).to(device)
            answers[:, step] = torch.where(alive, tokens[:, 0], pad)
            mask[:, step] = alive
            alive = alive & ~torch.isin(tokens[:, 0], stops)
            ids = tokens
            if not alive.any():
                break
    finally:
        model.train(was_training)
    return answers, mask
