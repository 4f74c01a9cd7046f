"""Which numbers are seeds."""

import pytest

from rlhflab.seeds import for_numpy, require_seed, seed_of_part


def test_whole_numbers_from_0_to_2_to_the_63_are_seeds_and_others_are_not():
    for seed in (0, 20261129123456, 2**63 - 1):
        require_seed(seed)
    for seed, says in (
        (-1, "seed must be ≥ 0, got -1"), (2**63, f"seed must be ≤ {2**63 - 1}, got {2**63}"),
        (1.0, "seed must be a whole number, got 1.0"), (True, "seed must be a whole number, got True"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{says}$"):
            require_seed(seed)


def test_parts_have_seeds_of_their_own_that_fit():
    seeds = {seed_of_part(seed, part) for seed in range(5) for part in range(100)}
    assert len(seeds) == 500 and seed_of_part(2**63 - 1, 7) < 2**64
    assert for_numpy(2**32 + 5) == 5
