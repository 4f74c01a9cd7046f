"""What the benchmarks share: the machine's description, the JSON line, medians, ways of doing the same in turns,
TRL's trainers step by step, a real JupyterLab with Chromium.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.browser.jupyter import FLAGS, KERNEL_READY, find_chromium, lab_server
from tests.browser.jupyter import notebook as code_cells

ROOT = Path(__file__).parents[1]
WARMUP = 5  # first steps of each turn, left out
AGREED = 20  # first steps whose losses are compared

Timed = tuple[list[float], list[float]]  # seconds a step, and what a step's loss was (or nothing)


def say(*words: object) -> None:
    """Progress, on stderr: stdout is for the JSON line alone."""
    print(*words, file=sys.stderr, flush=True)


def parser(purpose: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option every benchmark has."""
    options = argparse.ArgumentParser(description=(purpose or "").partition("\n")[0])
    options.add_argument("--quick", action="store_true", help="fewer repeats: to see that it works")
    return options


def machine() -> dict[str, Any]:
    """Describe the machine and how busy it is now; call it before any work."""
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    packages = ("torch", "transformers", "trl", "plotly", "ipywidgets", "anywidget", "jupyterlab")
    return {
        "cpu": model or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: found for name in packages if (found := _version(name))},
    }


def _version(package: str) -> str:
    with contextlib.suppress(Exception):
        return version(package)
    return ""


def emit(benchmark: str, machine: dict[str, Any], figures: dict[str, Any], targets: Sequence[Any]) -> None:
    """Print the JSON line; targets are (what, figure, limit): met where figure ≤ limit."""
    judged = [
        {"target": what, "figure": figure, "limit": limit, "met": figure is not None and figure <= limit}
        for what, figure, limit in targets
    ]
    for row in judged:
        say(
            "met   " if row["met"] else "MISSED", f"{row['target']}: {row['figure']} (at most {row['limit']})"
        )
    line = {"benchmark": benchmark, **figures, "targets": judged, "machine": machine}
    print(json.dumps(line, ensure_ascii=False, allow_nan=False), flush=True)


def digits(value: float, count: int = 3) -> float:
    """Return `value` with `count` significant digits."""
    return float(f"{value:.{count}g}")


def median(values: Sequence[float]) -> float:
    return digits(statistics.median(values))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median of repeats with the least and the greatest."""
    return {"median": median(values), "least": digits(min(values)), "greatest": digits(max(values))}


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50 and p95 of samples."""
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {"p50": median(ordered), "p95": digits(p95), "samples": len(ordered)}


class Turns:
    """Ways of doing the same, timed in turns: a round runs each once, so that a busy moment hits all alike.

    Args:
        ways: name → a call that does steps and returns their times and losses.
        rounds: how often, after one round that warms up; the order rotates.
        title: stands before the progress.
    """

    def __init__(self, ways: Mapping[str, Callable[[], Timed]], rounds: int, title: str) -> None:
        self.typical: dict[str, list[float]] = {name: [] for name in ways}  # median ms a step, by round
        self.mean: dict[str, list[float]] = {name: [] for name in ways}
        self.losses: dict[str, list[float]] = {}
        for turn in range(rounds + 1):
            for name in [*ways][turn % len(ways) :] + [*ways][: turn % len(ways)]:
                times, self.losses[name] = ways[name]()
                if turn:
                    self.typical[name].append(1000 * statistics.median(times[WARMUP:]))
                    self.mean[name].append(1000 * statistics.fmean(times[WARMUP:]))
            last = {name: round(values[-1], 2) for name, values in self.typical.items() if values}
            say(f"{title}, round {turn} of {rounds}: ms a step {last or 'warm-up'}")

    def over(self, name: str, other: str, mean: bool = False) -> dict[str, float]:
        """Ratios of two ways' medians (or means) in the same round."""
        found = self.mean if mean else self.typical
        return spread([a / b for a, b in zip(found[name], found[other], strict=True)])

    def apart(self, other: str) -> dict[str, float]:
        """Greatest difference of the first losses from those of `other`."""
        base = self.losses[other][:AGREED]
        return {
            name: digits(max(abs(a - b) for a, b in zip(values[:AGREED], base, strict=True)), 2)
            for name, values in self.losses.items()
            if name != other
        }


def time_algorithm(algorithm: Any, steps: int, shown: str = "loss") -> Timed:
    """Seconds of each of our algorithm's next steps, and a scalar of their records."""
    times, values = [], []
    for _ in range(steps):
        began = time.perf_counter()
        record = next(algorithm)
        times.append(time.perf_counter() - began)
        values.append(record.scalars[shown])
    return times, values


def offline_with(threads: int) -> None:
    """Set the number of torch threads of this process; nothing here asks a hub."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(threads)


def measure_or_start(
    options: argparse.ArgumentParser, module: str, measure: Callable[[argparse.Namespace], dict[str, Any]]
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """One process a number of torch threads: return the options and each process's result.

    A process started with --threads measures, prints its result and ends.
    """
    options.add_argument(
        "--threads", type=int, help="measure in this process with so many torch threads, no more"
    )
    args = options.parse_args()
    if args.threads:
        with contextlib.redirect_stdout(sys.stderr):
            offline_with(args.threads)
            result = measure(args)
        print(json.dumps(result))
        raise SystemExit
    loops = {}
    for threads in (1, 2):
        done = subprocess.run(
            [sys.executable, "-m", module, *sys.argv[1:], "--threads", str(threads)],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
        loops[f"threads_{threads}"] = json.loads(done.stdout.splitlines()[-1])
    return args, loops


TRL_LEAN: dict[str, Any] = {
    "gradient_checkpointing": False, "optim": "adamw_torch_fused", "logging_strategy": "no", "save_strategy": "no",
    "disable_tqdm": True, "dataloader_num_workers": 0, "dataloader_pin_memory": False,
}  # fmt: skip


def step_figures(turns: Turns) -> dict[str, Any]:
    """Figures of turns that have bare, ours, trl_default and trl_best among them."""
    return {
        "ms_median": {name: spread(values) for name, values in turns.typical.items()},
        "ms_mean": {name: median(values) for name, values in turns.mean.items()},
        "over_bare": {name: turns.over(name, "bare") for name in turns.typical if name != "bare"},
        "ours_over_trl_default": turns.over("ours", "trl_default"),
        "ours_over_trl_best": turns.over("ours", "trl_best"),
        "greatest_loss_difference_from_bare": turns.apart("bare"),
    }


def step_targets(loops: Mapping[str, dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Targets of each process's `step_figures`."""
    targets = []
    for name, loop in loops.items():
        targets += [
            (f"{name}: ours over TRL at its defaults", loop["ours_over_trl_default"]["median"], 0.5),
            (f"{name}: ours over TRL at its best", loop["ours_over_trl_best"]["median"], 0.999),
            (f"{name}: ours over the bare loop", loop["over_bare"]["ours"]["median"], 1.1),
            (f"{name}: losses agree", max(loop["greatest_loss_difference_from_bare"].values()), 1e-4),
        ]
    return targets


def time_trainer(
    trainer: type[Any],
    config: type[Any],
    rows: list[dict[str, list[int]]],
    settings: Mapping[str, Any],
    tokenizer: Any = None,
    begin: Callable[[], None] | None = None,
    **models: Any,
) -> Timed:
    """TRL's own train() on tokenised rows in their order.

    A step is from one on_step_begin to the next, data loading and logging included. TRL is left at its defaults but
    for `settings` and what must be: the order of the rows, a constant learning rate, no bf16 on a CPU, no trackers.

    Args:
        trainer, config: TRL's classes.
        rows: in TRL's columns.
        settings: of `config`.
        tokenizer: by default the micro world's; it says which token pads.
        begin: called before the first step.
        models: arguments of `trainer`.
    """
    from datasets import Dataset
    from transformers import TrainerCallback

    starts: list[float] = []
    losses: list[Any] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if begin is not None and not starts:
                begin()
            starts.append(time.perf_counter())

    class Tokenised(trainer):
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            losses.append(loss.detach())
            return loss

    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w", encoding="utf-8") as log:
        must = {"lr_scheduler_type": "constant", "train_sampling_strategy": "sequential", "report_to": "none"}
        arguments = config(output_dir=folder, **{**must, "use_cpu": True, "bf16": False, **settings})
        if tokenizer is None:
            from rlhflab.recipes.worlds import world_named

            tokenizer = world_named("micro").tokenizer
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            Tokenised(
                args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
                callbacks=[Clock()], **models,
            ).train()  # fmt: skip
    return [b - a for a, b in pairwise(starts)], [float(loss) for loss in losses]


def poll(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until `condition()` is true and return its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise TimeoutError(f"{what}: not within {seconds:g} s")


@contextlib.contextmanager
def chromium(width: int = 1500, height: int = 1100) -> Iterator[Any]:
    """Yield a page of a headless Chromium; its errors go to stderr."""
    from playwright.sync_api import sync_playwright

    path = find_chromium()
    if path is None:
        raise RuntimeError("no Chromium found: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("pageerror", lambda error: say("page error:", error))
        try:
            yield page
        finally:
            browser.close()


@contextlib.contextmanager
def notebook(folder: Path, *cells: str) -> Iterator[Any]:
    """Open a notebook of `cells` in JupyterLab in Chromium and run them all; yields the page."""
    (folder / "benchmark.ipynb").write_text(json.dumps(code_cells(*cells)), encoding="utf-8")
    with lab_server(folder) as url, chromium() as page:
        page.goto(f"{url}/lab/tree/benchmark.ipynb?reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
        poll(lambda: page.evaluate(KERNEL_READY), 90, "kernel")
        page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area'), null")
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells'), null")
        yield page
