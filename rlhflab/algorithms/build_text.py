"""What the builders share for real models on real texts: what is loaded, read, tokenised, filtered and put aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhflab.algorithms.evaluators import SampleEvaluator
from rlhflab.models.loading import LoadSettings, positions_of
from rlhflab.worlds.encoding import PairTokens, TextEncoder
from rlhflab.worlds.hub import Data, counted, pairs_of_labels, split
from rlhflab.worlds.preferences import PreferencePair

EPOCHS = 3
MOST_PAIRS = 2000
SHOWN = 3  # prompts whose answers are shown
SHOWN_TOKENS = 48


def load_settings(
    model: str, four_bit: bool, lora: bool, lora_rank: int, lora_targets: str, max_length: int,
    gradient_checkpointing: bool, dtype: str, trust_remote_code: bool, rows: int, device: str, seed: int,
    answer_tokens: int = 0, twice: float = 0.0,
) -> LoadSettings | None:  # fmt: skip
    """How a builder's model is loaded; None for "tiny", which has none of these settings.

    Raises:
        ValueError: a setting that makes no sense, or one of a real model with the tiny one, in one line.
    """
    if max_length < 2:
        raise ValueError(f"max_length must be ≥ 2 tokens, got {max_length}")
    names = tuple(name.strip() for name in lora_targets.split(",") if name.strip())
    settings = LoadSettings(
        four_bit=four_bit, lora=lora, lora_rank=lora_rank, lora_targets=names, max_length=max_length,
        gradient_checkpointing=gradient_checkpointing, dtype=dtype, trust_remote_code=trust_remote_code, rows=rows,
        device=device, seed=seed, answer_tokens=answer_tokens, twice=twice,
    )  # fmt: skip
    if model != "tiny":
        return settings
    for name, given in {
        "four_bit": four_bit, "lora": lora, "gradient_checkpointing": gradient_checkpointing, "dtype": dtype != "auto",
        "trust_remote_code": trust_remote_code,
    }.items():  # fmt: skip
        if given:
            raise ValueError(f"{name} needs a real model: give --model a folder or a hub id")
    return None


def default_rate(model: Any, lora: bool) -> float:
    """Peak step size for a real model: 1e-5 for all of its weights, and for adapters 0.2 over its width.

    That is 2e-4 at a width of 1,024, and larger where the model is small: AdamW's best step falls with the width (Yang
    et al., 2022, "Tensor programs V").
    """
    return 0.2 / float(model.config.get_text_config().hidden_size) if lora else 1e-5


def default_pairs(steps: int, batch_size: int) -> int:
    """As many pairs as are each seen about EPOCHS times in a run, from 16 to MOST_PAIRS."""
    return min(MOST_PAIRS, max(16, steps * batch_size // EPOCHS))


@dataclass(frozen=True)
class PreparedPairs:
    """Pairs to train on, then pairs that are held out, with their token ids.

    Attributes:
        pairs, tokens: all of them.
        held_out: how many at the end are not trained on.
        note: in one line what was read and what was left out.
    """

    pairs: list[PreferencePair]
    tokens: PairTokens
    held_out: int
    note: str


def prepare_pairs(
    data: Data, encoder: TextEncoder, model: Any, max_length: int, most: int, held_out: int, seed: int,
    progress: bool,
) -> PreparedPairs:  # fmt: skip
    """Shuffle pairs, tokenise them, leave out what is too long, and put some aside.

    Args:
        data: what was read. Texts with labels become pairs of one of each kind.
        encoder: of the model's tokenizer.
        model: it says how many positions there are.
        max_length: longest dialogue in tokens, prompt and answer together.
        most: pairs to train on, at most.
        held_out: pairs put aside, at most a tenth of all.
        seed: of the shuffling.
        progress: show a bar.

    Raises:
        ValueError: no pair is left, in one line.
    """
    source = data.source
    found = list(data.pairs) or pairs_of_labels(data.texts, seed)
    mixed, _ = split(found, 0, seed)
    longest, wanted = min(max_length, positions_of(model)), most + held_out
    kept: list[PreferencePair] = []
    tokens, seen = PairTokens([], [], []), 0
    while len(kept) < wanted and seen < len(mixed):
        part = mixed[seen : seen + wanted]
        encoded = encoder.encode_pairs(part, progress)
        fits = [place for place, length in enumerate(encoded.lengths()) if length <= longest]
        fits = fits[: wanted - len(kept)]
        seen += fits[-1] + 1 if len(kept) + len(fits) == wanted else len(part)
        kept += [part[place] for place in fits]
        for column, new in zip(tokens, encoded.take(fits), strict=True):
            column.extend(new)
    if not kept:
        raise ValueError(f"no pair of {source} has at most {longest} tokens; raise --max-length")
    dropped = dict(data.dropped)
    if len(kept) < seen:
        dropped[f"longer than {longest} tokens"] = seen - len(kept)
    aside = min(held_out, len(kept) // 10)
    note = f"{len(kept) - aside} pairs of {source} to train on and {aside} held out, of {len(found)} in it"
    if dropped:
        note += f"; left out: {counted(dropped)}"
    return PreparedPairs(kept, tokens, aside, note)


def sample_evaluator(
    ref_policy: Any, prompts: Sequence[str], encoder: TextEncoder, most: int, seed: int
) -> SampleEvaluator | None:
    """Answers of at most `most` tokens to the shortest of some prompts, before and now.

    None where no prompt leaves room for an answer.
    """
    some = list(dict.fromkeys(prompts[:64]))
    shown = sorted(some, key=lambda prompt: len(encoder.encode_prompt(prompt)))[:SHOWN]
    room = positions_of(ref_policy) - max(len(encoder.encode_prompt(prompt)) for prompt in shown)
    if room < 1:
        return None
    return SampleEvaluator(
        ref_policy, shown, encoder.encode_prompt, encoder.decode, encoder.stop_ids, min(most, room), seed
    )
