"""Runs the trials of every algorithm on devices that are not there, from one to another; a JSON line for each route.

    python -m tests.cuda.worker FOLDER [NAME …]

A process of its own, since the virtual device must be there before the first backward pass.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.cuda import virtual

T4, A100 = (7, 5), (8, 0)
DEVICES: dict[str, tuple[str, tuple[int, int]]] = {
    "cpu": ("cpu", T4), "T4": ("cuda", T4), "A100": ("cuda", A100)
}  # fmt: skip
TINY_ROUTES = (("T4", "T4"), ("cpu", "T4"))
REAL_ROUTES = (*TINY_ROUTES, ("A100", "T4"), ("A100", "cpu"))


def routes(config: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """From which device to which: what has no 16 bits is the same on every GPU."""
    return REAL_ROUTES if "model" in config else TINY_ROUTES


def main(folder: Path, names: list[str]) -> None:
    """Run the trials of these names, or all."""
    from rlhflab.algorithms.build import micro_world
    from rlhflab.algorithms.reference import tiny_reference

    tiny_reference(micro_world(), progress=False)  # trained by torch itself where there is none yet
    virtual.install()
    from rlhflab.algorithms.trials import trials

    for name, config in trials(folder).items():
        if names and name not in names:
            continue
        begun: dict[str, Any] = {}
        for before, after in routes(config):
            started = time.perf_counter()
            result: dict[str, Any] = {"name": name, "route": [before, after]}
            try:
                if before not in begun:
                    begun[before] = begin(config, before, folder / f"{name}-{before}.safetensors")
                result |= resume(config, after, *begun[before])
            except Exception as error:
                result |= {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
            print(json.dumps({**result, "seconds": time.perf_counter() - started}), flush=True)


def built(config: dict[str, Any], where: str) -> Any:
    from rlhflab.algorithms import trials

    device, capability = DEVICES[where]
    virtual.pretend(capability)
    return trials.built(config, device)


def begin(config: dict[str, Any], where: str, path: Path) -> tuple[Path, list[Any], dict[str, Any]]:
    """Two updates, a checkpoint, and two more: the checkpoint, their records, and where it was computed."""
    from rlhflab.runs.checkpoint import write_checkpoint

    algorithm = built(config, where)
    next(algorithm), next(algorithm)
    write_checkpoint(path, algorithm.state_dict(), algorithm.step)
    return path, [next(algorithm), next(algorithm)], algorithm.arithmetic()


def resume(
    config: dict[str, Any], where: str, path: Path, wanted: list[Any], before: dict[str, Any]
) -> dict[str, Any]:
    """Go on from the checkpoint: what differs from the run that was not interrupted, and what is said of it."""
    from rlhflab.runs.checkpoint import read_checkpoint

    algorithm = built(config, where)
    _, state = read_checkpoint(path)
    algorithm.load_state_dict(state)
    found = [next(algorithm), next(algorithm)]
    pairs = [(one.scalars, other.scalars) for one, other in zip(found, wanted, strict=True)]
    return {
        "before": before, "after": algorithm.arithmetic(), "note": algorithm.notes.get("resumed", ""),
        "same": [record.to_dict() for record in found] == [record.to_dict() for record in wanted],
        "steps": [record.step for record in found], "scalars": pairs,
    }  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
