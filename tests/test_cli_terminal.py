"""Terminals, shells and machines as people have them: code pages, ~, blanks in paths, no home, nothing to write to."""

from __future__ import annotations

import io
import os
import re
import sys
import warnings

import pytest

from rlhflab import cli, files
from rlhflab.cli import words
from rlhflab.cli.options import absolute
from rlhflab.data.ranking_source import WorldRankings
from rlhflab.recipes import CONTROL, LANGUAGE
from rlhflab.runs.store import Run
from rlhflab.seeds import for_numpy, require_seed, seed_of_part
from tests.test_cli import one_line, toy  # noqa: F401  a fixture

CODE_PAGES = ("cp1252", "cp932", "latin-1", "ascii")
HELP = [[], *([name] for name in ("train", "sweep", "report", "doctor", "lab", "colab"))]
HELP += [["train", name] for name in LANGUAGE]


@pytest.fixture
def terminal(monkeypatch):
    """Give stdout and stderr a code page; returns a call that reads what was written."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)

    def of(code_page):
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(
                sys, name, io.TextIOWrapper(io.BytesIO(), encoding=code_page, errors="strict")
            )

        def read(name="stdout"):
            getattr(sys, name).flush()
            return getattr(sys, name).buffer.getvalue().decode(code_page, "replace")

        return read

    return of


@pytest.mark.parametrize("code_page", CODE_PAGES)
def test_every_help_can_be_read_in_every_code_page(code_page, terminal, monkeypatch):
    for arguments in HELP:
        read = terminal(code_page)
        monkeypatch.setattr(sys, "argv", ["rlhflab", *arguments, "-h"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0 and "Usage: rlhflab" in read() and "--help" in read()


def test_what_a_code_page_lacks_is_said_in_other_words(terminal):
    read = terminal("cp1252")
    words.speak_any_code_page()
    print("β ≥ 1 → π*, ± ½: é 日 \udc80")  # a name of a file that is no text has such a character
    assert read() == "beta >= 1 -> pi*, ± ½: é \\u65e5 \\udc80\n"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("utf-8", errors="rlhflab")


@pytest.mark.parametrize("code_page", CODE_PAGES)
def test_a_trainings_lines_can_be_read_in_every_code_page(code_page, toy, terminal, monkeypatch, tmp_path):  # noqa: F811
    read = terminal(code_page)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rlhflab", "train", "dpo", "--out", "π"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0 and "look at it: rlhflab report" in read() and "100%" in read("stderr")


def test_a_warning_of_ours_is_one_line_and_others_stay(terminal):
    terminal("utf-8")
    words.speak_any_code_page()
    ours, theirs = (
        warnings.formatwarning(UserWarning("two\nlines"), UserWarning, file, 7)
        for file in (files.__file__, __file__)
    )
    assert ours == "rlhflab: two lines\n" and ":7: UserWarning: two\nlines" in theirs


def test_every_command_and_group_knows_h(rlhflab):
    for arguments in HELP:
        assert rlhflab(*arguments, "-h") == rlhflab(*arguments, "--help")
        assert "-h, --help" in rlhflab(*arguments, "-h")[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train", "dop"], "Did you mean 'dpo'"),
        (["train", "dpo", "--lable-noise", "0"], "--label-noise"),
        (["doctor", "--devise", "cpu"], "--device"),
    ],
)
def test_what_is_mistyped_is_suggested(rlhflab, arguments, says):
    code, _, err = rlhflab(*arguments)
    assert code == 2 and says in one_line(err)


def test_nothing_typed_is_help(rlhflab):
    code, out, err = rlhflab()
    assert code == 2 and out.startswith("Usage: rlhflab") and not err


@pytest.mark.parametrize("windows", [False, True])
def test_printed_commands_can_be_pasted(rlhflab, toy, tmp_path, monkeypatch, windows):  # noqa: F811
    monkeypatch.setattr(words, "WINDOWS", windows)
    run = '"my runs/it"' if windows else "'my runs/it'"
    code, out, _ = rlhflab("train", "dpo", "--out", "my runs/it")
    assert code == 0 and out.splitlines()[-1] == f"look at it: rlhflab report {run}"
    _, _, err = rlhflab("train", "dpo", "--out", "my runs/it")
    assert one_line(err).endswith(f"continue a run with: rlhflab train dpo --resume {run}")
    _, _, err = rlhflab("train", "ppo", "--resume", "my runs/it")
    assert one_line(err).endswith(f"continue it with: rlhflab train dpo --resume {run}")


def test_a_tilde_is_the_home_folder_in_every_path(rlhflab, toy, tmp_path, monkeypatch):  # noqa: F811
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    assert rlhflab("train", "dpo", "--steps", 2, "--out=~/run")[0] == 0
    assert (home / "run" / "records.jsonl").is_file()
    assert rlhflab("train", "dpo", "--resume=~/run")[0] == 0
    assert rlhflab("report", "~/run", "--out=~/page.html")[0] == 0 and (home / "page.html").is_file()
    (home / "pairs.jsonl").write_text("", encoding="utf-8")
    assert rlhflab("train", "dpo", "--world=~/pairs.jsonl", "--out", "other")[0] == 0
    assert Run.open("other").config["world"] == str(home / "pairs.jsonl")
    (home / "mine.py").write_text("", encoding="utf-8")
    assert absolute("~/mine.py:score") == f"{home / 'mine.py'}:score"
    assert absolute("~/none.py:score") == "~/none.py:score"
    assert absolute("~@train") == f"{home}@train" and absolute("owner/name@train") == "owner/name@train"


def test_a_name_that_no_file_can_have_is_one_line(rlhflab, toy):  # noqa: F811
    code, _, err = rlhflab("train", "dpo", "--world", "x" * 300)
    assert code == 2 and re.search("name too long|unknown world", one_line(err))


def test_where_nothing_can_be_written_is_said_before_anything_is_built(rlhflab, toy, tmp_path):  # noqa: F811
    (tmp_path / "file").touch()
    code, _, err = rlhflab("train", "dpo", "--out", "file/run")
    assert code == 2 and one_line(err).startswith(f"rlhflab: cannot write to {tmp_path / 'file' / 'run'};")
    (tmp_path / "runs").touch()
    code, _, err = rlhflab("train", "dpo")
    assert code == 2 and "with --out FOLDER" in one_line(err) and not toy


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """A cache folder that cannot be made."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("RLHFLAB_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_without_a_cache_folder_there_is_a_temporary_one_and_a_warning(no_cache, tmp_path):
    with pytest.warns(UserWarning, match="cannot write to .*set RLHFLAB_CACHE to a folder that keeps it$"):
        folder = files.cache_folder()
    assert folder.is_dir() and folder.parent == tmp_path
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert files.cache_folder() == folder  # said once
    assert os.environ["RLHFLAB_CACHE"] == str(folder)  # processes that are started from here have the same


def test_without_a_home_there_is_a_temporary_cache_folder(monkeypatch, tmp_path):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", home)
    monkeypatch.setenv("RLHFLAB_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.warns(UserWarning, match="^no home folder is known: .*set RLHFLAB_CACHE"):
        assert files.cache_folder().is_dir()


def test_a_cache_that_is_only_read_is_used_for_what_it_has(monkeypatch, tmp_path):
    monkeypatch.setenv("RLHFLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "tiny").mkdir(parents=True)
    monkeypatch.setattr(files, "can_write", lambda folder: False)
    assert files.cache_folder("tiny") == tmp_path / "cache"
    with pytest.warns(UserWarning, match="RLHFLAB_CACHE"):
        assert files.cache_folder("other") != tmp_path / "cache"


@pytest.mark.parametrize("seed", [0, 20261129, 20261129123456, 2**63 - 1])
def test_a_date_is_a_seed_everywhere(seed, world, sft):
    require_seed(seed)
    pytest.importorskip("gymnasium")
    for name in CONTROL:
        one = CONTROL[name](world="CartPole-v1", seed=seed, envs=4, steps=1, evaluate_every=1).build()
        assert next(one).estimated["return"] > 5
    assert WorldRankings(world, sft, 4, 2, seed).size == 4


def test_small_seeds_give_what_they_gave():
    assert seed_of_part(3, 2) == 3_000_011 and for_numpy(4_000_000_000) == 4_000_000_000


@pytest.mark.parametrize(
    ("seed", "says"),
    [
        (-1, "a whole number ≥ 0, got -1"),
        (2**63, "≤ 9223372036854775807"),
        (10**400, "a whole number ≥ 0, got 1000"),
        (1.5, "a whole number ≥ 0, got 1.5"),
        (True, "a whole number"),
    ],
)
@pytest.mark.parametrize("name", LANGUAGE)
def test_what_is_no_seed_is_one_line(name, seed, says):
    with pytest.raises(ValueError, match=f"^seed must be {says}"):
        LANGUAGE[name](seed=seed)
    if name in CONTROL:
        with pytest.raises(ValueError, match=f"^seed must be {says}"):
            CONTROL[name](world="CartPole-v1", seed=seed)


def test_on_windows_jupyterlab_is_started_with_blanks_in_its_paths(rlhflab, tmp_path, monkeypatch):
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs" / "00_start_here.ipynb").touch()
    started = []
    monkeypatch.setattr(cli, "WINDOWS", True)
    monkeypatch.setattr("subprocess.call", lambda command: started.append(command) or 3)
    monkeypatch.setattr("os.execv", lambda *given: pytest.fail("its words are split at blanks"))
    assert rlhflab("lab")[0] == 3 and f"--ServerApp.root_dir={tmp_path}" in started[0]
