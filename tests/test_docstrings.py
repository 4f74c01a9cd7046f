"""The examples in docstrings say what comes out."""

import doctest
import importlib
from pathlib import Path

import pytest

import rlhflab

ROOT = Path(rlhflab.__file__).parent
WITH_EXAMPLES = sorted(path for path in ROOT.rglob("*.py") if ">>> " in path.read_text("utf-8"))


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_examples_of_docstrings_are_true(path):
    module = importlib.import_module(".".join(("rlhflab", *path.relative_to(ROOT).with_suffix("").parts)))
    failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    examples = [line for line in path.read_text("utf-8").splitlines() if line.lstrip().startswith(">>> ")]
    skipped = sum("# doctest: +SKIP" in line for line in examples)
    assert (failed, tried) == (0, len(examples) - skipped)
