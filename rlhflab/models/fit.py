"""Whether the loaded weights are the model's own, and if not, what its folder seems to contain.

transformers loads what fits, fills the rest with random numbers and says so in a report that is easily missed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

Purpose = Literal["policy", "reward", "classifier"]
"""A causal LM; one whose trunk becomes a reward model's, with a new head; an unchanged classifier."""

_WRAPPERS = "_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module"
WRAPPED = re.compile(rf"(?<![^.])(?:{_WRAPPERS})\.")
"""What torch.compile, DDP, FSDP and checkpointing put before the names of weights."""

UNWRAP = {f"(?<!\\w)(?:(?:{_WRAPPERS})\\.)+" + "(?:)" * place: "" for place in range(3)}
"""The `key_mapping` that removes them, at up to three places in a name: one entry for each."""

_DEAD = re.compile(
    r"(^|\.)((attn|attention)\.(masked_)?bias|\w*inv_freq|position_ids|causal_mask|(encoder|decoder)\.version)$"
)
"""Buffers that older versions saved and newer ones compute."""
_APART = re.compile(
    r"(^|\.)(v_head|vision\w*|visual|image\w*|audio\w*|mm_projector|multi_modal_projector|mtp\w*|pooler)\."
)
"""Parts besides the language model: value heads, vision and audio encoders, multi-token predictors."""
_LM_HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.")
_SCORES = re.compile(
    r"(^|\.)(score|scores|classifier|classification_head|reward_head|value_head|qa_outputs)\."
)
_ADAPTERS = re.compile(r"(^|\.)(lora_\w+|base_layer|modules_to_save)\.")

Shape = Sequence[int]


def left_over(unexpected: Iterable[str]) -> list[str]:
    """Weights in the file that belong to unused parts, for a note."""
    return sorted(name for name in unexpected if _APART.search(name))


def misfit(
    own: Collection[str],
    missing: Iterable[str],
    unexpected: Iterable[str],
    mismatched: Iterable[tuple[str, Shape, Shape]],
    purpose: Purpose,
) -> str | None:
    """What is wrong with the loaded weights, in words; None if nothing is.

    Args:
        own: names of the model's weights, to guess what the folder contains instead; none for no guess.
        missing, unexpected: names, as transformers reports them.
        mismatched: name, shape in the file, shape in the model.
        purpose: what the model is for; the head of a reward model is always new.
    """
    new = _SCORES if purpose == "reward" else None
    spare = {"policy": (), "reward": (_SCORES, _LM_HEAD), "classifier": (_LM_HEAD,)}[purpose]
    gone = sorted(name for name in missing if not (new and new.search(name)))
    shapes = sorted(each for each in mismatched if not (new and new.search(each[0])))
    more = sorted(
        name for name in unexpected if not any(known.search(name) for known in (_DEAD, _APART, *spare))
    )
    if not (gone or more or shapes):
        return None
    words = told(gone, more, shapes)
    return f"{words}; {_looks_like(own, gone, more, bool(shapes), purpose)}" if own else words


def told(
    missing: Sequence[str], unexpected: Sequence[str], shapes: Sequence[tuple[str, Shape, Shape]]
) -> str:
    """Some of the names of each kind.

    >>> told(["a", "b", "c"], [], [("d", [2, 3], [2, 4])])
    '3 are missing (a, b, …), 1 has another shape (d [2, 3], expected [2, 4])'
    """
    kinds = {
        ("is missing", "are missing"): missing,
        ("is not the model's", "are not the model's"): unexpected,
        ("has another shape", "have another shape"): [
            f"{name} {list(found)}, expected {list(expected)}" for name, found, expected in shapes
        ],
    }
    return ", ".join(
        f"{len(names)} {one if len(names) == 1 else many} ({', '.join(names[:2])}{', …' if len(names) > 2 else ''})"
        for (one, many), names in kinds.items()
        if names
    )


def _looks_like(
    own: Collection[str], missing: list[str], unexpected: list[str], shapes: bool, purpose: Purpose
) -> str:
    if any(map(_ADAPTERS.search, unexpected)):
        return (
            "it looks like a model saved with its adapters: save it after merge_and_unload(), or give the adapters' "
            "folder"
        )
    if purpose == "policy" and any(map(_SCORES.search, unexpected)):
        return "it looks like a classifier or a reward model: give a language model, such as the one it was made from"
    if missing and unexpected and {name.partition(".")[2] for name in unexpected} <= set(own):
        first = unexpected[0].partition(".")[0]
        return f"every weight's name in it begins with '{first}.': save the model inside, without its wrapper"
    if not shapes and (depth := _other_depth(own, missing, unexpected)):
        return depth
    heads = {"policy": (_LM_HEAD, "LM head"), "classifier": (_SCORES, "classification head")}
    head, words = heads.get(purpose, (None, ""))
    if head and missing and not (unexpected or shapes) and all(map(head.search, missing)):
        return f"it looks like a model without its {words}: give one that was saved with it"
    return (
        "its config.json describes a different model than its weights, by architecture, width or vocabulary"
    )


def _other_depth(own: Collection[str], missing: list[str], unexpected: list[str]) -> str | None:
    """Whether whole layers are missing, or there are layers beyond the model's."""
    kinds, here = {_any_layer(name) for name in own}, len({_layer(name) for name in own} - {None})
    gone, whole = ({_layer(name) for name in names} for names in (missing, set(own) - set(missing)))
    if missing and not unexpected and None not in gone and not gone & whole:
        there = here - len(gone)
    elif unexpected and not missing and all(_any_layer(name) in kinds for name in unexpected):
        there = here + len({_layer(name) for name in unexpected})
    else:
        return None
    return f"it looks like a model of another depth: config.json says {here} layers, the weights have {there}"


def _layer(name: str) -> int | None:
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else None


def _any_layer(name: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", name)


def four_bit_shapes(model: Any) -> list[tuple[str, Shape, Shape]]:
    """4-bit weights whose shape in the file does not match the layer: name, their shape, the layer's."""
    found: list[tuple[str, Shape, Shape]] = []
    for name, module in model.named_modules():
        shape = getattr(getattr(getattr(module, "weight", None), "quant_state", None), "shape", None)
        expected = (getattr(module, "out_features", 0), getattr(module, "in_features", 0))
        if shape is not None and tuple(shape) != expected:
            found.append((f"{name}.weight", tuple(shape), expected))
    return found


def other_base(kind: str, trained_on: str, purpose: Purpose) -> bool:
    """Whether adapters trained on one class of model cannot belong to another.

    A reward model may start from a policy's adapters, but not the other way round.

    >>> other_base("LlamaForCausalLM", "LlamaForSequenceClassification", "policy")
    True
    >>> other_base("GPT2ForSequenceClassification", "GPT2LMHeadModel", "reward")
    False
    """
    families = {re.sub(r"(For[A-Z]\w+|LMHeadModel)$", "", name) for name in (kind, trained_on)}
    return len(families) > 1 or (purpose == "policy" and "Classification" in trained_on)


def state_misfit(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """Why a state does not fit a model, in words, both name → tensor; None if it fits."""
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    shapes = [
        (name, tuple(found[name].shape), tuple(expected[name].shape))
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name].shape
    ]
    return told(missing, unexpected, shapes) or None
