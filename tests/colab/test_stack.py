"""The written notebooks on Colab's versions of the widget stack: they install themselves and run, polled."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest

from rlhflab.colab.notebooks import write_colab
from tests.colab_stack import instead

ROOT = Path(__file__).parents[2]
HEADLESS = ("00_start_here", "10_real_models")  # 07 runs in the browser: test_colab_stack.py


def test_it_has_colabs_python(colab_python: Path) -> None:
    if differs := instead(colab_python):
        pytest.skip(f"the tests of this file ran on {differs}")
    assert ask(colab_python, "import sys; print(*sys.version_info[:2], sep='.')") == "3.13"


def test_plain_lora_fails_beside_colabs_torchao(colab_python: Path) -> None:
    """What the set-up cell repairs is there: else its removal of torchao would be untested."""
    code = (
        "import torch, peft\n"
        "try: peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(2, 2)), peft.LoraConfig(target_modules=['0']))\n"
        "except ImportError as error: print(error)"
    )
    assert "incompatible version of torchao. Found version 0.10.0" in ask(colab_python, code)


@pytest.mark.parametrize("name", [name for name in HEADLESS if (ROOT / "labs" / f"{name}.ipynb").is_file()])
def test_a_lab_installs_itself_and_runs(name: str, colab_python: Path, tmp_path: Path) -> None:
    write_colab(ROOT / "labs", tmp_path / "colab")
    path, out = tmp_path / "colab" / f"{name}.ipynb", tmp_path / "done.ipynb"
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [colab_python, ROOT / "tests" / "colab" / "execute.py", path, out],
        cwd=tmp_path,
        env={**variables, "RLHFLAB_DRIVER": "poll", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    texts = [text_of(cell) for cell in nbformat.read(out, 4).cells if cell.cell_type == "code"]
    first = texts[0]
    if name == "10_real_models":  # not installed there, as it would replace Colab's datasets and pyarrow
        assert sum(text.startswith("engine trl needs TRL, which is not installed: ") for text in texts) == 1
    assert first.startswith("rlhflab ") and "ipywidgets 7.7.1" in first and len(first.splitlines()) == 1
    assert f"Python {ask(colab_python, 'import platform; print(platform.python_version())')} " in first
    assert ask(colab_python, "from importlib.util import find_spec; print(find_spec('torchao'))") == "None"


def ask(python: Path, code: str) -> str:
    """What a program prints under that Python, in its last line."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([python, "-W", "ignore", "-c", code], capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr[-3000:]
    return (done.stdout.strip().splitlines() or [""])[-1]


def text_of(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream").strip()
