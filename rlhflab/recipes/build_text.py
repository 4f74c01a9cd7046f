"""What the builders share for real models on real texts: what is loaded, read, tokenised, filtered and put aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhflab.data.encoding import REFUSES, PairTokens, TextEncoder
from rlhflab.data.hub import Data, counted, pairs_of_labels, split
from rlhflab.evaluation.evaluators import SampleEvaluator
from rlhflab.models.loading import Loaded, LoadSettings, positions_of
from rlhflab.worlds.preferences import PreferencePair

EPOCHS = 3
MOST_PAIRS = 2000
SHOWN = 3  # prompts whose answers are shown
SHOWN_TOKENS = 48
REFUSED = "refused by the chat template"


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


def encoder_of(loaded: Loaded) -> TextEncoder:
    """The encoder of a model's texts, which knows all tokens at which the model's generation ends.

    Raises:
        ValueError: the tokenizer's chat template tells no dialogue, in one line.
    """
    ends: set[int] = set()
    for config in (getattr(loaded.model, "generation_config", None), loaded.model.config):
        listed = getattr(config, "eos_token_id", None)
        ends.update(listed if isinstance(listed, list) else [] if listed is None else [listed])
    return TextEncoder(loaded.tokenizer, {token for token in ends if 0 <= token < len(loaded.tokenizer)})


@dataclass(frozen=True)
class PreparedPairs:
    """Pairs to train on, then pairs that are held out, with their token ids.

    Attributes:
        pairs, tokens: all of them.
        held_out: how many at the end are not trained on.
        notes: by name in one line each: how the data was understood, how its texts become tokens, what is trained on.
    """

    pairs: list[PreferencePair]
    tokens: PairTokens
    held_out: int
    notes: dict[str, str]


def prepare_pairs(
    data: Data, encoder: TextEncoder, model: Any, max_length: int, most: int, held_out: int, seed: int,
    skip_bad: bool, progress: bool,
) -> PreparedPairs:  # fmt: skip
    """Shuffle pairs, tokenise them, leave out what is too long or has twice the same tokens, and put some aside.

    Args:
        data: what was read. Texts with labels become pairs of one of each kind.
        encoder: of the model's tokenizer.
        model: it says how many positions there are.
        max_length: longest dialogue in tokens, prompt and answer together.
        most: pairs to train on, at most.
        held_out: pairs put aside, at most a tenth of all.
        seed: of the shuffling.
        skip_bad: leave out what the chat template refuses, and count it.
        progress: show a bar.

    Raises:
        ValueError: no pair is left, or the chat template refuses one, in one line.
    """
    source = data.source
    found = list(data.pairs) or pairs_of_labels(data.texts, seed)
    mixed, _ = split(found, 0, seed)
    longest, wanted = min(max_length, positions_of(model)), most + held_out
    kept: list[PreferencePair] = []
    too_long = f"longer than {longest} tokens"
    tokens, seen, dropped, refused = PairTokens([], [], []), 0, Counter(dict(data.dropped)), ""
    while len(kept) < wanted and seen < len(mixed):
        part = mixed[seen : seen + wanted]
        fits: list[int] = []
        encoded = encoder.encode_pairs(part, progress)
        bad = {id(pair) for pair, prompt in zip(part, encoded.prompts, strict=True) if not prompt}
        if bad and not refused:
            first = next(pair for pair in found if id(pair) in bad)
            refused = f"{first.place}: {encoder.complaint(first.prompt)}"
            if not skip_bad:
                raise ValueError(f"{source}, {refused_line(refused)}")
        for place, (prompt, chosen, rejected) in enumerate(zip(*encoded, strict=True)):
            if len(kept) + len(fits) == wanted:
                break
            seen += 1
            if not prompt:
                dropped[REFUSED] += 1
            elif len(prompt) + max(len(chosen), len(rejected)) > longest:
                dropped[too_long] += 1
            elif chosen == rejected:
                dropped["whose answers are the same in tokens"] += 1
            else:
                fits.append(place)
        kept += [part[place] for place in fits]
        for column, new in zip(tokens, encoded.take(fits), strict=True):
            column.extend(new)
    if not kept:
        if dropped[too_long] == seen:
            raise ValueError(f"no pair of {source} has at most {longest} tokens; raise --max-length")
        raise ValueError(f"no pair of {source} can be used: {left_out(dropped, refused)}")
    aside = min(held_out, len(kept) // 10)
    note = f"{len(kept) - aside} pairs of {source} to train on and {aside} held out, of {len(found)} in it"
    if dropped:
        note += f"; left out: {left_out(dropped, refused)}"
    notes = {"read": data.note, "dialogues": encoder.note_on([pair.prompt for pair in kept]), "data": note}
    return PreparedPairs(kept, tokens, aside, notes)


def refused_line(refused: str) -> str:
    """A row's place and the template's complaint, "line 3: no system turns here", as an error."""
    place, _, why = refused.partition(": ")
    return f"{place}: {REFUSES}: {why}; --skip-bad leaves such rows out"


def left_out(dropped: Mapping[str, int], refused: str) -> str:
    """What was left out, in words, with the first row that a chat template refused."""
    return counted(dropped) + (f" (the first: {refused})" if refused else "")


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
