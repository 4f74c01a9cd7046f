"""Two engines, one record: our own readable loop, or TRL's trainers driven step by step.

The versions of TRL differ in what decides which of them are supported: from 1.16 on the trainers' forward returns the
answers' log-probabilities, on a CPU too, and they are read off for the record. 1.15.0 does so where there is triton,
and fails on a CPU; before that the forward returned logits.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

from rlhflab import processes
from rlhflab.models.loading import above_float16

ENGINES = ("lab", "trl")
TRL_VERSIONS = ">=1.16,<2"
"""The versions of TRL that engine "trl" is made for (it is tested with 1.16); pyproject.toml's extra says the same."""


class UnsupportedTRL(ImportError, ValueError):
    """TRL is missing or of a version that is not supported; the message says in one line what mends it."""


def require_trl() -> None:
    """Raise UnsupportedTRL unless a supported version is installed; TRL itself is not imported.

    Raise ValueError in one of several processes: a trainer would share a batch out that is shared out already.
    """
    if processes.launched() > 1:
        raise ValueError("engine trl trains in one process; for several use engine lab")
    from packaging.specifiers import SpecifierSet

    fix = f'python -m pip install "trl{TRL_VERSIONS}"'
    try:
        found = metadata.version("trl")
    except metadata.PackageNotFoundError:
        raise UnsupportedTRL(f"engine trl needs TRL, which is not installed: {fix}") from None
    if not SpecifierSet(TRL_VERSIONS).contains(found, prereleases=True):
        raise UnsupportedTRL(f"engine trl needs trl{TRL_VERSIONS}, but {found} is installed: {fix}")


def require_pairs(ranked: int) -> None:
    """Raise ValueError where rankings are longer than what TRL's RewardTrainer takes."""
    if ranked != 2:
        raise ValueError(f"engine trl takes pairs, so ranked must be 2, got {ranked}")


def engine_dtype(engine: str, model: str, dtype: str, device: str) -> str:
    """Return the precision a real model is loaded in: with engine trl auto is float32 where it would be float16.

    Raises:
        ValueError: float16 with engine trl: small gradients would be 0, for its loss is not scaled as ours is.
    """
    if engine != "trl" or model == "tiny":
        return dtype
    if dtype == "float16":
        raise ValueError("engine trl does not scale its loss for float16: give --dtype float32 or bfloat16")
    return above_float16(dtype, device)


def engine_class(engine: str, lab: type[Any]) -> type[Any]:
    """Return the class that runs an algorithm in `engine`; it takes the same arguments as that of our own engine.

    Args:
        engine: "lab" or "trl".
        lab: our own class: `DPO`, `RewardModelling` or `Supervised`.

    Raises:
        ValueError: unknown engine, several processes, or TRL is missing or not supported, in one line.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if engine == "lab":
        return lab
    require_trl()
    from rlhflab.algorithms.trl import IN_TRL

    return IN_TRL[lab]
