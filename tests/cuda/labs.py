"""Every lab, headless, on a CUDA device that is not there, with its trainings cut to a few steps: `make test-cuda`.

    python -m tests.cuda.labs [--device auto] [--steps 6] [LAB …]

A cell counts as failed where it gets through on a CPU with the same cut, and not on the device: some cells read steps
that a cut training never makes. Exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.cuda.virtual import missing

ROOT = Path(__file__).resolve().parent.parent.parent
CUT = """
from tests.cuda import cut, virtual
{device}
cut.trainings({steps})
"""
TIMEOUT = 600  # seconds a cell


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labs", nargs="*", type=Path, default=sorted((ROOT / "labs").glob("[0-9]*.ipynb")))
    parser.add_argument("--device", default="cuda", help="RLHFLAB_DEVICE of the labs")
    parser.add_argument("--steps", type=int, default=6)
    given = parser.parse_args()
    if why := missing():
        print(f"skipped: no virtual CUDA device: {why}")
        return 1 if os.environ.get("RLHFLAB_REQUIRE_VIRTUAL_CUDA") else 0
    make_references()
    os.environ |= {"RLHFLAB_DEVICE": given.device, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        failed = sum(pool.map(lambda lab: check(lab, given.steps), given.labs))
    print(f"{len(given.labs)} labs, {failed} failed cells, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


def make_references() -> None:
    """The tiny models that labs begin with, trained by torch itself where there are none yet."""
    from rlhflab.recipes.reference import tiny_reference
    from rlhflab.recipes.worlds import world_named

    for world in map(world_named, ("micro", "reviews")):
        tiny_reference(world)


def check(lab: Path, steps: int) -> int:
    """Run a lab on the device, and on a CPU if a cell fails; print and count what fails on the device alone."""
    began = time.monotonic()
    found = failures(lab, CUT.format(device="virtual.install()", steps=steps))
    anyway = failures(lab, CUT.format(device="", steps=steps)) if found else {}
    alone = {index: lines for index, lines in found.items() if index not in anyway}
    for index, lines in alone.items():
        print(f"  {lab.name}, cell {index}:", *lines, sep="\n      ")
    print(f"{lab.name}: {len(alone)} failed cells, {time.monotonic() - began:.0f} s", flush=True)
    return len(alone)


def failures(lab: Path, first: str) -> dict[int, list[str]]:
    """Cells that end in an error, after a cell `first`: index in the lab → the error, and the lines it came through."""
    notebook = nbformat.read(lab, 4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=TIMEOUT, allow_errors=True, resources={"metadata": {"path": folder}}
        )
        client.execute()
    return {
        index - 1: told(output)
        for index, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    }


def told(output: nbformat.NotebookNode) -> list[str]:
    trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.traceback))
    lines = [
        line.strip()[:160] for line in trace.split("\n") if line.strip().startswith(("-->", "---->", "File"))
    ]
    return [f"{output.ename}: {output.evalue[:200]}", *lines[:10]]


if __name__ == "__main__":
    sys.exit(main())
