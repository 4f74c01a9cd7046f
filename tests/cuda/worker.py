"""Runs the trials of every algorithm on devices that are not there, from one to another; a JSON line for each route.

    python -m tests.cuda.worker FOLDER [NAME …]

A process of its own, since the virtual device must be there before the first backward pass.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.cuda import virtual

T4, A100 = (7, 5), (8, 0)
DEVICES: dict[str, tuple[str, tuple[int, int]]] = {
    "cpu": ("cpu", T4), "T4": ("cuda", T4), "A100": ("cuda", A100)
}  # fmt: skip
TINY_ROUTES = (("T4", "T4"), ("cpu", "T4"))
REAL_ROUTES = (*TINY_ROUTES, ("A100", "T4"), ("A100", "cpu"))


CLOSE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 2e-2}
"""How far a loss may be off, as a share, where another device rounds otherwise; measured were 2e-4 and 7e-3."""


def routes(config: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """From which device to which: what has no 16 bits is the same on every GPU."""
    return REAL_ROUTES if "model" in config else TINY_ROUTES


def main(folder: Path, names: list[str]) -> None:
    """Run the trials of these names, or all."""
    from rlhflab.recipes import texts
    from rlhflab.recipes.reference import tiny_reference
    from rlhflab.recipes.worlds import world_named

    tiny_reference(world_named("micro"), progress=False)  # trained by torch itself where there is none yet
    texts.SHOWN_TOKENS = 8  # sample answers took half of the time, and each token goes the same way
    virtual.install()
    from rlhflab.recipes.trials import trials

    for name, config in trials(folder).items():
        if names and name not in names:
            continue
        begun: dict[str, Any] = {}
        for before, after in routes(config):
            started = time.perf_counter()
            result: dict[str, Any] = {"name": name, "route": [before, after]}
            try:
                if before not in begun:
                    begun[before] = begin(built(config, before), folder / f"{name}-{before}.safetensors")
                result |= resume(built(config, after), *begun[before])
            except Exception as error:
                result |= {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
            print(json.dumps({**result, "seconds": time.perf_counter() - started}), flush=True)


def built(config: dict[str, Any], where: str) -> Any:
    from rlhflab.recipes import trials

    device, capability = DEVICES[where]
    virtual.pretend(capability)
    return trials.built(config, device)


def begin(algorithm: Any, path: Path) -> tuple[Path, list[Any], dict[str, Any]]:
    """Two updates, a checkpoint, and two more: the checkpoint, their records, and where it was computed."""
    from rlhflab.runs.checkpoint import write_checkpoint

    next(algorithm), next(algorithm)
    write_checkpoint(path, algorithm.state_dict(), algorithm.step)
    return path, [next(algorithm), next(algorithm)], algorithm.arithmetic()


def resume(algorithm: Any, path: Path, wanted: list[Any], before: dict[str, Any]) -> dict[str, Any]:
    """Go on from the checkpoint: how that compares with the run that was not interrupted, and what is said of it."""
    from rlhflab.runs.checkpoint import read_checkpoint

    _, state = read_checkpoint(path)
    algorithm.load_state_dict(state)
    found = [next(algorithm), next(algorithm)]
    pairs = [(one.scalars, other.scalars) for one, other in zip(found, wanted, strict=True)]
    return {
        "before": before, "after": algorithm.arithmetic(), "note": algorithm.notes.get("resumed", ""),
        "same": [record.to_dict() for record in found] == [record.to_dict() for record in wanted],
        "steps": [record.step for record in found], "scalars": pairs,
    }  # fmt: skip


def differences(config: Mapping[str, Any], line: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with how a trial of these settings went on, see `resume`."""
    if line["steps"] != [3, 4]:
        yield f"goes on with steps {line['steps']}"
    exact = line["before"] == line["after"]
    if exact and not line["same"]:
        yield "other records with the same arithmetic"
    said = all(value in line["note"] for each in (line["before"], line["after"]) for value in each.values())
    if (line["note"] == "") != exact or not (exact or said):
        yield f"its note is {line['note']!r}"
    if config["algorithm"] in (
        "pretrain",
        "sft",
        "reward",
        "dpo",
    ):  # others act: another rounding, another answer
        worst = max(CLOSE[line[side]["precision"]] for side in ("before", "after"))
        for scalars, wanted in line["scalars"]:
            if abs(scalars["loss"] - wanted["loss"]) > worst * abs(wanted["loss"]):
                yield f"loss {scalars['loss']}, not {wanted['loss']}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
