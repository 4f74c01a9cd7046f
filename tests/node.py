"""The module of a widget's page, run under node: what it exports against Python."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed: the pages' scripts are not run")

AROUND = """
import {{ readFileSync }} from "node:fs";
import * as m from "./page.mjs";
const sent = JSON.parse(readFileSync(0, "utf8"));
let result;
{script}
console.log(JSON.stringify(result));
"""


def run_module(widget: type[Any], script: str, sent: Any, folder: Path) -> Any:
    """Return what `script` puts into `result`; it sees the exports of the widget's module as `m`, and `sent`."""
    (folder / "page.mjs").write_text(str(widget._esm), "utf-8")
    (folder / "run.mjs").write_text(AROUND.format(script=script), "utf-8")
    done = subprocess.run(
        [str(NODE), "run.mjs"], cwd=folder, input=json.dumps(sent), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
