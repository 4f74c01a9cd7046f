"""Checks that a model meets the assumptions of log-probabilities and sampling: causal, with a cache and an LM head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlhflab.boundary import Fault, given
from rlhflab.models.quantised import is_four_bit

KNOWN = "give a decoder-only language model, such as GPT-2, OPT, Llama or Qwen"
_NUMBERS = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")


def require_decoder(config: Any, what: str) -> None:
    """Reject a configuration that cannot be a decoder with attention.

    Raises:
        Fault: an encoder–decoder, an architecture without attention heads, or an invalid number.
    """
    kind = getattr(config, "model_type", "")
    if getattr(config, "is_encoder_decoder", False):
        raise Fault(f"{what} is an encoder–decoder ({kind}), which is not trained here; {KNOWN}")
    text = config.get_text_config()
    for name in _NUMBERS:
        number = getattr(text, name, None)
        if number is None:
            raise Fault(
                f"{what} has no {name} in its config.json: architecture {kind!r} is not a transformer with attention "
                f"and a key–value cache, or a line is missing; {KNOWN}"
            )
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise Fault(f"{what}: {name} in its config.json must be a whole number ≥ 1, got {number!r}")


@torch.no_grad()
def require_causal(model: Any, what: str, reward: bool) -> None:
    """Run three tokens as sampling and log-probabilities would, before any training.

    Args:
        model: in evaluation mode, without unmerged adapters.
        what: for the message: "model 'gpt2'".
        reward: whether it is a reward model's trunk, which needs no cache.

    Raises:
        Fault: numbers that are not finite, a token that sees later ones, or a cache that is missing or changes results.
    """
    ids = torch.tensor([[1, 2, 3]], device=model.device) % model.config.get_text_config().vocab_size
    if reward:
        with given(f"{what} does not work as a reward model's trunk; {KNOWN}"):
            whole = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0].float()
            begin = model.base_model(input_ids=ids[:, :2], use_cache=False).last_hidden_state[0].float()
        after = whole[2]
    else:
        with given(f"{what} does not work as a causal language model with a key–value cache; {KNOWN}"):
            whole = model(input_ids=ids, use_cache=False).logits[0].float()
            first = model(input_ids=ids[:, :2], use_cache=True, logits_to_keep=1)
            cache = first.past_key_values
            cache.batch_select_indices(torch.zeros(1, dtype=torch.long, device=model.device))
            second = model(input_ids=ids[:, 2:], past_key_values=cache, use_cache=True, logits_to_keep=1)
            begin, after = first.logits[0].float(), second.logits[0, -1].float()
    if not bool(whole.isfinite().all()):
        raise Fault(
            f"{what} computes NaN or infinity: its weights are damaged, or too large for its precision"
        )
    rough = model.dtype.itemsize < 4 or is_four_bit(model)
    room = (0.2 if rough else 1e-3) * float(whole.std())
    if _apart(begin[-1], whole[1]) > room:
        raise Fault(f"{what} is not a causal language model: a token in it sees later ones; {KNOWN}")
    if _apart(after, whole[2]) > room:
        raise Fault(f"{what} gives different results with and without its key–value cache; {KNOWN}")


def _apart(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())
