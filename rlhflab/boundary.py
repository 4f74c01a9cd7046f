"""The boundary to user input: files, models, rewards, environments.

Any error inside becomes a `Fault`: one line that names the input and the cause. Only calls into code that is not ours
are inside, so that a bug of ours keeps its traceback.
"""

from __future__ import annotations

import logging
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhflab.oom import is_out_of_memory
from rlhflab.remedies import OneLine

_OURS = Path(__file__).parent
_LIBRARIES = tuple(
    {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)

_TYPED = ("<ipython-input", "<python-input", "<stdin>")  # newer IPythons name a cell like a temporary file


class Fault(OneLine, ValueError):
    """User input is wrong or has failed: the line says what, and why."""


@contextmanager
def given(what: str, reason: Callable[[BaseException], str] | None = None) -> Iterator[None]:
    """Run or read user input: any exception becomes a `Fault`, "what: reason".

    Out of memory, Ctrl-C and errors that are already one line pass through; SystemExit counts as a failure.

    Args:
        what: the input, for the message: "reward rewards.py:score".
        reason: an exception → why, in words; by default `cause`.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, OneLine) or is_out_of_memory(error):
            raise
        raise Fault(f"{what}: {(reason or cause)(error)}") from error


def cause(error: BaseException) -> str:
    """An exception in one line: its class and message, and its place in the user's own code.

    >>> cause(KeyError("score"))
    "KeyError: 'score'"
    """
    if isinstance(error, SyntaxError):
        place = f" ({Path(error.filename).name}, line {error.lineno})" if error.filename else ""
        return f"{type(error).__name__}: {error.msg}{place}"
    text = " ".join(str(error).split())
    words = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
    return words + _place(error)


def own_line(error: BaseException) -> traceback.FrameSummary | None:
    """Innermost line of the user's own code, in a file or a notebook's cell; None if the traceback has none."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame for frame in reversed(frames) if is_own(frame.filename)), None)


def is_own(filename: str) -> bool:
    """Whether code is the user's own, from a file or a cell: neither this package's nor a library's."""
    if filename.startswith(_TYPED):
        return True
    path = Path(filename)
    installed = {"site-packages", "dist-packages"} & set(path.parts)  # a user's or a distribution's, too
    return path.suffix == ".py" and not installed and not any(map(path.is_relative_to, (_OURS, *_LIBRARIES)))


def _place(error: BaseException) -> str:
    frame = own_line(error)
    return f" ({Path(frame.filename).name}, line {frame.lineno})" if frame else ""


@contextmanager
def one_line(what: str, otherwise: str = "") -> Iterator[None]:
    """Turn errors while loading something from a hub or a folder into a `Fault` with its remedy.

    Args:
        what: what is being loaded, for the message, such as "model 'gpt2'".
        otherwise: what could be given instead, for the message.
    """
    retries = logging.getLogger("huggingface_hub.utils._http")  # logs every retry; the final line is enough
    level = retries.level
    retries.setLevel(logging.ERROR)
    hint = f" ({otherwise})" if otherwise else ""
    try:
        with given(f"cannot load {what}{hint}", _reason):
            yield
    finally:
        retries.setLevel(level)


def _reason(error: BaseException) -> str:
    """The reason, from the whole chain of causes: libraries wrap a hub's answer in their own errors."""
    chain = list(_causes(error))
    names = {kind.__name__ for cause in chain for kind in type(cause).__mro__}
    text = " ".join(" ".join(str(error).split()).split(" Traceback ")[0].split())
    if "GatedRepoError" in names or re.search(r"\bgated (repo|dataset)", text):
        return (
            "it is gated: accept its terms on its hub page, then give a token by `hf auth login` or HF_TOKEN"
        )
    if "trust_remote_code" in text:
        return "it comes with code of its own, which is not run; give --trust-remote-code if you trust its authors"
    if "RepositoryNotFoundError" in names or "DatasetNotFoundError" in names or "not a valid model" in text:
        return (
            "the hub has no such name, or it is private; for that give a token by `hf auth login` or HF_TOKEN"
        )
    if names & {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectError", "ConnectionError"}:
        return (
            "it is not in the cache and the hub cannot be reached; check the network and HF_HUB_OFFLINE, or give "
            "the folder or file of a copy"
        )
    if "instantiate the backend tokenizer" in text:
        return "it has no vocabulary (tokenizer.json); copy the tokenizer's files from the model it was made from"
    if "Unrecognized configuration class" in text:
        return "transformers has no model of this kind for its architecture"
    if "safetensors" in text and ("no file named" in text or "does not appear to have" in text):
        return "it has no weights in safetensors; others can hold code and are not read"
    if "DatasetGenerationError" in names:  # its own message says nothing
        said = [
            " ".join(str(cause).split()).removeprefix("An error occurred while generating the dataset")
            for cause in chain
        ]
        differ = (
            "its files differ in columns or types: "
            if names & {"CastError", "DatasetGenerationCastError"}
            else ""
        )
        return (differ + next((words for words in said if words), cause(chain[-1])))[:300]
    return text[:300] if isinstance(error, OSError | ValueError | ImportError) and text else cause(error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
