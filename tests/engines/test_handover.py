"""A loop that is turned inside out: it runs when it is given something, and rests where it asks for more."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import pytest

from rlhflab.engines.handover import HandOver


def doubler(out):
    def loop(items):
        out.append("begun")
        for item in items:
            if item == 13:
                raise ArithmeticError("thirteen")
            out.append(2 * item)
            if item == 99:
                break
        out.append("done")

    return loop


def test_it_runs_up_to_its_next_request_and_no_further():
    out = []
    loop = HandOver(doubler(out), "doubler")
    assert out == []
    loop.start()
    loop.start()
    assert out == ["begun"]
    loop.send(3)
    assert out == ["begun", 6]
    time.sleep(0.05)
    assert out == ["begun", 6] and not loop.ended
    loop.send(99)
    assert out == ["begun", 6, 198, "done"] and loop.ended
    with pytest.raises(RuntimeError, match="doubler is over"):
        loop.send(1)


def test_rest_waits_for_a_step_that_an_interrupt_has_left_under_way():
    out, go_on = [], threading.Event()

    def loop(items):
        for item in items:
            go_on.wait(5)
            out.append(item)
            if item == 2:
                raise ArithmeticError("two")

    handover = HandOver(loop, "slow")
    handover.rest()  # it has not begun: there is nothing to wait for
    handover.start()
    for item in (1, 2):
        go_on.clear()
        sent = threading.Thread(target=lambda item=item: suppressed(handover.send, item))
        sent.start()
        threading.Timer(0.05, go_on.set).start()
        handover.rest()  # the second one's error is no news
        assert out[-1] == item
        sent.join(5)
    assert handover.ended


def suppressed(send, item):
    with suppress(ArithmeticError):
        send(item)


def test_any_thread_may_send():
    out = []
    loop = HandOver(doubler(out), "doubler")
    for item in (1, 2):
        thread = threading.Thread(target=loop.send, args=(item,))
        thread.start()
        thread.join(5)
    assert out == ["begun", 2, 4]
    loop.close()


def test_what_the_loop_raises_is_raised_where_it_was_sent_for():
    loop = HandOver(doubler([]), "doubler")
    loop.send(1)
    with pytest.raises(ArithmeticError, match="thirteen") as raised:
        loop.send(13)
    assert raised.traceback[-1].name == "loop"
    assert loop.ended


def test_closing_unwinds_the_loop_and_ends_its_thread():
    unwound = []

    def loop(items):
        try:
            for _ in items:
                pass
        except Exception:
            unwound.append("taken for an error")
        finally:
            unwound.append("unwound")

    handover = HandOver(loop, "closed")
    handover.send(1)
    thread = next(thread for thread in threading.enumerate() if thread.name == "closed")
    handover.close()
    thread.join(5)
    assert not thread.is_alive() and unwound == ["unwound"] and handover.ended


def test_closing_before_the_start_or_after_the_end_is_nothing():
    handover = HandOver(lambda items: None, "idle")
    handover.close()
    handover.start()
    handover.close()
    assert handover.ended


def test_after_an_interrupted_wait_the_step_under_way_is_waited_for(monkeypatch):
    out, gate, waits = [], threading.Event(), []

    def slow(items):
        for item in items:
            gate.wait(5)
            out.append(item)

    loop = HandOver(slow, "slow")
    loop.start()
    wait_for = loop._turn.wait_for

    def ctrl_c_at_the_second(predicate):
        if threading.current_thread() is threading.main_thread():
            waits.append(predicate)
            if len(waits) == 2:  # the item has been given
                raise KeyboardInterrupt
        return wait_for(predicate)

    monkeypatch.setattr(loop._turn, "wait_for", ctrl_c_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        loop.send(1)
    gate.set()
    loop.send(2)
    assert out == [1, 2]
    loop.close()
