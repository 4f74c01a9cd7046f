"""What is special in Colab: widgets that work while a cell runs, which its kernel would answer only after it; Drive."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any


def answer_widgets() -> Callable[[], None]:
    """Return a function that answers the widget messages waiting at the kernel; other cells keep their turn.

    Call it again and again while a cell runs. Outside a kernel, and where ipykernel answers by itself, it does nothing.
    """

    def nothing() -> None:
        return None

    try:
        from IPython import get_ipython

        kernel = getattr(get_ipython(), "kernel", None)
        if kernel is None or int(version("ipykernel").split(".")[0]) >= 7:
            return nothing  # ipykernel 7 answers widgets in subshells by itself
        stream, queue = kernel.shell_stream, kernel.msg_queue
    except (ImportError, AttributeError, ValueError):
        return nothing

    def poll() -> None:
        stream.flush()
        later = []
        while queue.qsize():
            item = queue.get_nowait()
            dispatch, args = item[1], item[2]
            if not _is_widget_message(args):
                later.append(item)
                continue
            with contextlib.suppress(StopIteration):
                dispatch(*args).send(None)
        for item in later:
            queue.put_nowait(item)

    return poll


def drive_folder(name: str) -> Path:
    """A folder of the user's Google Drive, which outlives the session; Colab asks for permission the first time.

    Raises:
        ValueError: this is not Colab, or the permission was not given, in one line.
    """
    try:
        from google.colab import drive
    except ImportError:
        raise ValueError(
            "Google Drive can be used in Colab only; elsewhere runs stay in a folder here"
        ) from None
    try:
        drive.mount("/content/drive")
    except Exception as error:  # Colab raises errors of many kinds
        raise ValueError(f"Google Drive was not mounted: {error}; run the cell again and allow it") from error
    return Path("/content/drive/MyDrive") / name


def _is_widget_message(args: Any) -> bool:
    """Whether a queued kernel message is a comm message; its parts are identities, delimiter, signature, header, …"""
    try:
        parts = [bytes(part) for part in args[0]]
        header = json.loads(parts[parts.index(b"<IDS|MSG>") + 2])
        return str(header["msg_type"]).startswith("comm_")
    except (IndexError, KeyError, TypeError, ValueError):
        return False
