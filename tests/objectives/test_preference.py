"""Bradley–Terry and Plackett–Luce against enumeration and each other."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhflab.objectives.preference import (
    bradley_terry_loss,
    label_pairs,
    plackett_luce_loss,
    preference_probability,
    rank_correlation,
)

SCORES = st.lists(st.floats(-5, 5), min_size=2, max_size=4)


@given(SCORES)
def test_plackett_luce_sums_to_one_over_all_rankings(scores):
    rankings = torch.tensor([list(order) for order in itertools.permutations(scores)], dtype=torch.float64)
    assert (-plackett_luce_loss(rankings)).exp().sum().item() == pytest.approx(1.0)


@given(st.floats(-9, 9), st.floats(-9, 9))
def test_plackett_luce_of_two_is_bradley_terry(first, second):
    pair = torch.tensor([[first, second]], dtype=torch.float64)
    torch.testing.assert_close(plackett_luce_loss(pair), bradley_terry_loss(pair[:, 0], pair[:, 1]))


@given(SCORES, st.floats(-50, 50))
def test_a_shift_of_all_scores_changes_nothing(scores, shift):
    ranked = torch.tensor([scores], dtype=torch.float64)
    torch.testing.assert_close(plackett_luce_loss(ranked), plackett_luce_loss(ranked + shift))


def test_labels_follow_bradley_terry_and_the_noise():
    generator = torch.Generator().manual_seed(0)
    size = 200_000
    first_chosen, flipped = label_pairs(torch.full((size,), 1.0), torch.zeros(size), 0.1, generator)
    clean = 1 / (1 + math.exp(-1.0))
    sigma = 0.5 / math.sqrt(size)
    assert flipped.float().mean().item() == pytest.approx(0.1, abs=4 * sigma)
    assert first_chosen.float().mean().item() == pytest.approx(0.9 * clean + 0.1 * (1 - clean), abs=4 * sigma)
    assert (first_chosen ^ flipped).float().mean().item() == pytest.approx(clean, abs=4 * sigma)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"label_noise must be in \[0, 0.5\], got 0.7"):
        label_pairs(torch.zeros(1), torch.zeros(1), 0.7, torch.Generator())
    with pytest.raises(ValueError, match=r"K ≥ 2\], got \(3, 1\)"):
        plackett_luce_loss(torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"chosen_scores \(2,\), rejected_scores \(3,\)"):
        preference_probability(torch.zeros(2), torch.zeros(3))


def test_rank_correlation_agrees_with_scipy_ties_included():
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, 6, (4, 40), generator=generator).double()
    second = first + torch.randint(0, 9, (4, 40), generator=generator)
    found = rank_correlation(first, second)
    for row in range(4):
        assert found[row] == pytest.approx(stats.spearmanr(first[row], second[row]).statistic)
    assert rank_correlation(torch.ones(3), torch.arange(3.0)) == 0
