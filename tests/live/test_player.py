"""The player's states, its knobs' mailbox, its three drivers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from rlhflab.core.record import Record
from rlhflab.live import player as player_module
from rlhflab.live.player import Player, choose_driver
from tests.live.toy import ToyDPO, ToyKnobs

QUICK = 0.002  # seconds a toy step sleeps


@pytest.fixture(autouse=True)
def no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RLHFLAB_DRIVER", raising=False)
    yield
    for thread in threads():
        thread.join(5)
    assert not threads()


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("rlhflab") and not t.name.endswith("pump")]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.002)


def player_of(records: list[Record], steps: int = 10_000, **settings: object) -> Player:
    return Player(lambda: ToyDPO(steps=steps, pause=QUICK), [records.append], **settings)  # type: ignore[arg-type]


def test_a_run_from_start_to_end() -> None:
    records: list[Record] = []
    player = player_of(records, steps=20)
    assert (player.state, player.steps, player.steps_done) == ("idle", 0, 0)
    player.start()
    assert player.wait(20)
    assert player.state == "finished"
    assert [record.step for record in records] == list(range(1, 21))
    player.start()  # after the end nothing happens
    assert player.state == "finished" and len(records) == 20


def test_pause_rests_and_resume_goes_on() -> None:
    records: list[Record] = []
    player = player_of(records)
    player.start()
    until(lambda: len(records) > 5)
    assert player.rate > 0 and player.seconds_left is not None
    player.pause()
    assert player.wait(10) and player.state == "paused"
    seen = len(records)
    time.sleep(0.05)
    assert len(records) == seen and player.rate == 0
    player.resume()
    until(lambda: len(records) > seen + 3)
    player.stop()
    assert player.state == "stopped"


def test_step_makes_one_step() -> None:
    records: list[Record] = []
    player = player_of(records)
    for expected in (1, 2):
        player.step()
        assert player.wait(10)
        assert (player.state, len(records)) == ("paused", expected)
    player.step(3)
    assert player.wait(10) and len(records) == 5
    player.stop()


def test_step_while_running_rests_after_it() -> None:
    records: list[Record] = []
    player = player_of(records)
    player.start()
    until(lambda: len(records) > 3)
    player.step()
    assert player.wait(10) and player.state == "paused"
    player.stop()


def test_stop_joins_the_thread() -> None:
    player = player_of([])
    player.start()
    until(lambda: player.state == "running")
    assert len(threads()) == 1
    assert player.stop()
    assert not threads() and player.state == "stopped"


def test_an_exception_ends_the_run_and_wait_raises_it() -> None:
    player = Player(lambda: ToyDPO(fail_at=4, pause=0))
    player.start()
    with pytest.raises(RuntimeError, match="NaN at step"):
        player.wait(10)
    assert player.state == "error" and "__next__" in player.traceback and player.steps_done == 3
    player.reset()
    assert player.state == "idle" and player.error is None


def test_an_exception_in_make_or_in_a_sink_ends_the_run_too() -> None:
    def broken(_record: Record) -> None:
        raise OSError("disk full")

    def no_model() -> ToyDPO:
        raise ValueError("no such model")

    for player, error in (
        (Player(lambda: ToyDPO(pause=0), [broken]), "disk full"),
        (Player(no_model), "no such model"),
    ):
        with pytest.raises((OSError, ValueError), match=f"^{error}$"):
            player.run(10)
        assert player.state == "error"


def test_after_an_error_it_can_go_on_from_the_last_whole_update() -> None:
    records: list[Record] = []
    told: list[BaseException] = []

    class Sink:
        def __call__(self, record: Record) -> None:
            records.append(record)

        def failed(self, error: BaseException) -> None:
            told.append(error)
            raise OSError("disk full")  # not what the player tells

    for driver in ("thread", "blocking"):
        records.clear()
        algorithm = ToyDPO(steps=6, fail_at=4, pause=0)
        player = Player(lambda algorithm=algorithm: algorithm, [Sink()], driver)  # type: ignore[arg-type, misc]
        with pytest.raises(RuntimeError, match="NaN at step"):
            player.run(10)
        assert told.pop() is player.error and not told
        player.start()  # afresh only after a reset
        assert player.state == "error"
        algorithm.rewind = lambda: False  # type: ignore[method-assign]
        player.resume()
        assert player.state == "error" and player.error is not None
        del algorithm.rewind
        algorithm._fail_at = None
        player.resume()
        assert (
            player.wait(10) and player.state == "finished" and player.error is None and not player.traceback
        )
        assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]


def blocking(**settings: object) -> tuple[Player, list[Record]]:
    """A player whose every call returns when the training rests."""
    records: list[Record] = []
    player = Player(lambda: ToyDPO(steps=20, pause=0), [records.append], "blocking", **settings)  # type: ignore[arg-type]
    return player, records


def test_single_steps_are_counted_down_and_forgotten_by_pause_and_resume() -> None:
    player, records = blocking()
    for steps, whole in ((3, 3), (1, 4), (2, 6)):
        player.step(steps)
        assert (len(records), player.state) == (whole, "paused")
    seen: list[int] = []

    def press(record: Record) -> None:  # buttons that are pressed while steps are under way
        seen.append(record.step)
        if record.step == 2:
            player.step(2)  # two more than the one that is left
        if record.step == 6:
            player.pause()  # none of the four that are left
        if record.step == 9:
            player.resume()

    player = Player(lambda: ToyDPO(steps=12, pause=0), [press], "blocking")
    player.step(3)
    assert seen == [1, 2, 3, 4, 5]
    player.step(5)
    assert seen[-1] == 6 and player.state == "paused"
    player.step(3)
    assert seen[-1] == 12 and player.state == "finished"  # resumed at 9: the last of the three was no end


def test_the_mailbox_is_emptied_by_the_step_that_takes_it() -> None:
    player, records = blocking(specs=ToyKnobs.specs)
    player.set_knob("beta", 0.5)
    player.set_knob("learning_rate", 1e-3)
    player.set_knob("beta", 0.7)
    assert player.knobs == {"beta": 0.7, "learning_rate": 1e-3}
    player.step()
    assert records[-1].knobs == {"beta": 0.7, "learning_rate": 1e-3}
    assert player.algorithm is not None
    player.algorithm.knobs.beta = 0.9  # as an algorithm that adapts it: an old value must not come back
    assert player.knobs["beta"] == 0.9
    player.step()
    assert records[-1].knobs["beta"] == 0.9 == player.knobs["beta"]


def test_wanted_knobs_outlive_a_reset_but_for_those_that_were_refused() -> None:
    player, records = blocking()
    player.set_knob("beta", 2.0)
    player.set_knob("learning_rate", -1.0)  # nobody knows yet that this is not allowed
    player.step()
    assert "learning_rate must be" in player.notice
    assert records[-1].knobs == {"beta": 2.0, "learning_rate": 5e-4}
    player.set_knob("learning_rate", 1e-3)
    assert player.notice == ""
    player.reset()
    assert player.algorithm is None and player.knobs == {"beta": 2.0, "learning_rate": 1e-3}
    player.step()
    assert records[-1].step == 1 and records[-1].knobs == {"beta": 2.0, "learning_rate": 1e-3}


def test_the_newest_value_of_a_knob_wins_and_the_record_says_so() -> None:
    records: list[Record] = []
    player = player_of(records)
    player.step()
    player.wait(10)
    for beta in (0.5, 0.6, 0.7):
        player.set_knob("beta", beta)
    assert player.knobs["beta"] == 0.7
    until(
        lambda: player.algorithm is not None and player.algorithm.knobs.snapshot()["beta"] == 0.7
    )  # paused, too
    player.step()
    player.wait(10)
    assert [record.knobs["beta"] for record in records] == [0.3, 0.7]
    player.stop()


def test_knobs_are_applied_on_the_training_thread_only() -> None:
    writers = set()

    class Watched(ToyKnobs):
        def __setattr__(self, name: str, value: float) -> None:
            writers.add(threading.current_thread().name)
            super().__setattr__(name, value)

    def make() -> ToyDPO:
        algorithm = ToyDPO(pause=QUICK)
        algorithm.knobs = Watched()
        return algorithm

    player = Player(make, name="watched")
    player.start()
    until(lambda: player.steps_done > 2)
    player.set_knob("beta", 2.0)
    until(lambda: player.record is not None and player.record.knobs["beta"] == 2.0)
    player.stop()
    assert writers == {"rlhflab-watched"}


def test_knobs_set_before_the_start_and_kept_over_a_reset() -> None:
    records: list[Record] = []
    player = player_of(records, specs=ToyKnobs.specs)
    player.set_knob("beta", 1.5)
    assert player.knobs == {"beta": 1.5, "learning_rate": 5e-4}
    player.step()
    player.wait(10)
    player.reset()
    player.step()
    player.wait(10)
    player.stop()
    assert [record.knobs["beta"] for record in records] == [1.5, 1.5]


def test_values_that_are_not_allowed_leave_the_knob_alone() -> None:
    records: list[Record] = []
    player = player_of(records, specs=ToyKnobs.specs)
    for value in (-1, 0, float("nan"), "much", None):
        with pytest.raises(ValueError, match="beta must be a number > 0"):
            player.set_knob("beta", value)
    with pytest.raises(ValueError, match="unknown knob gamma"):
        player.set_knob("gamma", 1)
    unknown = player_of(records)  # nobody knows the knobs yet: the view gets the message instead
    unknown.set_knob("beta", -1)
    unknown.step()
    unknown.wait(10)
    assert records[-1].knobs["beta"] == 0.3 and "beta must be" in unknown.notice
    unknown.stop()


def test_a_player_of_the_same_name_replaces_the_former() -> None:
    first = player_of([], name="lesson")
    first.start()
    until(lambda: first.state == "running")
    second = player_of([], name="lesson")
    assert first.state == "stopped"
    second.start()
    until(lambda: second.state == "running")
    assert len(threads()) == 1
    second.stop()


def test_reset_does_not_wait_for_a_model_that_is_still_being_built() -> None:
    built = threading.Event()

    def slow() -> ToyDPO:
        built.wait(10)
        return ToyDPO(steps=3, pause=0)

    player = Player(slow)
    player.start()
    until(lambda: player.state == "preparing")
    player.request_stop()
    assert player.stopping
    threading.Timer(0.05, built.set).start()
    player.reset()
    assert player.state == "idle" and player.algorithm is None
    assert player.run(10) and player.state == "finished"


def test_a_step_given_up_by_a_reset_leaves_no_record_and_takes_no_knob(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    under_way, go_on = threading.Event(), threading.Event()

    class Long(ToyDPO):
        def __next__(self) -> Record:
            under_way.set()
            go_on.wait(10)
            return super().__next__()

    records: list[Record] = []
    algorithms = iter([Long(pause=0), ToyDPO(steps=3, pause=0)])
    player = Player(lambda: next(algorithms), [records.append])
    player.start()
    assert under_way.wait(10)
    (former,) = threads()
    monkeypatch.setattr(player, "stop", player.request_stop)  # as if the step took longer than stop waits
    player.reset()
    player.set_knob("beta", 2.0)
    go_on.set()
    former.join(10)
    assert (player.state, records) == ("idle", [])
    assert player.run(10)
    assert [(record.step, record.knobs["beta"]) for record in records] == [(1, 2.0), (2, 2.0), (3, 2.0)]


def test_a_stop_before_the_start_stops_nothing() -> None:
    player = Player(lambda: ToyDPO(steps=3, pause=0))
    assert player.stop()
    assert player.run(10) and player.state == "finished"


def test_blocking_runs_in_the_caller_and_leaves_no_thread() -> None:
    where = []
    player = Player(
        lambda: ToyDPO(steps=5, pause=0), [lambda _: where.append(threading.current_thread())], "blocking"
    )
    player.step()
    assert player.state == "paused" and len(where) == 1
    player.start()
    assert player.state == "finished" and len(where) == 5
    assert set(where) == {threading.current_thread()} and not threads()


def test_blocking_keeps_the_exception_for_wait() -> None:
    player = Player(lambda: ToyDPO(fail_at=2, pause=0), driver="blocking")
    player.start()
    assert player.state == "error"
    with pytest.raises(RuntimeError, match="NaN at step"):
        player.wait()


def test_blocking_can_be_interrupted() -> None:
    def interrupt(record: Record) -> None:
        if record.step == 3:
            raise KeyboardInterrupt

    player = Player(lambda: ToyDPO(pause=0), [interrupt], "blocking")
    with pytest.raises(KeyboardInterrupt):
        player.start()
    assert player.state == "stopped" and player.wait()


def test_poll_runs_to_the_end_without_a_kernel_to_poll() -> None:
    player = Player(lambda: ToyDPO(steps=10, pause=0), driver="poll")
    assert player.run(10) and player.state == "finished"


def test_the_environment_chooses_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_driver() == "thread"
    monkeypatch.setenv("RLHFLAB_DRIVER", "blocking")
    assert choose_driver("thread") == "blocking"
    monkeypatch.setenv("RLHFLAB_DRIVER", "carrier pigeon")
    with pytest.raises(ValueError, match="driver must be one of"):
        choose_driver()


def test_wait_has_a_timeout_and_returns_at_once_where_nothing_moves() -> None:
    player = player_of([])
    assert player.wait()
    player.start()
    assert not player.wait(0.02)
    player.stop()


def waiter(player: Player) -> tuple[threading.Thread, list[bool]]:
    """As a cell that waits: a thread, and what `wait` returned, once it has."""
    returned: list[bool] = []
    thread = threading.Thread(target=lambda: returned.append(player.wait(20)))
    thread.start()
    until(lambda: player.awaited)
    return thread, returned


def test_a_pause_while_somebody_waits_ends_no_wait() -> None:
    records: list[Record] = []
    player = player_of(records, steps=60)
    player.start()
    thread, returned = waiter(player)
    until(lambda: len(records) > 3)
    player.pause()
    until(lambda: player.state == "paused")
    before = len(records)
    player.step()  # a single step from the page neither
    until(lambda: player.state == "paused" and len(records) == before + 1)
    time.sleep(0.05)
    assert not returned and player.awaited
    player.resume()
    thread.join(20)
    assert returned == [True] and (player.state, len(records), player.awaited) == ("finished", 60, False)


def test_a_reset_while_somebody_waits_ends_no_wait_either() -> None:
    records: list[Record] = []
    player = player_of(records, steps=40)
    player.start()
    thread, returned = waiter(player)
    until(lambda: len(records) > 3)
    player.reset()
    time.sleep(0.05)
    assert not returned and player.state == "idle"
    player.start()
    thread.join(20)
    assert returned == [True] and player.state == "finished"
    assert [record.step for record in records[-40:]] == list(range(1, 41))


def test_a_stop_ends_a_wait() -> None:
    player = player_of([])
    player.start()
    thread, returned = waiter(player)
    player.stop()
    thread.join(20)
    assert returned == [True] and player.state == "stopped"


def test_the_rate_counts_the_gaps_between_steps_and_falls_while_a_step_lasts(monkeypatch) -> None:
    player, now = Player(lambda: ToyDPO(steps=100), driver="blocking"), 12.2
    monkeypatch.setattr(player_module.time, "perf_counter", lambda: now)
    player._marks.extend([10.0, 11.0, 12.0])
    assert player.rate == 0 and player.seconds_left is None  # nothing runs
    player._state, player.algorithm = "running", ToyDPO(steps=100)
    player.algorithm.step = 40
    assert player.rate == pytest.approx(2 / 2) and player.seconds_left == pytest.approx(60)
    now = 14.5  # half a second is usual; for as long as there is no step more, it gets slower
    assert player.rate == pytest.approx(2 / 4)
    player._marks.clear()
    assert player.rate == 0


def test_what_a_wait_heard_is_forgotten_by_the_next_but_not_by_one_beside_it() -> None:
    player, _ = blocking()
    player.step()
    player.pause()
    player.heard = "directly"
    player._waiting.append(threading.current_thread())  # somebody waits already
    assert player.wait() and player.heard == "directly"
    player._waiting.clear()
    assert player.wait() and player.heard == ""
