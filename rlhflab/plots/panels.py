"""Which panels a board shows: by the algorithm's name, or by what a stored run's records hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhflab.plots import panels_control
from rlhflab.plots.panel import Panel
from rlhflab.plots.panels_dpo import DPO_PANELS
from rlhflab.plots.panels_policy import PPO_PANELS, REINFORCE_PANELS, TRPO_PANELS
from rlhflab.plots.panels_race import RACE_PANELS
from rlhflab.plots.panels_reward import REWARD_PANELS
from rlhflab.plots.panels_supervised import SUPERVISED_PANELS

PANELS: dict[str, tuple[Panel, ...]] = {
    "dpo": DPO_PANELS,
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
"""Algorithm.name → its panels; also the name of a stored run's builder, and that of the knobs."""


def best_fit(data: Mapping[str, Any], algorithm: str = "") -> str:
    """Return the name of the algorithm most of whose panels the frame `data` can fill.

    Args:
        data: a frame.
        algorithm: its name as a run's configuration has it, where it is known: "ppo" may be ppo-control.
    """
    names = [name for name in PANELS if name == algorithm or name.startswith(f"{algorithm}-")] or PANELS
    return max(names, key=lambda name: sum(panel.shown_by(data) for panel in PANELS[name]))
