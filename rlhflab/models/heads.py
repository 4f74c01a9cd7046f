"""Scalar heads on a language model: the value of every state, read from the hidden states that its LM head reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class HiddenStates:
    """Keeps the inputs of `model`'s LM head in its last forward pass: [batch, kept positions, hidden_size].

    A hook on the LM head costs nothing and does not depend on the architecture; with `logits_to_keep` these are just
    the positions whose logits were kept.

    Args:
        model: any Hugging Face causal LM, wrapped by PEFT or not.
    """

    def __init__(self, model: Any) -> None:
        self._last: Tensor | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._keep)

    def _keep(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        self._last = args[0]

    def take(self) -> Tensor:
        """Return and release the hidden states of the last forward pass, so that no graph is kept alive."""
        if self._last is None:
            raise RuntimeError("no forward pass since the hidden states were taken")
        hidden, self._last = self._last, None
        return hidden

    def release(self) -> None:
        """Release the hidden states of a failed pass, which are never taken."""
        self._last = None


class ValueHead(nn.Linear):
    """V(s) = w·h + b on hidden states h [..., hidden_size]; returns [...]. It starts at 0 everywhere.

    Args:
        hidden_size: width of the hidden states.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size, 1)
        with torch.no_grad():
            self.weight.zero_()
            self.bias.zero_()

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden.to(self.weight.dtype)).squeeze(-1)


def hidden_size(model: Any) -> int:
    """Width of the input of the model's LM head."""
    return int(model.get_output_embeddings().in_features)
