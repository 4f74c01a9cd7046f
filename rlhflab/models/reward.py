"""The reward model r_φ(x, y): a language model whose LM head is replaced by one number, read at the last real token.

    r_φ(x, y) = w·h(x, y) + b        Linear(hidden_size, 1, bias)

It is transformers' AutoModelForSequenceClassification with num_labels = 1, for any architecture; only the place of
reading is our own: the last token of the answer, known from the batch's mask, instead of the last token that is not
padding. So no pad token is needed, and an answer may end with any token.

Source: Ouyang et al. (2022), "Training language models to follow instructions", section 3.5.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlhflab.boundary import Fault, one_line
from rlhflab.models.fit import state_misfit
from rlhflab.models.logps import AnswerBatch
from rlhflab.models.lora import is_adapted, read_lora
from rlhflab.models.precision import reading_dtype
from rlhflab.models.quantised import is_four_bit, keep_gradients, nf4
from rlhflab.models.quiet import quiet_loading
from rlhflab.models.shared import Ends
from rlhflab.models.trie import pick, share_beginnings
from rlhflab.models.weights import base_of, is_adapters, load_weights, under

HEAD_FILE = "reward_head.safetensors"


def reward_model_from(policy: Any) -> Any:
    """Return a reward model with a copy of `policy`'s trunk and a new head; r_φ is 0 for every answer.

    Args:
        policy: any Hugging Face causal LM, usually the SFT model.

    Returns:
        a sequence classifier with one label, in evaluation mode on the policy's device.
    """
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(policy.config)
    config.num_labels = 1
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForSequenceClassification.from_config(config)
    model.base_model.load_state_dict(policy.base_model.state_dict())
    replace_head(model)
    return model.to(policy.device).eval()


def blindfold(model: Any, merges: Mapping[int, int]) -> None:
    """Make a reward model blind to the difference between tokens: it reads `merges[token]` instead of `token`.

    The blindness is part of the model's configuration, so it is saved and loaded with the model.

    Args:
        model: a reward model; changed in place, once.
        merges: token id → token id read instead.
    """
    table = list(range(model.config.vocab_size))
    for token, seen in merges.items():
        table[token] = seen
    model.config.blind_table = table
    _put_blindfold_on(model)


def _put_blindfold_on(model: Any) -> None:
    table = torch.tensor(model.config.blind_table)

    def read(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (table.to(args[0].device)[args[0]], *args[1:])

    model.get_input_embeddings().register_forward_pre_hook(read)


def answer_scores(model: Any, batch: AnswerBatch | Ends) -> Tensor:
    """r_φ(x, y) of each answer.

    Args:
        model: from `reward_model_from`, `load_reward_model` or `read_reward_model`, wrapped by PEFT or not.
        batch: moved to the model's device; or prepared `Ends`.

    Returns:
        [batch] float32 on the model's device, with gradient.
    """
    batch = batch.to(model.device)
    if isinstance(batch, AnswerBatch):
        last = torch.arange(len(batch.mask), device=batch.mask.device), batch.lengths - 1
        shared = share_beginnings(model, batch.input_ids, batch.lengths)
        if shared is None:
            batch = Ends({"input_ids": batch.input_ids}, *last)
        else:
            batch = Ends(shared.inputs, shared.rows[last], shared.places[last])
    hidden = _trunk(model)(**batch.inputs, use_cache=False).last_hidden_state
    return _read(model, pick(hidden, batch.rows, batch.places))


def position_scores(model: Any, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Tensor:
    """r_φ read at every position, [rows, time], for sequences with common beginnings; see `PrefixTree`."""
    hidden = _trunk(model)(
        input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
    ).last_hidden_state
    return _read(model, hidden)


def save_reward_model(model: Any, folder: str | Path) -> None:
    """Save model and head (transformers' own format has no place for the head's bias); of an adapted model only the
    adapters, with the name of their base."""
    from safetensors.torch import save_file

    base = _plain(model)
    with quiet_loading():
        model.save_pretrained(folder, **({} if base is model else {"save_embedding_layers": False}))
    head = reward_head(model)
    save_file(
        {"weight": head.weight.detach().cpu().contiguous(), "bias": head.bias.detach().cpu()},
        Path(folder) / HEAD_FILE,
        {"four_bit": str(is_four_bit(model)), "dtype": str(base.dtype).removeprefix("torch.")},
    )


def read_reward_model(folder: str | Path, device: torch.device) -> Any:
    """Load a model saved by `save_reward_model`, in evaluation mode; adapters with their base.

    Weights trained in 16 bits are read in the precision of `device`, see `reading_dtype`, as not every device supports
    the one used in training. Adapters and head are float32, as in training.

    Raises:
        ValueError: the folder holds no reward model, or its adapters' base is missing, in one line.
    """
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForSequenceClassification

    head, adapters = Path(folder) / HEAD_FILE, is_adapters(str(folder))
    if not head.is_file():
        raise Fault(
            f"{folder} holds no reward model: there is no {HEAD_FILE}; expected one that rlhflab train reward wrote"
        )
    what = f"the reward model in {folder}"
    base = base_of(str(folder))
    with one_line(what):
        with safe_open(head, framework="pt") as file:
            made, weights = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = AutoConfig.from_pretrained(base, num_labels=1)
        width = int(config.get_text_config().hidden_size)
    dtype = reading_dtype(made.get("dtype", config.dtype), device, width)
    quantised = {"quantization_config": nf4(dtype)} if made.get("four_bit") == "True" else {}
    model, _ = load_weights(
        AutoModelForSequenceClassification, under(str(folder)) if adapters else str(folder), "reward", what, "",
        config=config, dtype=dtype, device_map={"": device}, **quantised,
    )  # fmt: skip
    replace_head(model)
    if wrong := state_misfit(model.score.state_dict(), weights):
        raise Fault(f"{head} is not the head of this model: {wrong}")
    model.score.load_state_dict(weights)
    keep_gradients(model)
    if adapters:
        model = read_lora(model, str(folder))
    if getattr(model.config, "blind_table", None):
        _put_blindfold_on(model)
    return model.eval()


def replace_head(model: Any) -> None:
    """Put Linear(hidden_size, 1, bias) in place of the class's own head; it is float32 and starts at 0."""
    if not isinstance(getattr(model, "score", None), nn.Linear):
        raise Fault(
            f"architecture {model.config.model_type!r} has no classifier of one linear layer, which a reward model "
            "needs"
        )
    model.score = RewardHead(model.score.in_features, 1).to(model.device)


class RewardHead(nn.Linear):
    """The head: zeros at first, in float32, for hidden states of any precision."""

    def reset_parameters(self) -> None:
        """All zeros."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden.to(self.weight.dtype))


def reward_head(model: Any) -> nn.Linear:
    """The head of a reward model, wrapped by PEFT or not."""
    head: nn.Linear = _plain(model).score
    return head


def _read(model: Any, hidden: Tensor) -> Tensor:
    return reward_head(model)(hidden).squeeze(-1)


def _plain(model: Any) -> Any:
    return model.get_base_model() if is_adapted(model) else model


def _trunk(model: Any) -> Any:
    return _plain(model).base_model
