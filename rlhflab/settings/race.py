"""Settings of the race."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rlhflab.core.settings import Settings, knob, setting
from rlhflab.seeds import require_seed
from rlhflab.settings.common import BETA, LABEL_NOISE, PAIRS, SEED

UPDATES = {"dpo": 400, "ppo_learned": 200, "preferred": 100, "ppo": 200, "trpo": 60, "reinforce": 300}
"""The contestants, and their default numbers of updates."""

BUDGET = replace(
    PAIRS, low=100, at_least=32, at_most=100_000,
    help="Number of labelled pairs; takes effect at the next start.",
)  # fmt: skip
NOISE = replace(LABEL_NOISE, help="Fraction of swapped labels; takes effect at the next start.")


@dataclass(frozen=True, kw_only=True)
class RaceSettings(Settings):
    """Settings of a race: β can be changed at any time; the data's knobs take effect when a race starts."""

    beta: float = knob(1.0, BETA)
    pairs: int = knob(2000, BUDGET)
    label_noise: float = knob(0.0, NOISE)
    laps: int = setting(16, "Evaluations of every contestant", at_least=1)
    updates: Any = setting(None, "Contestant → its updates in the whole race; 0 excludes it", option=False)
    reward_updates: int = setting(300, "Updates of the reward model before the start", at_least=1)
    batch_size: int = setting(252, "Answers per iteration of the policy-gradient methods", at_least=1)
    seed: int = setting(0, SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_seed(self.seed)
        given: Mapping[str, int] = self.updates or {}
        unknown = set(given) - set(UPDATES)
        if unknown:
            raise ValueError(f"unknown contestant {min(unknown)!r}; known: {', '.join(UPDATES)}")

    def updates_of(self, name: str) -> int:
        """Updates of one contestant."""
        return {**UPDATES, **(self.updates or {})}[name]
