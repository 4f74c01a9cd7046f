"""rlhflab: a laboratory for reinforcement learning from human feedback.

Importing the package is quick; the names below load what they need when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhflab.algorithms.build import build_dpo
    from rlhflab.algorithms.dpo import DPO, DPOConfig, DPOKnobs
    from rlhflab.live.board import Board
    from rlhflab.runs.store import Run
    from rlhflab.worlds.micro import MicroWorld

__version__ = "0.1.0"
__all__ = ["MicroWorld", "build_dpo", "DPO", "DPOConfig", "DPOKnobs", "Run", "Board"]

_HOMES = {
    "MicroWorld": "rlhflab.worlds.micro",
    "build_dpo": "rlhflab.algorithms.build",
    "DPO": "rlhflab.algorithms.dpo",
    "DPOConfig": "rlhflab.algorithms.dpo",
    "DPOKnobs": "rlhflab.algorithms.dpo",
    "Run": "rlhflab.runs.store",
    "Board": "rlhflab.live.board",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rlhflab' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
