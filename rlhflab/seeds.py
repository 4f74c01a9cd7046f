"""Seeds: any reasonable whole number, such as a date with the time of day."""

from __future__ import annotations

LARGEST = 2**63 - 1
"""torch accepts twice as many, so that a fixed number can be added."""


def require_seed(seed: object) -> None:
    """Raise ValueError in one line if a seed is not a whole number from 0 to 2⁶³ − 1."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise ValueError(f"seed must be a whole number, got {seed!r}")
    if seed.__index__() < 0:
        raise ValueError(f"seed must be ≥ 0, got {seed}")
    if seed.__index__() > LARGEST:
        raise ValueError(f"seed must be ≤ {LARGEST}, got {seed}")


def seed_of_part(seed: int, part: int) -> int:
    """The seed of a numbered part of what `seed` generates: different for each part, and for neighbouring seeds.

    >>> seed_of_part(2, 5), seed_of_part(20261129123456, 5) < 2**64
    (2000011, True)
    """
    return (1_000_003 * seed + part) % 2**64


def for_numpy(seed: int) -> int:
    """A seed for numpy's older generators, which accept 32 bits.

    >>> for_numpy(7), for_numpy(20261129123456) < 2**32
    (7, True)
    """
    return seed % 2**32
