"""Which labels of a file are swapped: by their own seed, and by nothing else."""

from types import SimpleNamespace

import pytest
import torch

from rlhflab.data.encoding import PairTokens
from rlhflab.data.ranking_source import LongRankings, TextRankings
from rlhflab.worlds.preferences import PreferencePair

PAIRS = [PreferencePair(f"x{n}", f"good {n}", f"bad {n}") for n in range(40)]
TOKENS = PairTokens(
    [[n] for n in range(40)], [[50, 60 + n] for n in range(40)], [[51, 60 + n] for n in range(40)]
)


def short(seed):
    sides = {pair.chosen: row for pair, row in zip(PAIRS, TOKENS.chosen, strict=True)}
    sides |= {pair.rejected: row for pair, row in zip(PAIRS, TOKENS.rejected, strict=True)}
    return TextRankings(PAIRS, lambda text: [int(text[1:])], sides.__getitem__, torch.device("cpu"), seed)


def long(seed):
    config = SimpleNamespace(model_type="unknown", get_text_config=lambda: config)
    return LongRankings(PAIRS, TOKENS, SimpleNamespace(device=torch.device("cpu"), config=config), seed)


@pytest.mark.parametrize("source", [short, long])
@pytest.mark.parametrize("seed", [0, 7])
def test_a_swapped_label_is_swapped_in_tokens_texts_and_ids(source, seed):
    before = torch.get_rng_state()
    rankings, ids = source(seed), torch.tensor([3, 30, 11, 5, 39, 0])
    assert torch.equal(torch.get_rng_state(), before) and (rankings.size, rankings.ranked) == (40, 2)
    flipped = torch.rand(40, generator=torch.Generator().manual_seed(seed))[ids] < 0.4
    assert flipped.any() and not flipped.all()
    rows = rankings.take(ids, 0.4)
    assert torch.equal(rows.flipped, flipped) and rows.ids == (2 * ids + flipped).tolist()
    first, second = rows.answers.input_ids.chunk(2)
    for at, (index, flip) in enumerate(zip(ids.tolist(), flipped.tolist(), strict=True)):
        sides = [[index, 50, 60 + index], [index, 51, 60 + index]][:: -1 if flip else 1]
        assert [first[at].tolist(), second[at].tolist()] == sides
        words = [f"good {index}", f"bad {index}"][:: -1 if flip else 1]
        assert [rows.texts[at].chosen, rows.texts[at].rejected] == words
    assert not rankings.take(ids, 0.0).flipped.any()
    part = rankings.take(ids, 0.4, slice(2, 4))  # of one process of several
    assert len(part.answers.input_ids) == 4 and len(part.ids) == 6
    assert torch.equal(part.answers.input_ids, torch.cat([first[2:4], second[2:4]]))
