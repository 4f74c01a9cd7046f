"""Seconds a step in one process and in two on one machine's cores, gloo between them, the same global batch.

Three ways: one process with one thread, one with two threads, two processes with one thread each. The tasks are the
micro world's at their default batches, DPO at 256 pairs, and DPO with LoRA on a GPT-2 of width 256 with random
weights, 8 pairs of about 100 tokens. Each round starts every way anew; what is compared are medians of the steps, and
of the losses that they agree.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, WARMUP, digits, emit, machine, median, parser, say, spread, time_algorithm

WAYS = {"one_1_thread": (1, 1), "one_2_threads": (1, 2), "two": (2, 1)}  # processes, threads


def tasks(folder: Path) -> dict[str, tuple[str, dict[str, Any], str]]:
    """Name → algorithm, its settings, and the scalar by which runs are held together."""
    real = {"model": str(folder / "model"), "world": str(folder / "pairs.jsonl"), "lora": True, "pairs": 64}
    return {
        "dpo_32": ("dpo", {}, "loss"),
        "dpo_256": ("dpo", {"batch_size": 256}, "loss"),
        "reward_64": ("reward", {"evaluate": False}, "loss"),
        "ppo_252": ("ppo", {}, "loss/value_avg"),
        "dpo_lora_8": ("dpo", real, "loss"),
    }


def prepare(folder: Path) -> None:
    """Write the random model and the pairs of texts."""
    from tests.real_models import TEXTS, write_model

    write_model(folder / "model", "gpt2", n_embd=256, n_layer=4)
    text = " ".join(TEXTS)
    rows = [
        {"prompt": text[n : n + 160], "chosen": text[40 + n : 130 + n], "rejected": text[90 + n : 170 + n]}
        for n in range(64)
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def work(folder: Path, steps: int) -> None:
    """Measure every task in this process, alone or one of several; the main one prints milliseconds and a loss."""
    import torch

    from rlhflab import processes, recipes

    processes.join("cpu")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    found = {}
    for name, (algorithm, settings, shown) in tasks(folder).items():
        common = {"steps": WARMUP + steps + 1, "evaluate_every": 10_000, "progress": False}
        run = recipes.recipe_class(algorithm)(**settings, **common).build()
        next(run)  # has an evaluation
        times, values = time_algorithm(run, WARMUP + steps - 1, shown)
        found[name] = [1000 * median(times[WARMUP - 1 :]), values[0]]
    if processes.is_main():
        print(json.dumps(found))
    processes.end(0)


def start(way: str, folder: Path, steps: int) -> dict[str, list[float]]:
    """One round of one way: `work` in new processes."""
    count, threads = WAYS[way]
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    )
    done = subprocess.run(
        [sys.executable, *launch, "-m", "benchmarks.processes", "--work", str(folder), "--steps", str(steps)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--work", type=Path, help="measure in this process; the folder of the model and the pairs"
    )
    options.add_argument("--steps", type=int, help="steps that are timed of every task")
    args = options.parse_args()
    steps = args.steps or (10 if args.quick else 30)
    if args.work:
        work(args.work, steps)
    about, rounds = machine(), 2 if args.quick else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        found: list[dict[str, dict[str, list[float]]]] = []
        for turn in range(rounds):
            order = [*WAYS][turn % 3 :] + [*WAYS][: turn % 3]
            found.append({way: start(way, folder, steps) for way in order})
            say(f"round {turn + 1} of {rounds}:", found[-1])
    figures = {
        task: {
            "ms_median": {way: spread([each[way][task][0] for each in found]) for way in WAYS},
            **{
                f"two_over_{way}": spread([each["two"][task][0] / each[way][task][0] for each in found])
                for way in ("one_1_thread", "one_2_threads")
            },
            "greatest_relative_difference_of_the_second_loss": max(
                digits(abs(each["two"][task][1] / each["one_1_thread"][task][1] - 1), 2) for each in found
            ),
        }
        for task in tasks(Path())
    }
    targets = [
        (f"{task}: two processes over one", figures[task]["two_over_one_1_thread"]["median"], 1.0)
        for task in ("dpo_256", "ppo_252", "dpo_lora_8")
    ]
    emit("processes", about, figures, targets)


if __name__ == "__main__":
    main()
