"""The module of an explorable's page, run under node: its exported mathematics against Python."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(
    NODE is None, reason="node is not installed: the browser's mathematics is not run"
)

AROUND = """
import {{ readFileSync }} from "node:fs";
import * as m from "./page.mjs";
const sent = JSON.parse(readFileSync(0, "utf8"));
let result;
{script}
console.log(JSON.stringify(result));
"""


def run_module(
    explorable: type[Any], script: str, sent: Any, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Return what `script` puts into `result`; it sees the explorable's exports as `m`, and `sent`."""
    folder = tmp_path_factory.mktemp("js")
    (folder / "page.mjs").write_text(str(explorable._esm), "utf-8")
    (folder / "run.mjs").write_text(AROUND.format(script=script), "utf-8")
    done = subprocess.run(
        [str(NODE), "run.mjs"], cwd=folder, input=json.dumps(sent), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
