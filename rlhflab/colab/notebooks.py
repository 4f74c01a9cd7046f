"""Writes the labs ready for Colab: with a badge if they have an address, and a cell that installs the package."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from rlhflab.colab import setup_cell
from rlhflab.colab.source import Address, build_wheel

TITLE = "# @title Set up rlhflab: run this cell first (half a minute)"
_MARK = "rlhflab_colab"  # in the metadata of our notebooks, so that nothing else is ever overwritten
_WIDTH = 1000  # characters a line of the wheel's text
# The past runtimes that Colab offered on 2026-08-19 (googlecolab/backend-info), one a quarter. All have Python 3.11 or
# 3.12 and torch 2.6 or newer.
RUNTIMES = ("2025.07", "2025.10", "2026.01", "2026.04", "2026.07")
_LINK = re.compile(r"\[([^\]]*)\]\((\w+\.ipynb)[^)]*\)")
_RUNTIME = re.compile(r"20[0-9]{2}\.(0[1-9]|1[0-2])")


def write_colab(
    labs: Path, out: Path, address: Address | None = None, runtime: str | None = None
) -> list[Path]:
    """Write every notebook of `labs` to `out`, ready for Colab.

    Args:
        labs: folder of notebooks; its parent is a clone of the project.
        out: folder to write to; made if missing. Notebooks that were not written by this function stay untouched.
        address: where the notebooks install the package from. If `out` is inside the clone, so that its path in the
            repository is known, they also get a badge and links to each other. None: each notebook embeds the package's
            wheel as text.
        runtime: the past runtime that they request from Colab, YYYY.MM, from 2025.07 on. None: Colab's current one.

    Returns:
        the files written, in order.

    Raises:
        ValueError: no notebooks there, `out` is the labs folder, a file is in the way, or `runtime` is not YYYY.MM.
    """
    if runtime is not None and (not _RUNTIME.fullmatch(runtime) or runtime < RUNTIMES[0]):
        raise ValueError(
            f"runtime must be one of Colab's, YYYY.MM from {RUNTIMES[0]} on, such as {RUNTIMES[-1]}; got {runtime!r}"
        )
    root = labs.resolve().parent
    notebooks = sorted(labs.glob("*.ipynb"))
    if not notebooks:
        raise ValueError(f"no notebooks in {labs}")
    if out.resolve() == labs.resolve():
        raise ValueError(
            f"out must be another folder than {labs}: the labs themselves stay without set-up cells"
        )
    targets = [out / path.name for path in notebooks]
    for target in targets:
        if target.exists() and not _ours(target):
            raise ValueError(f"{target} is in the way: it was not written by this command")
    source = repr(address.archive()) if address else _carried(*build_wheel(root))
    out.mkdir(parents=True, exist_ok=True)
    inside = out.resolve().relative_to(root).as_posix() if out.resolve().is_relative_to(root) else None
    for path, target in zip(notebooks, targets, strict=True):
        badge = address.badge(f"{inside}/{target.name}") if address and inside else None
        notebook = _prepared(json.loads(path.read_text(encoding="utf-8")), source, badge, runtime)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = _linked(cell["source"], address if inside else None, str(inside))
        text = json.dumps(notebook, indent=1)
        draft = target.with_suffix(".part")
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(target)
    return targets


def _ours(path: Path) -> bool:
    try:
        return _MARK in json.loads(path.read_text(encoding="utf-8"))["metadata"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _prepared(
    notebook: dict[str, Any], source: str, badge: str | None, runtime: str | None
) -> dict[str, Any]:
    """The notebook with the set-up cell, which installs from `source`, and the badge if any, before its own cells.

    Without code it needs no set-up.

    Colab documents no key for the runtime version. This is the one that it wrote itself into a public notebook made on
    runtime 2025.07 (Rhogger/economatica on GitHub, src/notebooks/analise_dados_economatica.ipynb, 2025-09-13).
    """
    about = notebook["metadata"].get("rlhflab", {})
    extras = tuple(about.get("extras", ()))
    setup = Path(setup_cell.__file__).read_text(encoding="utf-8").rstrip()
    code = f"{TITLE}\n{setup}\n\n\nset_up({source}, {extras!r})"
    folded = {"cellView": "form", "jupyter": {"source_hidden": True}}
    cells = [_cell("code", "set-up", code, metadata=folded, execution_count=None, outputs=[])]
    if {cell["cell_type"] for cell in notebook["cells"]} == {"markdown"}:
        cells = []
    if badge:
        cells.insert(0, _cell("markdown", "badge", badge, metadata={}))
    colab: dict[str, Any] = {"provenance": [], "toc_visible": True}
    if runtime is not None:
        colab["runtime_attributes"] = {"runtime_version": runtime}
    metadata = {**notebook["metadata"], _MARK: True, "colab": colab}
    if about.get("gpu"):
        metadata |= {"accelerator": "GPU", "colab": {**colab, "gpuType": "T4"}}
    return {**notebook, "metadata": metadata, "cells": [*cells, *notebook["cells"]]}


def _cell(kind: str, name: str, source: str, **rest: Any) -> dict[str, Any]:
    return {"cell_type": kind, "id": name, "source": source.splitlines(keepends=True), **rest}


def _linked(lines: list[str], address: Address | None, folder: str) -> list[str]:
    """Markdown whose links to other labs open them in Colab, or are their words alone where there is no address."""

    def lead(link: re.Match[str]) -> str:
        return f"[{link[1]}]({address.in_colab(f'{folder}/{link[2]}')})" if address else link[1]

    return [_LINK.sub(lead, line) for line in lines]


def _carried(name: str, wheel: bytes) -> str:
    """The expression that writes the wheel to a file again and is its path."""
    text = base64.b64encode(wheel).decode()
    lines = "\n".join(text[at : at + _WIDTH] for at in range(0, len(text), _WIDTH))
    return f'unpacked("""\n{lines}\n""", "{hashlib.sha256(wheel).hexdigest()}", "{name}")'
