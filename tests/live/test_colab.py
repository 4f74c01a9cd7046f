"""On Colab a running cell answers widget messages and leaves other cells their turn."""

from __future__ import annotations

import json
import queue
from types import SimpleNamespace
from typing import Any

import pytest

from rlhflab.live import colab
from rlhflab.live.colab import answer_widgets


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
