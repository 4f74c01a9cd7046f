"""What the benchmarks share: the machine's description, the JSON line, medians, a real JupyterLab with Chromium."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.browser.jupyter import FLAGS, KERNEL_READY, find_chromium, lab_server
from tests.browser.jupyter import notebook as code_cells

ROOT = Path(__file__).parents[1]


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
        lines = Path("/proc/cpuinfo").read_text().splitlines()
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
    (folder / "benchmark.ipynb").write_text(json.dumps(code_cells(*cells)))
    with lab_server(folder) as url, chromium() as page:
        page.goto(f"{url}/lab/tree/benchmark.ipynb?reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
        poll(lambda: page.evaluate(KERNEL_READY), 90, "kernel")
        page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area'), null")
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells'), null")
        yield page
