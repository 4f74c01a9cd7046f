"""A running cell answers widget messages and leaves everything else its turn: in real kernels, without a browser."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlhflab.live.comms import answer_widgets

ROOT = Path(__file__).resolve().parents[2]
OPEN = """
import os, signal, time
from rlhflab.live.comms import answer_widgets
heard, order = [], []
def hear(message):
    heard.append(message["content"]["data"])
    print("the handler prints")
    if heard[-1] == "poll":
        answer_widgets()()
    if heard[-1] == "interrupt me":
        os.kill(os.getpid(), signal.SIGINT)
        heard.append("to the end")
    if heard[-1] == "interrupt me twice":
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        heard.append("to the end")
kernel = get_ipython().kernel
kernel.comm_manager.register_target("test", lambda comm, message: comm.on_msg(hear))
"""
POLL = """
before = kernel.saved_sigint_handler
poll, end = answer_widgets(), time.monotonic() + 60
print("polling")
while len(heard) < 6 and time.monotonic() < end:
    time.sleep(0.05)
    poll()
in_time = list(heard)
same = kernel.saved_sigint_handler is before and signal.getsignal(signal.SIGINT) is signal.default_int_handler
print("the cell prints")
"""
INTERRUPTED = (
    "try:\n    " + POLL.replace("\n", "\n    ") + "\nexcept KeyboardInterrupt:\n    print('interrupted')"
)


class Kernel:
    """A client of a real kernel.

    Attributes:
        outputs: text by the request that wrote it.
        states: busy and idle, by request.
    """

    def __init__(self, manager: Any) -> None:
        self.manager = manager
        self.client = manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.outputs: dict[str, str] = {}
        self.states: dict[str, list[str]] = {}

    def run(self, code: str) -> str:
        return str(self.client.execute(code))

    def tell(self, kind: str, **content: Any) -> str:
        """Send a comm message, as a page without subshells does; returns its id."""
        message = self.client.session.msg(kind, {"comm_id": "slider", **content})
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def read(self) -> None:
        """Read one message."""
        message = self.client.get_iopub_msg(timeout=60)
        parent, content = message["parent_header"].get("msg_id", ""), message["content"]
        if message["msg_type"] == "stream":
            self.outputs[parent] = self.outputs.get(parent, "") + content["text"]
        if message["msg_type"] == "status":
            self.states.setdefault(parent, []).append(content["execution_state"])

    def read_until_idle(self, request: str) -> str:
        """Read until a request's end and return what it has printed."""
        while "idle" not in self.states.get(request, []):
            self.read()
        return self.outputs.get(request, "")

    def start(self, code: str) -> str:
        """Run a cell that polls, and return its request once it does."""
        request = self.run(code)
        while "polling\n" not in self.outputs.get(request, ""):
            self.read()
        return request

    def reply(self, request: str) -> str:
        """Return the status of the reply to a request, dropping those before it."""
        while True:
            message = self.client.get_shell_msg(timeout=60)
            if message["parent_header"]["msg_id"] == request:
                return str(message["content"]["status"])


@pytest.fixture(params=["installed", "of Colab"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """A kernel of ipykernel 7, and one of Colab's ipykernel 6."""
    from jupyter_client.manager import KernelManager

    python = sys.executable if request.param == "installed" else str(request.getfixturevalue("colab_python"))
    manager = KernelManager()
    manager.kernel_spec.argv[0] = python
    manager.start_kernel(env={**os.environ, "PYTHONPATH": str(ROOT)})
    kernel = Kernel(manager)
    try:
        kernel.reply(kernel.run(OPEN))
        kernel.tell("comm_open", target_name="test", data={})
        yield kernel
    finally:
        kernel.client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_widget_messages_are_answered_in_the_cell_and_other_cells_keep_their_order(kernel: Kernel) -> None:
    cell = kernel.start(POLL)
    others, moves = [], []
    for number in range(6):
        moves.append(kernel.tell("comm_msg", data=number))
        others.append(kernel.run(f"order.append({number})"))
        time.sleep(0.1)
    said = kernel.read_until_idle(kernel.run("print(in_time, heard, order, same)"))
    numbers = list(range(6))
    assert said == f"{numbers} {numbers} {numbers} True\n"
    assert [request for request in kernel.states if request in others] == others
    # Each request has its own end and its own output; the kernel is busy with the cell again after each message.
    assert kernel.outputs[cell] == "polling\nthe cell prints\n" and kernel.states[cell] == ["busy"] * 7 + [
        "idle"
    ]
    assert all(kernel.outputs[move] == "the handler prints\n" for move in moves)
    assert all(kernel.states[move] == ["busy", "idle"] for move in moves)


def test_an_interrupt_loses_no_request(kernel: Kernel) -> None:
    """The kernel aborts what is queued behind an interrupted cell, and says so to each request."""
    cell = kernel.start(INTERRUPTED)
    others = []
    for number in range(40):
        kernel.tell("comm_msg", data=number) if number < 3 else None
        others.append(kernel.run(f"order.append({number})"))
        if number == 20:
            kernel.manager.interrupt_kernel()
    said = kernel.read_until_idle(kernel.run("print(order == list(range(40)))"))
    assert kernel.outputs[cell] == "polling\ninterrupted\n" and said == "True\n"


@pytest.mark.parametrize(
    "times, heard", [("", ["interrupt me", "to the end"]), (" twice", ["interrupt me twice"])]
)
def test_an_interrupt_while_a_widget_is_answered_stops_the_cell(
    kernel: Kernel, times: str, heard: list[str]
) -> None:
    """The widget's handler comes to its end, unless it is interrupted again."""
    cell = kernel.start(INTERRUPTED)
    kernel.tell("comm_msg", data="interrupt me" + times)
    assert kernel.read_until_idle(cell) == "polling\ninterrupted\n"
    said = kernel.read_until_idle(kernel.run("print(heard, kernel.saved_sigint_handler is before)"))
    assert said == f"{heard} True\n"


def test_a_handler_may_answer_widgets_itself(kernel: Kernel) -> None:
    cell = kernel.start("heard += [0, 0, 0, 0]\n" + POLL)
    kernel.tell("comm_msg", data="poll")
    kernel.tell("comm_msg", data="b")
    assert kernel.read_until_idle(cell) == "polling\nthe cell prints\n"
    assert kernel.read_until_idle(kernel.run("print(in_time[4:])")) == "['poll', 'b']\n"


def test_a_message_that_makes_no_sense_is_dropped_and_the_cell_goes_on(kernel: Kernel) -> None:
    cell = kernel.start("heard += [0, 0, 0, 0]\n" + POLL)
    kernel.tell("comm_msg")  # without data: the handler raises
    kernel.client.shell_channel.socket.send_multipart(
        [b"<IDS|MSG>", b"forged", b'{"msg_type": "comm_msg"}', b"{}", b"{}", b"{}"]
    )
    kernel.tell("comm_msg", data="a")
    kernel.tell("comm_msg", data="b")
    assert kernel.read_until_idle(cell) == "polling\nthe cell prints\n"
    assert kernel.read_until_idle(kernel.run("print(in_time[4:])")) == "['a', 'b']\n"


def test_nothing_is_done_without_a_kernel_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_widgets()()  # no kernel
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=SimpleNamespace()))
    answer_widgets()()  # of another make: without streams, touching them would fail


def test_only_the_main_thread_touches_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[str] = []

    class Spy:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            touched.append(name)
            raise AttributeError(name)

    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=Spy()))
    thread = threading.Thread(target=lambda: answer_widgets()())
    thread.start()
    thread.join()
    assert touched == []
    answer_widgets()()
    assert touched
