"""What holds for the repository as a whole."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TREES = ("rlhflab", "labs", "benchmarks", "tests")


def files_in(root: Path) -> set[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *TREES]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    names = {name for name in listed.splitlines() if (root / name).exists()}
    return {name for name in names if not name.endswith("/__init__.py") or name == "rlhflab/__init__.py"}


def files_in_tree(page: str) -> dict[str, str]:
    """Path → description, from the block of docs/architecture.md that starts with `rlhflab/`; two spaces a level."""
    block = re.search(r"```\n(rlhflab/.*?)```", page, re.DOTALL)
    assert block, "docs/architecture.md has no tree"
    described, folders = {}, []
    for line in block.group(1).splitlines():
        match = re.fullmatch(r"((?:  )*)(\S+)(?:\s{2,}(\S.*))?", line)
        assert match, f"a tree line is: indent by twos, name, two spaces or more, description; got {line!r}"
        indent, name, description = match.groups()
        folders = [*folders[: len(indent) // 2], name.rstrip("/")]
        path = "/".join(folders)
        assert description, f"{path} has no description in the tree"
        assert path not in described, f"{path} is twice in the tree"
        if not name.endswith("/"):
            described[path] = description
    return described


def test_the_tree_lists_every_file_and_no_other(root):
    listed = set(files_in_tree((root / "docs" / "architecture.md").read_text(encoding="utf-8")))
    real = files_in(root)
    assert not real - listed, "not in the tree"
    assert not listed - real, "in the tree but not there"


def test_tree_parser_reads_levels_and_refuses_bare_names():
    tree = "```\nrlhflab/  the package\n  a.py  one\n  b/  two\n    c.py  three\nlabs/  four\n  d.ipynb  five\n```"
    assert files_in_tree(tree) == {"rlhflab/a.py": "one", "rlhflab/b/c.py": "three", "labs/d.ipynb": "five"}
    with pytest.raises(AssertionError, match=r"rlhflab/a\.py has no description"):
        files_in_tree("```\nrlhflab/  the package\n  a.py\n```")


def without_encoding(source: str) -> list[int]:
    """Lines of calls that read or write text in whatever encoding a machine has."""
    lines = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or any(each.arg in ("encoding", None) for each in call.keywords):
            continue
        given = [*call.args, *(each.value for each in call.keywords)]
        words = [each.value for each in given if isinstance(each, ast.Constant)]
        mode = next((each for each in words if re.fullmatch("[rwxabt+]{1,3}", str(each))), "")
        name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        opened = name == "open" and "b" not in mode and (mode or isinstance(call.func, ast.Name))
        if opened or name in ("read_text", "write_text"):
            lines.append(call.lineno)
    return lines


def test_files_are_utf_8_on_every_machine(root):
    found = {
        str(path.relative_to(root)): lines
        for folder in ("rlhflab", "benchmarks")
        for path in sorted((root / folder).rglob("*.py"))
        if (lines := without_encoding(path.read_text(encoding="utf-8")))
    }
    assert not found, "give encoding='utf-8': on Windows it is the code page's otherwise"


def test_a_file_in_the_machines_own_encoding_is_found():
    bad = "open(x)\nopen(x, 'w')\np.read_text()\np.write_text(t)\np.open('a')\nopen(x, mode='r')"
    good = "open(x, 'rb')\nRun.open(x)\nos.open(x, 1)\np.read_text(encoding='utf-8')\nopen(x, encoding='a')"
    assert without_encoding(bad) == [1, 2, 3, 4, 5, 6] and without_encoding(good) == []


def with_many_parameters(source: str, most: int = 10) -> list[str]:
    """Functions that are told more things; a dataclass has no constructor that is written out."""
    found = []
    for each in ast.walk(ast.parse(source)):
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            given = each.args
            starred = [one for one in (given.vararg, given.kwarg) if one is not None]
            names = [one.arg for one in [*given.posonlyargs, *given.args, *given.kwonlyargs, *starred]]
            if len([name for name in names if name not in ("self", "cls")]) > most:
                found.append(each.name)
    return found


def test_no_function_has_more_than_ten_parameters(root):
    found = {
        str(path.relative_to(root)): names
        for path in sorted((root / "rlhflab").rglob("*.py"))
        if (names := with_many_parameters(path.read_text(encoding="utf-8")))
    }
    assert not found, "say what belongs together once, as a dataclass"


def test_parameters_of_every_kind_are_counted():
    source = "class A:\n    def few(self, a): ...\n    async def many(self, a, /, b, *c, d, **e): ..."
    assert with_many_parameters(source, 4) == ["many"] and with_many_parameters(source, 5) == []


def test_importing_the_package_is_quick_and_light(root):
    code = (
        "import sys, time; start = time.perf_counter(); import rlhflab; seconds = time.perf_counter() - start;"
        "heavy = {'torch', 'transformers', 'plotly', 'ipywidgets', 'anywidget', 'numpy', 'trl'} & set(sys.modules);"
        "print(seconds, *heavy)"
    )
    outputs = []
    for _ in range(3):  # the quickest of three: other programs share the machine
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
        )
        outputs.append(done.stdout.split())
    assert outputs[0][1:] == [], "imported with the package"
    assert min(float(output[0]) for output in outputs) < 0.3


def test_lazy_names_are_there():
    import rlhflab

    for name in rlhflab.__all__:
        assert getattr(rlhflab, name).__name__.removeprefix("rlhflab.") == name
    assert {"recipes", "OwnWorld", "Board"} <= set(rlhflab.__all__) <= set(dir(rlhflab))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = rlhflab.nonsense


def notebooks(root: Path) -> list[Path]:
    return [root / name for name in sorted(files_in(root)) if name.endswith(".ipynb")]


def test_notebooks_are_stored_without_outputs_and_with_short_cells(root):
    assert notebooks(root)
    for path in notebooks(root):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        assert "widgets" not in notebook["metadata"], f"{path.name}: widget state stored"
        for number, cell in enumerate(notebook["cells"]):
            if cell["cell_type"] == "code":
                where = f"{path.name}, cell {number}"
                assert not cell["outputs"] and cell["execution_count"] is None, f"{where}: outputs stored"
                assert len("".join(cell["source"]).splitlines()) < 15, f"{where}: 15 lines or more"


def test_every_lab_is_in_both_maps_and_their_links_lead_somewhere(root):
    for folder in (root, root / "labs"):
        text = (folder / "README.md").read_text(encoding="utf-8")
        links = re.findall(r"\]\(([^)#:]+)\)", text)
        assert links and not [link for link in links if not (folder / link).exists()]
        missing = [path.stem for path in notebooks(root) if path.stem not in text]
        assert not missing, f"not in the map of {folder.name}/README.md"


def test_weights_are_never_pickled_nor_foreign_code_run(root):
    for path in (root / "rlhflab").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for banned in (r"\bpickle\b", r"trust_remote_code\s*=\s*True", r"\btorch\.(load|save)\("):
            assert not re.search(banned, text), f"{path.relative_to(root)} has {banned}"
