"""Output for any terminal: replacements where the encoding lacks β or →, and commands to copy into a shell."""

from __future__ import annotations

import codecs
import os
import shlex
import subprocess
import sys
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path

WINDOWS = os.name == "nt"
_OURS = Path(__file__).parents[1]
_usual = warnings.formatwarning
PLAIN = {
    "→": "->", "←": "<-", "≥": ">=", "≤": "<=", "≈": "~", "×": "x", "·": ".", "±": "+-", "−": "-", "–": "-", "—": "-",
    "…": "...", "✓": "+", "✗": "x", "½": "1/2", "√": "sqrt ", "∞": "inf",
}  # fmt: skip


def speak_any_code_page() -> None:
    """Let stdout and stderr spell out characters that their encoding lacks, and print a warning as one line."""
    codecs.register_error("rlhflab", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's streams do not need it
            stream.reconfigure(errors="rlhflab")
    warnings.formatwarning = _warning


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(in_ascii, error.object[error.start : error.end])), error.end


def in_ascii(character: str) -> str:
    r"""A character spelt out in ASCII.

    >>> "".join(map(in_ascii, "β→≥Δ日"))
    'beta->>=Delta\\u65e5'
    """
    name = unicodedata.name(character, "")
    if name.startswith(("GREEK SMALL LETTER ", "GREEK CAPITAL LETTER ")):
        letter = name.split()[3].lower()
        return letter.capitalize() if "CAPITAL" in name else letter
    return PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode()


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    if Path(filename).is_relative_to(_OURS):
        return f"rlhflab: {' '.join(str(message).split())}\n"
    return _usual(message, category, filename, lineno, line)


def command(*words: object) -> str:
    """A command of `rlhflab` as this machine's shell reads it, quoted if a word has spaces.

    >>> command("report", "runs/my run")
    "rlhflab report 'runs/my run'"
    """
    texts: Sequence[str] = ["rlhflab", *map(str, words)]
    return subprocess.list2cmdline(texts) if WINDOWS else shlex.join(texts)
