"""A refusal is one line in a notebook too."""

import pytest
from IPython.core.interactiveshell import InteractiveShell

from rlhflab.remedies import Refusal, plainly


def test_a_notebook_shows_a_refusal_without_a_traceback(capsys):
    shell = InteractiveShell()
    result = shell.run_cell(
        "from rlhflab.remedies import plainly\nwith plainly():\n    raise ValueError('no room: take --lora')"
    )
    assert isinstance(result.error_in_exec, Refusal)
    out = capsys.readouterr().out
    assert out.strip() == "✗ no room: take --lora"


def test_other_errors_stay_what_they_are():
    with pytest.raises(KeyError), plainly():
        raise KeyError("a mistake in the program")
