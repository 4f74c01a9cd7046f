"""Put a race together from plain settings."""

from __future__ import annotations

from collections.abc import Mapping

from rlhflab.algorithms.room import fits
from rlhflab.models.devices import choose_device
from rlhflab.recipes.build import view_from, world_named
from rlhflab.recipes.race import Race, RaceConfig, RaceKnobs
from rlhflab.recipes.reference import tiny_reference


@fits
def build_race(
    world: str = "micro",
    beta: float = 1.0,
    pairs: int = 2000,
    label_noise: float = 0.0,
    laps: int = 16,
    updates: Mapping[str, int] | None = None,
    reward_updates: int = 300,
    seed: int = 0,
    device: str = "auto",
) -> Race:
    """Return a race, ready to iterate.

    Args:
        world: "micro", or "reviews": standings are estimates then, each lap takes a second a contestant.
        beta: KL strength > 0.
        pairs: labelled pairs that DPO, preferred fine-tuning and the reward model see, ≥ 32.
        label_noise: probability in [0, 0.5] that a label is swapped.
        laps, updates, reward_updates, seed: see `RaceConfig`.
        device: "auto", "cpu", "cuda" or "mps"; see `models.devices`.

    Raises:
        ValueError: a setting that makes no sense, in one line.
    """
    knobs = RaceKnobs(beta=beta, pairs=pairs, label_noise=label_noise)
    config = RaceConfig(laps=laps, updates=updates, reward_updates=reward_updates, seed=seed)
    lab = world_named(world)
    sft = tiny_reference(lab).to(choose_device(device, "tiny"))
    return Race(view_from(lab, sft), sft, config, knobs)
