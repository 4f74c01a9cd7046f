"""On Colab a running cell answers widget messages and leaves other cells their turn; runs may lie in Google Drive."""

from __future__ import annotations

import json
import queue
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from rlhflab.live import colab
from rlhflab.live.colab import answer_widgets, drive_folder


def message(kind: str) -> list[list[bytes]]:
    return [[b"client", b"<IDS|MSG>", b"signature", json.dumps({"msg_type": kind}).encode(), b"{}"]]


def test_widget_messages_are_answered_and_cells_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = []

    async def dispatch(parts: list[bytes]) -> None:
        answered.append(json.loads(parts[3])["msg_type"])

    waiting: queue.Queue[Any] = queue.Queue()
    kernel = SimpleNamespace(shell_stream=SimpleNamespace(flush=lambda: None), msg_queue=waiting)
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=kernel))
    monkeypatch.setattr(colab, "version", lambda _: "6.17.1")
    for kind in ("comm_msg", "execute_request", "comm_close"):
        waiting.put((0, dispatch, message(kind)))
    waiting.put((0, dispatch, [[b"no message"]]))
    answer_widgets()()
    assert answered == ["comm_msg", "comm_close"]
    assert [waiting.get_nowait()[2] for _ in range(waiting.qsize())] == [
        message("execute_request"),
        [[b"no message"]],
    ]


def test_where_the_kernel_answers_by_itself_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_widgets()()  # no kernel
    kernel = SimpleNamespace()  # without streams: touching them would fail
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=kernel))
    monkeypatch.setattr(colab, "version", lambda _: "7.0.0")
    answer_widgets()()


def test_a_folder_in_google_drive_or_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="Google Drive can be used in Colab only"):
        drive_folder("runs")
    module, mounted = ModuleType("google.colab"), []
    module.drive = SimpleNamespace(mount=mounted.append)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "google", ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", module)
    assert str(drive_folder("runs")) == "/content/drive/MyDrive/runs" and mounted == ["/content/drive"]

    def refuse(where: str) -> None:
        raise RuntimeError("credential propagation was unsuccessful")

    module.drive.mount = refuse  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"was not mounted: credential .*; run the cell again and allow it"):
        drive_folder("runs")
