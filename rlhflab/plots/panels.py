"""The panels of a run: those of its algorithm, or general ones made from the contents of its records."""

from __future__ import annotations

import functools

from rlhflab.plots import panels_control
from rlhflab.plots.history import History
from rlhflab.plots.panel import Panel
from rlhflab.plots.panels_dpo import DPO_PANELS
from rlhflab.plots.panels_general import general_panels
from rlhflab.plots.panels_policy import PPO_PANELS, REINFORCE_PANELS, REJECTION_PANELS, TRPO_PANELS
from rlhflab.plots.panels_race import RACE_PANELS
from rlhflab.plots.panels_reward import REWARD_PANELS
from rlhflab.plots.panels_supervised import SUPERVISED_PANELS

PANELS: dict[str, tuple[Panel, ...]] = {
    "dpo": DPO_PANELS,
    "rejection": REJECTION_PANELS,
    "reinforce": REINFORCE_PANELS,
    "ppo": PPO_PANELS,
    "trpo": TRPO_PANELS,
    "reward": REWARD_PANELS,
    "sft": SUPERVISED_PANELS,
    "pretrain": SUPERVISED_PANELS,
    "supervised": SUPERVISED_PANELS,
    "race": RACE_PANELS,
    "reinforce-control": panels_control.REINFORCE_PANELS,
    "ppo-control": panels_control.PPO_PANELS,
    "trpo-control": panels_control.TRPO_PANELS,
}
"""Algorithm.name → its panels."""

_general = functools.lru_cache(maxsize=32)(general_panels)  # boards ask ten times a second


def panels_of(algorithm: str, history: History) -> tuple[Panel, ...]:
    """Return the panels of the algorithm of this name, or general ones for its history if it has none."""
    return PANELS.get(algorithm) or _general(tuple(history.names()), tuple(history.arrays()))


def stored_name(algorithm: str, history: History) -> str:
    """Return the name that an algorithm had while it ran, given the name in its run's configuration.

    There ppo may stand for PPO on a control problem, which calls itself ppo-control. Of the variants of a name, the one
    is returned whose panels the history fills best.
    """
    held = {*history.names(), *history.arrays()}

    def filled(name: str) -> int:
        return sum(not held.isdisjoint(line.series for line in panel.lines) for panel in PANELS[name])

    variants = [name for name in PANELS if algorithm and f"{name}-".startswith(f"{algorithm}-")]
    return max(variants, key=filled, default=algorithm)
