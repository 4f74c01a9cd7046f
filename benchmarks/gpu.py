"""For the day a GPU is at hand: do all algorithms train and resume on it, what do they need, how quick are they?

    python -m benchmarks.gpu            # 4 minutes; torch and transformers suffice, what else is missing is skipped
    python -m benchmarks.gpu --all      # then 4 bits and TRL side by side (benchmarks.qlora), and every lab on the GPU

The core: an update of every kind, a checkpoint and its resumption on the GPU, from the CPU, and from 16 bits to the
other 16 bits; LoRA training of random models of OPT-350m's, GPT-2's and Qwen2-0.5B's shape in float16 and in bfloat16,
with its peak of memory beside the estimate and the time of a step; the tiny model on the GPU and on the CPU, which is
the check of device "auto".
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, digits, emit, machine, parser, say

SECONDS = 240  # of the core
OTHER = {"float16": "bfloat16", "bfloat16": "float16"}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--all", action="store_true", help="also 4 bits, TRL side by side, and every lab")
    options.add_argument("--device", default="cuda", help="cpu: to see that the script works")
    options.add_argument("--batch", type=int, default=4, help="pairs a step of the larger models")
    options.add_argument("--length", type=int, default=512)
    args = options.parse_args()
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    began = time.perf_counter()
    about = machine()
    with contextlib.redirect_stdout(sys.stderr):
        from rlhflab.models.devices import choose_device
        from rlhflab.models.memory import device_words

        device = choose_device(args.device)
        figures: dict[str, Any] = {"device": device_words(device)}
        say(figures["device"])
        with tempfile.TemporaryDirectory() as folder:
            figures["resumed"] = resumptions(args.device, Path(folder))
            figures["tiny"] = tiny(device)
            figures["lora"] = larger(args, device, Path(folder), began)
        figures["core_seconds"] = round(time.perf_counter() - began)
        if args.all:
            figures |= rest(args)
    failed = [name for name, found in figures["resumed"].items() if found not in ("exact", "close")]
    over = [row["peak_over_estimate"] for row in figures["lora"].values() if "peak_over_estimate" in row]
    emit("gpu", about, figures, [
        ("trials that fail or go on otherwise", len(failed), 0),
        ("peak memory of LoRA training over the estimate, the largest", max(over, default=None), 1),
        ("seconds of the core", figures["core_seconds"], SECONDS),
    ])  # fmt: skip


def resumptions(device: str, folder: Path) -> dict[str, str]:
    """Every trial and route → "exact", "close" where another arithmetic must differ, or what is wrong."""
    from rlhflab.recipes.trials import built, trials
    from tests.cuda.worker import begin, differences, resume

    found = {}
    for name, config in trials(folder).items():
        starts: list[tuple[str, dict[str, Any]]] = [(device, {}), ("cpu", {})]
        if config.get("lora") and config["algorithm"] != "trpo" and "engine" not in config:
            starts += [(device, {"dtype": dtype}) for dtype in OTHER]
        for where, how in starts:
            route = f"{name}, {how.get('dtype', where)} to {OTHER.get(how.get('dtype', ''), device)}"
            try:
                begun = begin(built({**config, **how}, where), folder / "checkpoint.safetensors")
                after = {"dtype": OTHER[how["dtype"]]} if how else {}
                line = resume(built({**config, **after}, device), *begun)
                wrong = [*differences(config, line)]
                found[route] = wrong[0] if wrong else "exact" if line["same"] else "close"
            except Exception as error:  # to see what fails on a GPU is what this is for
                found[route] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            say(f"{route}: {found[route]}")
    return found


def tiny(device: Any) -> dict[str, Any]:
    """The tiny model on the GPU over the CPU: DPO with its evaluation, as "auto" decides, and an iteration of PPO."""
    from rlhflab.recipes.trials import built, measure_speed

    if device.type == "cpu":
        return {"skipped": "there is no GPU to compare with"}
    found: dict[str, Any] = {"dpo_gpu_speed_over_cpu": digits(measure_speed(device))}
    for where in ("cpu", device.type):
        run = built({"algorithm": "ppo", "world": "micro", "steps": 40, "evaluate_every": 40}, where)
        next(run)
        found[f"ppo_ms_{where}"] = digits(1000 * statistics.median(timed(run, device) for _ in range(20)))
    say(f"tiny model: {found}")
    return found


def timed(run: Any, device: Any) -> float:
    import torch

    began = time.perf_counter()
    next(run)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def larger(args: argparse.Namespace, device: Any, folder: Path, began: float) -> dict[str, Any]:
    """Shape and precision → peak memory and estimate in MB, their ratio, and the median time of a DPO step."""
    if missing := [name for name in ("peft", "accelerate") if find_spec(name) is None]:
        return {"skipped": {"why": f"{missing[0]} is not installed"}}
    from benchmarks.qlora import SHAPES, write_models

    found: dict[str, Any] = {}
    names = ["gpt2", "opt-350m", "qwen2-0.5b"]
    for name in names[:1] if args.quick else names:
        assert name in SHAPES
        if time.perf_counter() - began > SECONDS - 30 and not args.all:
            found[name] = {"skipped": "no time left in the core: give --all"}
            say(f"{name}: {found[name]['skipped']}")
            continue
        write_models(folder, [name])
        for dtype in OTHER:
            found[f"{name}, {dtype}"] = row = lora_case(args, device, folder / name, dtype)
            say(f"{name}, {dtype}: {row}")
    return found


def lora_case(args: argparse.Namespace, device: Any, folder: Path, dtype: str) -> dict[str, Any]:
    import torch

    from benchmarks.qlora import WARMUP, Peak, token_pairs, train_ours
    from rlhflab.models.loading import LoadSettings, expected_memory
    from rlhflab.oom import out_of_memory

    given = argparse.Namespace(steps=4 if args.quick else 10, batch=args.batch, length=args.length)
    settings = LoadSettings(
        lora=True, dtype=dtype, rows=2 * args.batch, max_length=args.length, device=args.device
    )
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        estimate = expected_memory(str(folder), settings).total / 1e6
        tokens = token_pairs(given.batch * (given.steps + WARMUP), given.length)
        result = train_ours("dpo", str(folder), settings, tokens, given, "ours", Peak(device))
    except Exception as error:
        known = out_of_memory(error, "here")
        return {"failed": " ".join(str(known or error).split())[:300]}
    return {
        "peak_mb": digits(result["megabytes"]), "estimate_mb": digits(estimate),
        "peak_over_estimate": digits(result["megabytes"] / estimate),
        "step_ms": digits(1000 * statistics.median(result["seconds"])),
    }  # fmt: skip


def rest(args: argparse.Namespace) -> dict[str, Any]:
    """4 bits and TRL beside ours, and the labs; what is not installed is skipped with a line."""
    found: dict[str, Any] = {}
    if missing := [name for name in ("trl", "bitsandbytes", "peft") if find_spec(name) is None]:
        found["qlora"] = {"skipped": f"{missing[0]} is not installed"}
    else:
        quick = ["--quick"] if args.quick else []
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.qlora", *quick], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        lines = done.stdout.splitlines()
        found["qlora"] = json.loads(lines[-1]) if lines else {"failed": f"exit code {done.returncode}"}
    if missing := [name for name in ("nbclient", "nbformat", "ipykernel") if find_spec(name) is None]:
        found["labs"] = {"skipped": f"{missing[0]} is not installed"}
    else:
        found["labs"] = labs(args.device)
    return found


def labs(device: str) -> dict[str, Any]:
    """Lab → the cells that failed, each with its error, and seconds; whole trainings, nothing cut."""
    from tests.cuda.labs import failures

    os.environ |= {"RLHFLAB_DEVICE": device, "PYTHONPATH": str(ROOT)}
    found = {}
    for lab in sorted((ROOT / "labs").glob("[0-9]*.ipynb")):
        began = time.perf_counter()
        failed = {str(index): lines[0] for index, lines in failures(lab, first="").items()}
        found[lab.name] = {"failed": failed, "seconds": round(time.perf_counter() - began)}
        say(f"{lab.name}: {found[lab.name]}")
    return found


if __name__ == "__main__":
    main()
