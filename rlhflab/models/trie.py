"""A batch whose rows begin alike, with each beginning stored once: one or several tries as the model's input.

    [x a b c]        x a b c . d e f g .        with a mask by which a token sees the tokens before it in its own row
    [x a b .]   →    0 1 2 3 3 1 2 2 1 2        of the batch, and with its position there
    [x d e]
    [x d f]
    [x g .]

Short answers to few prompts share most of their tokens: of 64 answers of the micro world about 170 of 448 remain, of
512 about 800 of 3,584. Hidden states, log-probabilities and gradients equal those of the batch itself, up to rounding.
The cost of attention grows with a row's length, so large batches are spread over several tries; common beginnings are
repeated in each of them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

SHARING = (
    "gemma", "gpt2", "gpt_neox", "granite", "llama", "mistral", "olmo", "olmo2", "opt", "phi", "phi3", "qwen2",
    "qwen3", "smollm3", "stablelm",
)  # fmt: skip
"""Architectures (`config.model_type`) that give shared beginnings the same hidden states, as tests check."""

WIDTH = 150
"""About how many tokens a row of tries has; 100 to 200 are equally fast on a CPU with the tiny model."""


def can_share(model: Any) -> bool:
    """Whether a model supports such rows: a known architecture without a sliding window, with PyTorch's attention."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return config.model_type in SHARING and window is None and config._attn_implementation == "sdpa"


class Tries(NamedTuple):
    """A model's input, and the positions of the batch's tokens in it.

    Attributes:
        inputs: `input_ids` and `position_ids` [tries, width], `attention_mask` [tries, 1, width, width].
        rows, places: [rows, time] position of each token; beyond a row's length, that of its first token.
    """

    inputs: dict[str, Tensor]
    rows: Tensor
    places: Tensor

    def since(self, begin: int) -> Tries:
        """The same for the tokens from position `begin` on."""
        return self._replace(rows=self.rows[:, begin:], places=self.places[:, begin:])


def pick(states: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    """The entries at `rows` and `places` (of one shape) in `states` [tries, width, …].

    The gradient is summed in a fixed order even if a place is picked many times; plain indexing with two tensors is
    not reproducible then with several threads.
    """
    flat = states.flatten(0, 1).index_select(0, (rows * states.shape[1] + places).flatten())
    return flat.view(*rows.shape, *states.shape[2:])


def share_beginnings(model: Any, input_ids: Tensor, lengths: Tensor, width: int = WIDTH) -> Tries | None:
    """Lay a batch out as tries, if that is possible and saves time.

    It is possible if `can_share`, dropout is off, and (vocabulary + 1)^time < 2^63, so that a beginning is a number:
    short texts in small languages. It saves time if a quarter of the tokens or more are left out, and on a
    CPU: a GPU reads a batch this small at once.

    Args:
        model: any Hugging Face model.
        input_ids: [rows, time] token ids, padded on the right.
        lengths: [rows] number of tokens of each row that are read, ≥ 1.
        width: about how many tokens a trie has at most.

    Returns:
        None if the batch is better read directly.
    """
    base = model.config.get_text_config().vocab_size + 1
    if input_ids.device.type != "cpu" or model.training or input_ids.shape[1] * math.log2(base) >= 63:
        return None
    if not can_share(model):
        return None
    (rows, time), place = input_ids.shape, torch.arange(input_ids.shape[1])
    # a beginning as a number: its tokens are the leading digits, so that the order is lexicographic
    numbers = ((input_ids + 1) * base ** place.flip(0)).cumsum(1)
    numbers = torch.where(place < lengths.unsqueeze(1), numbers, numbers[:, :1])
    found, nodes = numbers.unique(return_inverse=True)
    if len(found) > 0.75 * nodes.numel():
        return None

    count = -(-len(found) // width)
    if count > 1:  # lexicographic neighbours share most: they stay together
        rank = torch.empty(rows, dtype=torch.long)
        rank[numbers.amax(1).argsort()] = torch.arange(rows)
        trie_of_row = (rank * count // rows).unsqueeze(1)
        within, nodes = (nodes + len(found) * trie_of_row).unique(return_inverse=True)
        trie = within // len(found)
    else:
        trie = torch.zeros(len(found), dtype=torch.long)
    sizes = trie.bincount(minlength=count)
    column = torch.arange(len(trie)) - (sizes.cumsum(0) - sizes)[trie]

    source = torch.empty(len(trie), dtype=torch.long)  # the first place of each node's beginning
    source.scatter_reduce_(0, nodes.flatten(), torch.arange(rows * time), "amin", include_self=False)
    position = source % time
    path = column[nodes][source // time]  # [nodes, time]
    path = torch.where(place <= position.unsqueeze(1), path, column.unsqueeze(1))

    ids, positions = torch.zeros(2, count, int(sizes.max()), dtype=torch.long)
    ids[trie, column], positions[trie, column] = input_ids.flatten()[source], position
    sees = torch.eye(ids.shape[1], dtype=torch.bool).repeat(count, 1, 1)
    sees[trie.unsqueeze(1), column.unsqueeze(1), path] = True
    inputs = {"input_ids": ids, "attention_mask": sees.unsqueeze(1), "position_ids": positions}
    return Tries(inputs, trie[nodes], column[nodes])
