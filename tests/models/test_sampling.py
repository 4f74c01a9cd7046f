"""Sampling draws from the whole distribution: frequencies against the exact tree."""

import torch

from rlhflab.models.sampling import sample_answers
from rlhflab.models.tiny import new_tiny_model


def test_frequencies_agree_with_exact_probabilities_and_stops_end_answers(world):
    model = new_tiny_model(world.tokenizer, seed=5).eval()
    size = 20_000
    prompts = world.prompt_ids[:1].repeat(size, 1)
    answers, mask = sample_answers(
        model, prompts, 4, world.tree.stops.tolist(), 0, torch.Generator().manual_seed(0)
    )
    lengths = mask.sum(1)
    exact = world.logps(model)[0].exp()
    for length in range(1, 5):
        expected = exact[world.tree.lengths == length].sum().item()
        seen = (lengths == length).float().mean().item()
        assert abs(seen - expected) < 5 * (expected / size) ** 0.5
    stops = set(world.tree.stops.tolist())
    for row, length in zip(answers[:200].tolist(), lengths[:200].tolist(), strict=True):
        assert all(token not in stops for token in row[: length - 1])
        assert row[length - 1] in stops or length == 4


def test_the_same_seed_gives_the_same_answers(world):
    model = new_tiny_model(world.tokenizer, seed=5).eval()
    draws = [
        sample_answers(model, world.prompt_ids, 4, [1], 0, torch.Generator().manual_seed(7))[0]
        for _ in range(2)
    ]
    assert torch.equal(*draws)
