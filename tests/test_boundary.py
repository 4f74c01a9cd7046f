"""Any failure of what a person gave is one line with its cause; out of memory and Ctrl-C pass through."""

import pytest

from rlhflab.boundary import Fault, given, one_line, own_line
from rlhflab.oom import OutOfMemory


def run(code, folder, name="rewards.py"):
    """Run `code` as Python runs a file of that name."""
    path = folder / name
    path.write_text(code)
    exec(compile(code, str(path), "exec"), {"__name__": "rewards"})


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def f():\n    raise KeyError('my bug')\nf()", "it: KeyError: 'my bug' (rewards.py, line 2)"),
        ("import json\njson.loads('{')", "(rewards.py, line 2)"),  # raised by a library, called from line 2
        ("x = 1\ndef f(:", "it: SyntaxError: invalid syntax (rewards.py, line 2)"),
        ("raise SystemExit('bye')", "it: SystemExit: bye (rewards.py, line 1)"),
        ("raise TypeError('two\\nlines')", "it: TypeError: two lines (rewards.py, line 1)"),
        ("assert False", "it: AssertionError (rewards.py, line 1)"),
    ],
)
def test_any_exception_becomes_one_line_with_its_place(tmp_path, code, says):
    with pytest.raises(Fault) as caught, given("it"):
        run(code, tmp_path)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "folder", ["dist-packages", "site-packages"]
)  # Debian's and Colab's, and a user's own
def test_the_place_is_in_a_persons_own_code_wherever_libraries_are(tmp_path, folder):
    (tmp_path / folder).mkdir()
    library = tmp_path / folder / "library.py"
    library.write_text("def f():\n    raise KeyError('deep')")
    names = {}
    exec(compile(library.read_text(), str(library), "exec"), names)
    with pytest.raises(Fault, match=r"KeyError: 'deep' \(test_boundary.py, line \d+\)"), given("it"):
        names["f"]()


@pytest.mark.parametrize(
    "cell", ["<ipython-input-3-0a1b2c>", "/tmp/ipykernel_12/345.py", "/tmp/ipython-input-7-8.py"]
)
def test_a_cell_of_a_notebook_is_a_persons_own_code(cell):
    with pytest.raises(KeyError) as caught:
        exec(compile("x = 1\nraise KeyError('a')", cell, "exec"))
    frame = own_line(caught.value)
    assert (frame.filename, frame.lineno) == (cell, 2)


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), MemoryError(), RuntimeError("CUDA out of memory"), OutOfMemory("it ran out")],
)
def test_what_has_a_way_of_its_own_passes_through(error):
    with pytest.raises(type(error)) as caught, one_line("model 'x'"):
        raise error
    assert caught.value is error


def test_a_line_within_a_line_is_said_once():
    with pytest.raises(Fault) as caught, given("the file"), given("the row"):
        raise KeyError("a")
    assert str(caught.value).startswith("the row: KeyError: 'a' (test_boundary.py, line ")


def test_loading_says_what_was_loaded_and_what_could_be():
    with pytest.raises(Fault) as caught, one_line("model 'x'", "expected a folder"):
        raise KeyError("lm_head")
    assert str(caught.value).startswith("cannot load model 'x' (expected a folder): KeyError: 'lm_head'")
