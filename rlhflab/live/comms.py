"""Answer widget messages while a cell runs, in cases where the kernel itself would answer them only afterwards.

JupyterLab sends them to subshells of ipykernel 7, which stay free while a cell runs. Otherwise (its setting
commsOverSubshells is "disabled", another front end, ipykernel 6 as on Colab) they queue behind the running cell, in the
kernel's main shell; but a waiting cell can take them out of that queue.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

Message = list[Any]  # from the front end, in parts: identities, delimiter, signature, header, …


def answer_widgets() -> Callable[[], None]:
    """Return a function that answers the widget messages queued behind the running cell; all others keep their order.

    Call it repeatedly while the cell runs. It does nothing outside the main thread of an ipykernel 6 or 7.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(shell, "kernel", None)
    if kernel is None or threading.current_thread() is not threading.main_thread():
        return lambda: None
    try:
        take = _taker(kernel)
        with _same_request(kernel):
            dispatch = kernel.dispatch_shell
    except (AttributeError, KeyError):
        return lambda: None  # another kind of kernel

    def answer() -> None:
        while True:
            with _interrupt_later(kernel):  # in between, it would lose what has been taken
                message = take()
                if message is None:
                    return
                # One step is all of it: handlers of widget messages never await.
                with _same_request(kernel), contextlib.suppress(StopIteration):
                    dispatch(message).send(None)

    return answer


def _taker(kernel: Any) -> Callable[[], Message | None]:
    """Return a function that takes the first widget message out of the main shell's queue; None if there is none."""
    channel = getattr(kernel, "shell_channel_thread", None)
    if channel is None and hasattr(kernel, "msg_queue"):
        return lambda: _take_from_queue(kernel.shell_stream, kernel.msg_queue)
    pair = None if channel is None else channel.manager.get_shell_channel_to_subshell_pair(None)
    stream = kernel.shell_stream if pair is None else pair.to_stream
    stream.flush, stream._recv_callback  # noqa: B018  here, not at the first message, if they are missing
    return lambda: _take_from_stream(stream)


def _take_from_queue(stream: Any, queue: Any) -> Message | None:
    """ipykernel 6: a queue of (number, function, arguments), filled from a stream."""
    stream.flush()
    items = [queue.get_nowait() for _ in range(queue.qsize())]
    found = next((item for item in items if _is_widget_message(item[2])), None)
    for item in items:
        if item is not found:
            queue.put_nowait(item)
    return None if found is None else list(found[2][0])


def _take_from_stream(stream: Any) -> Message | None:
    """ipykernel 7: a stream whose callback makes each message a task; the tasks then wait for the cell, in order."""
    found: list[Message] = []
    make_task = stream._recv_callback

    def sort(message: Message) -> Any:
        return found.append(message) if _is_widget_message([message]) else make_task(message)

    stream.on_recv(sort, copy=False)
    try:
        while not found and stream.flush(limit=1):
            pass
    finally:
        stream.on_recv(make_task, copy=False)
    return found[0] if found else None


def _is_widget_message(arguments: Any) -> bool:
    """Whether the first of a handler's arguments is a comm message."""
    try:
        parts = [bytes(part) for part in arguments[0]]
        header = json.loads(parts[parts.index(b"<IDS|MSG>") + 2])
        return str(header["msg_type"]).startswith("comm_")
    except (IndexError, KeyError, TypeError, ValueError):
        return False


@contextlib.contextmanager
def _same_request(kernel: Any) -> Iterator[None]:
    """Restore the kernel's current request on exit, whatever request was handled inside.

    Otherwise everything the cell prints from then on, and its end, would be attributed to the widget message.
    """
    identity, request = kernel._parent_ident["shell"], kernel.get_parent("shell")
    try:
        yield
    finally:
        if kernel.get_parent("shell") is not request:
            kernel.set_parent(identity, request, "shell")
            kernel._publish_status("busy", "shell")


@contextlib.contextmanager
def _interrupt_later(kernel: Any) -> Iterator[None]:
    """Delay an interrupt of the cell until the end of the block; a second one also stops the handler that runs then.

    The kernel's own hooks around a message would let it reach the handler alone, and drop it there.
    """
    signals: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, interrupt)
    hooks = kernel.pre_handler_hook, kernel.post_handler_hook
    kernel.pre_handler_hook = kernel.post_handler_hook = lambda: None
    try:
        yield
    finally:
        kernel.pre_handler_hook, kernel.post_handler_hook = hooks
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
        if signals:
            signal.raise_signal(signal.SIGINT)
