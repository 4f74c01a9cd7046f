"""Two engines, one record: our own readable loop, or TRL's trainers driven step by step."""

from __future__ import annotations

from typing import Any

from rlhflab.engines.versions import require_trl
from rlhflab.models.loading import above_float16

ENGINES = ("lab", "trl")


def engine_dtype(engine: str, model: str, dtype: str, device: str) -> str:
    """Return the precision to load a real model in: with engine trl, auto means float32 instead of float16.

    Raises:
        ValueError: float16 with engine trl: small gradients would be 0, as its loss is not scaled like ours.
    """
    if engine != "trl" or model == "tiny":
        return dtype
    if dtype == "float16":
        raise ValueError("engine trl does not scale its loss for float16: give --dtype float32 or bfloat16")
    return above_float16(dtype, device)


def engine_class(engine: str, lab: type[Any]) -> type[Any]:
    """Return the class that runs an algorithm in `engine`; it takes the same arguments as our own class.

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
    from rlhflab.engines.trl import IN_TRL

    return IN_TRL[lab]
