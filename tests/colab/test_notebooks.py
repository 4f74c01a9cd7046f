"""What `rlhflab colab` writes, and what its first cell does where Colab lacks or has something else."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import nbformat
import pytest
from typer.testing import CliRunner

from rlhflab.cli import app
from rlhflab.colab import setup_cell
from rlhflab.colab.notebooks import write_colab
from rlhflab.colab.source import Address, origin

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def all_written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The labs and their glossary, carrying the package themselves."""
    return write_colab(ROOT / "labs", tmp_path_factory.mktemp("colab"))


@pytest.fixture
def written(all_written: list[Path]) -> list[Path]:
    """The labs of them."""
    return [path for path in all_written if path.name != "glossary.ipynb"]


def carried(notebook: Path) -> tuple[str, bytes, str]:
    """Name, content and stated checksum of the wheel in a notebook's first cell."""
    source = "".join(json.loads(notebook.read_text())["cells"][0]["source"])
    call = source[source.index('unpacked("""') :]
    text, rest = call.removeprefix('unpacked("""').split('"""', 1)
    checksum, name = rest.split('"')[1::2][:2]
    return name, base64.b64decode(text), checksum


def test_every_lab_is_written_behind_one_folded_cell(all_written: list[Path], written: list[Path]) -> None:
    assert [path.name for path in all_written] == sorted(
        path.name for path in (ROOT / "labs").glob("*.ipynb")
    )
    assert [path.name for path in all_written if path not in written] == ["glossary.ipynb"]
    for path in all_written:
        ours, theirs = nbformat.read(path, 4), nbformat.read(ROOT / "labs" / path.name, 4)
        nbformat.validate(ours)
        for cell in theirs.cells:  # nobody knows an address of the other notebooks
            if cell.cell_type == "markdown":
                cell.source = re.sub(r"\[([^]]*)\]\(\w+\.ipynb(#[^)]*)?\)", r"\1", cell.source)
        assert ours.cells[len(ours.cells) - len(theirs.cells) :] == theirs.cells
        if path not in written:
            assert len(ours.cells) == len(theirs.cells)  # no code, and nothing to set up
            continue
        assert len(ours.cells) == len(theirs.cells) + 1
        assert ours.cells[0].metadata.cellView == "form"
        assert ours.cells[0].source.startswith("# @title")


def test_the_wheel_inside_is_the_package_of_now(written: list[Path]) -> None:
    name, wheel, checksum = carried(written[0])
    assert hashlib.sha256(wheel).hexdigest() == checksum
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        inside = {path for path in archive.namelist() if path.startswith("rlhflab/")}
        here = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / "rlhflab").rglob("*")
            if path.suffix in (".py", ".js", ".css")
        }
        assert inside == here
        assert archive.read("rlhflab/__init__.py") == (ROOT / "rlhflab" / "__init__.py").read_bytes()
    assert name.endswith(".whl") and len({carried(path)[2] for path in written}) == 1


def test_an_address_gives_badge_and_archive_and_no_wheel(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "labs", clone / "labs", ignore=shutil.ignore_patterns("runs", ".*"))
    address = Address("someone/some.lab", "v1")
    (first, *_) = write_colab(clone / "labs", clone / "colab", address)
    cells = json.loads(first.read_text())["cells"]
    assert cells[0]["source"] == [
        "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        "(https://colab.research.google.com/github/someone/some.lab/blob/v1/colab/00_start_here.ipynb)"
    ]
    assert "".join(cells[1]["source"]).endswith(
        "set_up('https://github.com/someone/some.lab/archive/v1.zip', ())"
    )
    assert 'unpacked("' not in "".join(cells[1]["source"])
    text = "".join(line for cell in cells for line in cell["source"])
    there = "https://colab.research.google.com/github/someone/some.lab/blob/v1/colab/"
    assert f"[04_pretrain_and_sft]({there}04_pretrain_and_sft.ipynb)" in text
    assert f"[nats]({there}glossary.ipynb)" in text and "](glossary" not in text
    # outside the clone nobody knows the path in the repository: no badge
    (first, *_) = write_colab(clone / "labs", tmp_path / "elsewhere", address)
    assert "Open in Colab" not in first.read_text()


def test_what_a_lab_needs_is_in_its_metadata(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    (clone / "labs").mkdir(parents=True)
    notebook = nbformat.v4.new_notebook(metadata={"rlhflab": {"extras": ["gpu"], "gpu": True}})
    nbformat.write(notebook, clone / "labs" / "real.ipynb")
    (path,) = write_colab(clone / "labs", tmp_path / "out", Address("a/b", "main"))
    made = json.loads(path.read_text())
    assert made["metadata"]["accelerator"] == "GPU" and made["metadata"]["colab"]["gpuType"] == "T4"
    assert "".join(made["cells"][0]["source"]).endswith("archive/main.zip', ('gpu',))")


def test_only_what_it_wrote_is_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "00_start_here.ipynb"
    mine.write_text('{"metadata": {}, "cells": []}')
    with pytest.raises(ValueError, match="in the way"):
        write_colab(ROOT / "labs", tmp_path, Address("a/b", "main"))
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
    mine.unlink()
    first = write_colab(ROOT / "labs", tmp_path, Address("a/b", "main"))
    assert write_colab(ROOT / "labs", tmp_path, Address("a/b", "other")) == first
    assert "archive/other.zip" in mine.read_text()


@pytest.mark.parametrize("runtime", [None, "2025.07", "2026.07", "2026.10"])
def test_a_runtime_is_named_where_colab_writes_it(runtime: str | None, tmp_path: Path) -> None:
    (path, *_) = write_colab(ROOT / "labs", tmp_path, Address("a/b", "main"), runtime)
    colab = json.loads(path.read_text())["metadata"]["colab"]
    assert colab["provenance"] == []
    assert colab.get("runtime_attributes") == (runtime and {"runtime_version": runtime})


def test_a_runtime_that_is_not_known_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    options = ["colab", "--repo", "a/b", "--out", str(tmp_path), "--runtime"]
    known, unknown = (CliRunner().invoke(app, [*options, runtime]) for runtime in ("2026.07", "2027.01"))
    assert known.exit_code == unknown.exit_code == 0
    assert known.stderr.splitlines()[0].endswith("on Colab's runtime 2026.07:")
    assert "runtime 2027.01 is newer" in unknown.stderr and len(unknown.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        *(
            (["--runtime", runtime], f"such as 2026.07; got {runtime!r}")
            for runtime in ("2026.13", "2026.00", "2026.7", "26.07", "2026-07", "latest", "", "2025.06")
        ),
        (["--runtime", "2026.07\n"], "such as 2026.07; got"),
        (["--runtime", "٢٠٢٦.07"], "such as 2026.07; got"),
        (["--repo", "nonsense"], "repo must be OWNER/NAME, got 'nonsense'"),
        (["--repo", "a/b", "--ref", "../x"], "ref must be a branch, tag or commit, got '../x'"),
        (["--repo", "a/b", "--embed"], "--embed needs no address"),
        (["--out", "labs"], "out must be another folder"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    if "--out" not in options:
        options = [*options, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["colab", *options])
    assert result.exit_code == 2 and says in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("remote", "repo"),
    [
        ("https://github.com/someone/lab.git", "someone/lab"),
        ("https://github.com/someone/lab", "someone/lab"),
        ("git@github.com:someone/lab.git", "someone/lab"),
        ("ssh://git@github.com/someone/my.lab.git", "someone/my.lab"),
        ("https://example.org/someone/lab.git", None),
        ("/some/folder", None),
        (None, None),
    ],
)
def test_origin(remote: str | None, repo: str | None, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "-b", "trunk", str(tmp_path)], check=True)
    if remote:
        subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", remote], check=True)
    assert origin(tmp_path) == (Address(repo, "trunk") if repo else None)


def test_a_damaged_wheel_is_not_installed() -> None:
    text = base64.b64encode(b"a wheel").decode()
    with pytest.raises(SystemExit, match="checksum differs"):
        setup_cell.unpacked(text, hashlib.sha256(b"another").hexdigest(), "x.whl")
    path = setup_cell.unpacked(text, hashlib.sha256(b"a wheel").hexdigest(), "x.whl")
    assert Path(path).read_bytes() == b"a wheel"


@pytest.mark.parametrize("text", ["YSB3aGVlbA", "YSB3aGVl bA=", "é", ""])
def test_text_that_is_no_base64_is_one_line(text: str) -> None:
    with pytest.raises(SystemExit, match="checksum differs"):
        setup_cell.unpacked(text, hashlib.sha256(b"a wheel").hexdigest(), "x.whl")


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.whl").symlink_to("/dev/full")  # the system's own answer
    monkeypatch.setattr(setup_cell.tempfile, "mkdtemp", lambda: str(tmp_path))
    with pytest.raises(SystemExit, match=r"^the disk of this runtime is full: [^\n]+$"):
        setup_cell.unpacked(
            base64.b64encode(b"wheel").decode(), hashlib.sha256(b"wheel").hexdigest(), "x.whl"
        )


@pytest.mark.parametrize("unwritable", ["mkdtemp", "TemporaryDirectory"])
def test_a_folder_that_cannot_be_written_is_one_line(
    unwritable: str, runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise PermissionError(13, "Permission denied", "/tmp")

    monkeypatch.setattr(setup_cell.tempfile, unwritable, refused)
    with pytest.raises(SystemExit, match=r"^this runtime refuses: \[Errno 13\] Permission denied: '/tmp'$"):
        setup_cell.set_up(setup_cell.unpacked("", hashlib.sha256(b"").hexdigest(), "x.whl"))


def test_a_python_that_is_too_old_is_one_line(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, asked = runtime
    monkeypatch.setattr(setup_cell.sys, "version_info", (3, 10, 12))
    with pytest.raises(
        SystemExit, match=r"^rlhflab needs Python 3\.11 or newer; this runtime has 3\.10\.12: "
    ):
        setup_cell.set_up("x.whl")
    monkeypatch.undo()
    assert asked == []
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert needs == ">=" + ".".join(map(str, setup_cell.LEAST_PYTHON))


def test_an_old_python_can_read_the_cell(written: list[Path]) -> None:
    ast.parse("".join(json.loads(written[0].read_text())["cells"][0]["source"]), feature_version=(3, 8))


NOWHERE = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": "/dev/null", "PIP_RETRIES": "0"}


@pytest.mark.parametrize("what", ["some-package>=2", "http://127.0.0.1:9/archive/main.zip"])
def test_no_network_is_one_line(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=r"^pip download failed: the network cannot be reached [^\n]+$"):
        setup_cell.pip("download", "--no-deps", what)


@pytest.mark.parametrize("content", [b"", b"not a zip", "cut"])
def test_an_unreadable_wheel_is_one_line(content: bytes | str, written: list[Path], tmp_path: Path) -> None:
    name, wheel, _ = carried(written[0])
    path = tmp_path / name
    path.write_bytes(wheel[: len(wheel) // 2] if isinstance(content, str) else content)
    with pytest.raises(SystemExit, match=r"^pip install failed: [^\n]*rlhflab[^\n]*invalid[^\n]*$"):
        setup_cell.pip("install", "--no-deps", "--no-index", "--target", str(tmp_path / "there"), str(path))


@pytest.mark.parametrize(
    ("stderr", "says"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", "disk"),
        (
            "ERROR: Exception:\nTraceback (most recent call last):\nOSError: [Errno 28] No space left on device",
            "disk",
        ),
        (
            "WARNING: Retrying (Retry(total=4)) after connection broken by 'ReadTimeoutError'\n"
            "ERROR: Cannot install a and b because these package versions have conflicting dependencies.\n"
            "ERROR: ResolutionImpossible: for help visit a page\n",
            "Cannot install a and b because these package versions have conflicting dependencies.",
        ),
        (
            "ERROR: HTTP error 404 while getting http://x/main.zip\nERROR: Could not install requirement\n",
            "HTTP error 404 while getting http://x/main.zip",
        ),
        ("ERROR: Exception:\nTraceback (most recent call last):\n  File\nKeyError: 'x'\n\n", "KeyError: 'x'"),
        (
            "ERROR: Ignored the following versions that require a different python version: 1.0 needs 3.99\n"
            "ERROR: Could not find a version that satisfies the requirement a (from versions: none)\n",
            "Ignored the following versions that require a different python version: 1.0 needs 3.99",
        ),
        ("python: No module named pip\n", "python: No module named pip"),
        ("error: metadata-generation-failed\n\nhint: See above for details.\n", "metadata-generation-failed"),
        ("", "no message"),
    ],
)
def test_of_all_that_pip_says_one_line_is_the_reason(stderr: str, says: str) -> None:
    found = setup_cell.reason(stderr)
    assert found == (setup_cell.NO_ROOM if says == "disk" else says)


def test_a_notebook_shows_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    source = Path(setup_cell.__file__).read_text()
    result = InteractiveShell().run_cell(source + "\n\nset_up(unpacked('cut', '0', 'x.whl'))")
    assert result.error_in_exec is not None
    shown = capsys.readouterr()
    assert shown.out.strip().startswith("✗ rlhflab's text in this cell is damaged")
    assert len((shown.out + shown.err).strip().splitlines()) == 1


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, str], list[tuple[str, ...]]]:
    """A runtime with the versions in the dict returned, and the list of what pip is asked for."""
    there, asked = {"torch": "2.11.0+cu128", "numpy": "2.1.0", "torchao": "0.10.0", "plotly": "5.0"}, []
    requirements = [
        "torch>=2.6",
        "numpy>=1.26",
        "plotly>=5.24",
        "typer>=0.15",
        'gymnasium>=1.0; extra == "control"',
    ]

    def version(name: str) -> str:
        if name not in there:
            raise metadata.PackageNotFoundError(name)
        return there[name]

    def pip(*arguments: str) -> None:
        if "--constraint" in arguments:
            arguments = (*arguments, Path(arguments[arguments.index("--constraint") + 1]).read_text())
        asked.append(arguments)

    monkeypatch.setattr(setup_cell.metadata, "version", version)
    monkeypatch.setattr(setup_cell.metadata, "requires", lambda _name: requirements)
    monkeypatch.setattr(setup_cell, "pip", pip)
    monkeypatch.setattr(setup_cell, "versions", lambda: "ready")
    return there, asked


def test_only_what_is_missing_is_added_and_nothing_kept_may_move(runtime: Any) -> None:
    _, asked = runtime
    setup_cell.set_up("x.whl")
    install, add, remove = asked
    assert install == ("install", "--no-deps", "--force-reinstall", "x.whl")
    assert add[0] == "install" and add[3:-1] == ("plotly>=5.24", "typer>=0.15")
    assert add[-1].splitlines() == ["torch==2.11.0+cu128", "numpy==2.1.0"]
    assert remove == ("uninstall", "--yes", "torchao")


@pytest.mark.parametrize(
    ("torchao", "peft", "removed"),
    [
        ("0.18.0", "0.18.1", True),
        ("0.18.0", "0.19.0", False),
        ("0.10.0", "0.18.1", False),
        ("0.15.0", "0.20.0", True),
    ],
)
def test_torchao_goes_where_this_peft_cannot_use_it(
    torchao: str, peft: str, removed: bool, runtime: Any
) -> None:
    there, asked = runtime
    there |= {"torchao": torchao, "peft": peft}
    setup_cell.set_up("x.whl")
    assert (("uninstall", "--yes", "torchao") in asked) == removed


def test_extras_are_added_where_a_lab_uses_them(runtime: Any) -> None:
    there, asked = runtime
    there |= {"plotly": "5.24.1", "typer": "0.15", "torchao": "0.16.0"}
    setup_cell.set_up("x.whl")
    assert len(asked) == 1
    setup_cell.set_up("x.whl", ("control",))
    assert asked[-1][3:-1] == ("gymnasium>=1.0",)


def test_a_runtime_too_old_is_said_and_not_changed(runtime: Any) -> None:
    there, asked = runtime
    there["torch"] = "2.4.1"
    with pytest.raises(
        SystemExit, match=r"needs torch>=2\.6; this runtime has 2\.4\.1: choose a newer runtime"
    ):
        setup_cell.set_up("x.whl")
    assert len(asked) == 1
