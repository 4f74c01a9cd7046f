"""What recipes for real models on real texts have in common: tokenising, filtering and holding out data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlhflab.data.encoding import REFUSES, PairTokens, TextEncoder
from rlhflab.data.hub import Data, counted, pairs_of_labels, read_data, split
from rlhflab.engines.choice import engine_dtype
from rlhflab.evaluation.evaluators import SampleEvaluator
from rlhflab.models.loading import Loaded, LoadSettings, positions_of
from rlhflab.worlds.preferences import PreferencePair

SHOWN = 3  # prompts whose answers are shown
SHOWN_TOKENS = 48
REFUSED = "refused by the chat template"


def default_rate(model: Any, lora: bool) -> float:
    """Peak step size for a real model: 1e-5 for all of its weights, 0.2 / width for adapters.

    That is 2e-4 at a width of 1,024, and larger for small models: AdamW's best step size falls with the width (Yang
    et al., 2022, "Tensor programs V").
    """
    return 0.2 / float(model.config.get_text_config().hidden_size) if lora else 1e-5


def encoder_of(loaded: Loaded) -> TextEncoder:
    """The encoder of a model's texts, which knows all tokens that end the model's generation.

    Raises:
        ValueError: the tokenizer's chat template cannot write dialogues, in one line.
    """
    ends: set[int] = set()
    for config in (getattr(loaded.model, "generation_config", None), loaded.model.config):
        listed = getattr(config, "eos_token_id", None)
        ends.update(listed if isinstance(listed, list) else [] if listed is None else [listed])
    return TextEncoder(loaded.tokenizer, {token for token in ends if 0 <= token < len(loaded.tokenizer)})


@dataclass(frozen=True)
class PreparedPairs:
    """Pairs to train on, followed by held-out pairs, with their token ids.

    Attributes:
        pairs, tokens: all of them.
        held_out: how many at the end are held out.
        notes: one line each, by name: how the data was read, how its texts become tokens, what is trained on.
    """

    pairs: list[PreferencePair]
    tokens: PairTokens
    held_out: int
    notes: dict[str, str]


@dataclass(frozen=True)
class OnPairs:
    """A real model, and the pairs that it is to be trained on.

    Attributes:
        model, tokenizer: as loaded.
        encoder: of the tokenizer.
        recipe: the recipe as given, with the default peak step size for this model where it names none.
        pairs: tokenised, those held out last.
        notes: one line each, by name: the model, how data was read, how texts become tokens, what is trained on.
    """

    model: Any
    tokenizer: Any
    encoder: TextEncoder
    recipe: Any
    pairs: PreparedPairs
    notes: dict[str, str]


def load_on_pairs(
    recipe: Any, load: Callable[[str, LoadSettings], Loaded], rows: int, most: int, held_out: int = 0
) -> OnPairs:
    """Read a recipe's pairs, load its real model, and bring the two together.

    Args:
        recipe: a `Loading` of a real model.
        load: `load_policy` or `load_reward_model`.
        rows: answers in a forward pass with gradient, over all processes.
        most: most pairs to train on.
        held_out: pairs to hold out, at most a tenth of all.

    Raises:
        ValueError: data or model cannot be used, in one line.
    """
    loading = recipe.loading(
        rows, dtype=engine_dtype(recipe.engine, recipe.model, recipe.dtype, recipe.device)
    )
    data = read_data(recipe.world, recipe.skip_bad, recipe.progress)  # before the model, which takes minutes
    loaded = load(recipe.model, loading)
    encoder = encoder_of(loaded)
    pairs = prepare_pairs(data, encoder, loaded.model, recipe, most, held_out)
    if recipe.learning_rate is None:
        recipe = replace(recipe, learning_rate=default_rate(loaded.model, recipe.lora))
    return OnPairs(
        loaded.model, loaded.tokenizer, encoder, recipe, pairs, {"model": loaded.note, **pairs.notes}
    )


def prepare_pairs(
    data: Data, encoder: TextEncoder, model: Any, recipe: Any, most: int, held_out: int = 0
) -> PreparedPairs:
    """Shuffle and tokenise pairs, leave out those too long or with two identical answers, and hold some out.

    Args:
        data: what was read. Labelled texts become pairs, each of two texts with different labels.
        encoder: of the model's tokenizer.
        model: gives the number of positions.
        recipe: its `max_length`, `seed`, `skip_bad` and `progress` are used.
        most: most pairs to train on.
        held_out: pairs to hold out, at most a tenth of all.

    Raises:
        ValueError: no pair is left, or the chat template rejects one, in one line.
    """
    max_length, seed, skip_bad, progress = recipe.max_length, recipe.seed, recipe.skip_bad, recipe.progress
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
    """What was left out, in words, with the first row that a chat template rejected."""
    return counted(dropped) + (f" (the first: {refused})" if refused else "")


def sample_evaluator(
    ref_policy: Any, prompts: Sequence[str], encoder: TextEncoder, seed: int, most: int = 0
) -> SampleEvaluator | None:
    """An evaluator that draws answers to the shortest prompts, before training and now.

    Args:
        most: tokens of an answer at most; 0: SHOWN_TOKENS.

    Returns:
        The evaluator; None if no prompt leaves room for an answer.
    """
    some = list(dict.fromkeys(prompts[:64]))
    shown = sorted(some, key=lambda prompt: len(encoder.encode_prompt(prompt)))[:SHOWN]
    room = positions_of(ref_policy) - max(len(encoder.encode_prompt(prompt)) for prompt in shown)
    if room < 1:
        return None
    tokens = min(most or SHOWN_TOKENS, room)
    return SampleEvaluator(
        ref_policy, shown, encoder.encode_prompt, encoder.decode, encoder.stop_ids, tokens, seed
    )
