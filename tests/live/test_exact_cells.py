"""%%exact: cells run where all answers can be listed and are skipped with one line where not."""

from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell

from rlhflab.live.exact_cells import exact_cells


@pytest.fixture
def shell():
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def test_a_cell_runs_in_the_notebooks_names_and_its_last_expression_is_the_value(shell):
    exact_cells(SimpleNamespace(name="micro", enumerable=True))
    result = shell.run_cell("%%exact\ntotal = 0\nfor number in range(4):\n    total += number\ntotal + 1")
    assert result.result == 7 and shell.user_ns["total"] == 6
    assert shell.run_cell("%%exact\nlast = total").result is None and shell.user_ns["last"] == 6


def test_an_error_is_the_cells_own(shell, capsys):
    exact_cells(SimpleNamespace(name="micro", enumerable=True))
    result = shell.run_cell("%%exact\n1 / 0")
    assert isinstance(result.error_in_exec, ZeroDivisionError) and "1 / 0" in capsys.readouterr().out


def test_where_answers_cannot_be_listed_a_cell_is_skipped_with_one_line(shell, capsys):
    exact_cells(SimpleNamespace(name="reviews", enumerable=False))
    assert shell.run_cell("%%exact\nhere = True\nhere").success and "here" not in shell.user_ns
    assert capsys.readouterr().out.splitlines() == [
        "Skipped: needs the list of all answers, and the reviews world has too many."
    ]


def test_outside_a_notebook_it_says_so():
    with pytest.raises(RuntimeError, match="needs a notebook"):
        exact_cells(SimpleNamespace(name="micro", enumerable=True))
