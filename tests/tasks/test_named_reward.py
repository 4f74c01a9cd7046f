"""Rewards by the name of a file or module: run as Python runs them, and looked at before anything is loaded."""

import importlib
import pickle
import sys

import pytest

from rlhflab import user_code
from rlhflab.tasks.named_reward import named_function, names_function, require_reward


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working folder, without anybody's modules; Python's path and modules are as before afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in {*user_code._run, *user_code._beside}:  # of other tests
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(user_code, "_run", {})
    monkeypatch.setattr(user_code, "_beside", {})
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


SCORE = "def score(prompts, answers):\n    return [{} for _ in answers]\n"


def called(name):
    return named_function(name)(["a"], ["b"])


def test_functions_are_named(folder):
    write(folder / "mine.py", SCORE.format(1.0) + "NUMBER = 3\n_hidden = print\nfrom os.path import join\n")
    assert called(f"{folder}/mine.py:score") == called("mine.py:score") == called("mine:score") == [1.0]
    assert named_function("math:sqrt")(4) == 2
    for name, says in (
        ("none.py:score", "does not name a function: there is no file none.py"),
        ("mine.py:other", "does not name a function; mine.py has score$"),
        ("mine.py:", "does not name a function; mine.py has score$"),
        ("mine.py", "does not name a function; mine.py has score$"),
        ("mine:other", "does not name a function; mine has score$"),
        ("mine.py:NUMBER", "is not a function, got int"),
        ("no.such.module:f", "does not name a function: ModuleNotFoundError: No module named 'no'"),
        (":f", "does not name a function"),
        ("..mine:score", "does not name a function"),
    ):
        with pytest.raises(ValueError, match=says) as error:
            named_function(name)
        assert "\n" not in str(error.value) and str(error.value).startswith(f"reward {name!r}")


def test_a_file_runs_as_a_module(folder):
    dataclass = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom beside import scale\n"
    )
    dataclass += "@dataclass\nclass Weights:\n    length: float = scale\n"
    write(folder / "sub" / "beside.py", "scale = 0.5\n")
    write(
        folder / "sub" / "mine.py",
        dataclass + SCORE.format("Weights().length") + "where = __file__, __name__\n",
    )
    assert called("sub/mine.py:score") == [0.5]
    module = sys.modules["mine"]
    assert module.where == (str(folder / "sub" / "mine.py"), "mine")
    assert pickle.loads(pickle.dumps(module.Weights(2.0))) == module.Weights(2.0)
    assert pickle.loads(pickle.dumps(module.score)) is module.score


def test_files_and_helpers_of_the_same_name_are_kept_apart(folder):
    for place, number in (("a", 1), ("b", 2)):
        write(folder / place / "beside.py", f"scale = {number}\n")
        write(folder / place / "mine.py", "from beside import scale\n" + SCORE.format("scale"))
    first = named_function("a/mine.py:score")
    second = named_function("b/mine.py:score")
    assert (first(["a"], ["b"]), second(["a"], ["b"])) == ([1], [2])
    assert first.__module__ == second.__module__ == "mine" and pickle.loads(pickle.dumps(second)) is second
    assert called("a/mine.py:score") == [1]


def test_a_file_never_takes_the_name_of_a_library(folder):
    write(folder / "statistics.py", SCORE.format(7))
    assert called("statistics.py:score") == [7]
    sys.path.remove(str(folder))
    importlib.invalidate_caches()
    assert importlib.import_module("statistics").mean([1, 3]) == 2


def test_a_module_that_is_in_use_is_not_replaced_by_another_file(folder):
    write(folder / "mine.py", SCORE.format(1))
    write(folder / "sub" / "mine.py", SCORE.format(2))
    assert called("sub/mine.py:score") == [2] and called("mine:score") == [1]
    assert called("sub/mine.py:score") == [2] and called("mine:score") == [1]


def test_a_change_of_the_file_or_of_what_it_imports_is_seen(folder):
    helper = write(folder / "beside.py", "scale = 1\n")
    mine = write(folder / "mine.py", "from beside import scale\n" + SCORE.format("scale + 1"))
    assert called("mine.py:score") == [2]
    write(helper, "scale = 5\n")  # the same size, in the same second
    assert called("mine.py:score") == [6]
    write(mine, "from beside import scale\n" + SCORE.format("scale + 2"))
    assert called("mine.py:score") == [7]
    assert not (folder / "__pycache__").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\ndef score(prompts, answers)\n    return 1", r"SyntaxError: .* \(mine.py, line 2\)$"),
        ("x = 1\n  y = 2", r"IndentationError: unexpected indent \(mine.py, line 2\)$"),
        ("\n\nimport no_such_package", r"ModuleNotFoundError: No module named .* \(mine.py, line 3\)$"),
        ("import beside", r"ZeroDivisionError: division by zero \(beside.py, line 2\)$"),
        ("import sys\nsys.exit('bye')", r"SystemExit: bye \(mine.py, line 2\)$"),
    ],
)
@pytest.mark.parametrize("name", ["mine.py:score", "mine:score"])
def test_an_error_in_it_is_one_line_with_its_own_number(folder, name, text, says):
    write(folder / "beside.py", "x = 0\nx = 1 / x\n")
    write(folder / "mine.py", text)
    with pytest.raises(ValueError, match=says) as error:
        named_function(name)
    assert "\n" not in str(error.value) and "mine" not in sys.modules


class Judge:
    def __init__(self, prompts, answers):
        pass

    def __call__(self, prompts, answers):
        return [1.0 for _ in answers]

    def score(self, prompts, answers):
        return [1.0 for _ in answers]


async def awaits(prompts, answers):
    return [1.0]


def yields(prompts, answers):
    yield 1.0


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda texts: texts, r"takes \(texts\)"),
        (lambda: 1, r"takes \(\)"),
        (lambda completions, **kw: completions, r"takes \(completions, \*\*kw\)"),
        (lambda *, prompts, answers: answers, r"takes \(\*, prompts, answers\)"),
        (lambda a, b, c: a, r"takes \(a, b, c\)"),
        (lambda completions, prompts: prompts, r"takes \(completions, prompts\), answers first"),
        (Judge, "is a class"),
        (awaits, "is not a plain function"),
        (yields, "is not a plain function"),
    ],
)
def test_a_function_that_cannot_be_called_as_a_reward_is_refused_before_it_is(function, says):
    wanted = (
        r"; it must take \(prompts, answers\), two lists of texts, and return one number for each answer$"
    )
    with pytest.raises(ValueError, match=f"^reward mine {says}.*{wanted}"):
        require_reward(function, "mine")


@pytest.mark.parametrize(
    "function",
    [
        lambda prompts, completions, **kw: completions,
        lambda *texts: texts,
        lambda a, b, c=1: a,
        Judge([], []),
        Judge([], []).score,
    ],
)
def test_whatever_takes_prompts_and_answers_is_a_reward(function):
    require_reward(function, "mine")


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("mine.py:score", True), ("package.module:score", True), (r"C:\work\mine.py:score", True), ("mine.py", True),
        (r"C:\models\judge", False), ("C:/models/judge", False), ("owner/name", False), ("true", False),
    ],
)  # fmt: skip
def test_names_of_functions_are_told_from_folders(name, is_one):
    assert names_function(name) is is_one


def test_a_folder_with_a_colon_is_a_folder(folder):
    (folder / "judge:2").mkdir()
    (folder / "judge:b").mkdir()
    assert not names_function("judge:2") and not names_function("judge:b")
