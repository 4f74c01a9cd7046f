"""What a board may be given: recipes, calls, iterators of records; and how it says that something is none of these."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from rlhflab import recipes
from rlhflab.core.knobs import Knob, Knobs
from rlhflab.core.recipe import Recipe
from rlhflab.core.record import Record
from rlhflab.core.settings import knob, setting
from rlhflab.live.board import Board
from rlhflab.live.sources import Stream, as_algorithm, choices_of
from tests.live.toy import ToyDPO

BETA = Knob(1.0, 0.1, 10.0, label="β")


class OneKnob(Knobs):
    specs = {"beta": BETA}


@dataclass(frozen=True, kw_only=True)
class Mine(Recipe):
    beta: float = knob(1.0, BETA)
    steps: int = setting(4, "Updates to make", at_least=1, label="updates")

    def build(self):
        return ToyDPO(steps=self.steps, pause=0, beta=self.beta)


def records(knobs, steps=4):
    for step in range(1, steps + 1):
        yield Record(step, {"loss": knobs.beta}, knobs.snapshot())


def shown(source, **settings):
    return Board(source, "sources", driver="blocking", ghosts=False, **settings)


def test_a_recipe_says_name_title_sliders_and_form():
    board = shown(Mine(beta=3.0), choices={"steps": [4, 6]})
    assert Board(Mine(), driver="blocking").name == "mine" and board.title == "MINE"
    assert board.player.knobs == {"beta": 3.0}  # before anything is built
    form = choices_of(Mine(), {"steps": [4, 6]})
    assert (form["steps"].label, form["steps"].options) == ("updates", {4: "4", 6: "6"})
    board.start()
    assert (board.state, board.history.step) == ("finished", 4)
    board.choose(steps=6)
    board.start()
    assert board.history.step == 6 and board.history.knobs["beta"] == 3.0


def test_a_generator_that_reads_its_knobs_is_steered_and_can_be_made_again():
    knobs, drawn = OneKnob(beta=2.0), []
    board = shown(lambda: records(knobs), knobs=knobs, sinks=[drawn.append])
    board.step()
    board.set(beta=5.0)
    board.start()
    assert (board.state, board.history.step) == ("finished", 4)
    assert [record.scalars["loss"] for record in drawn] == [2.0, 5.0, 5.0, 5.0]
    assert board.history.knobs["beta"] == 5.0
    board.reset()
    board.start()
    assert board.state == "finished" and [record.step for record in drawn[4:]] == [1, 2, 3, 4]


def test_an_iterator_runs_once_and_says_so():
    knobs = OneKnob()
    board = shown(records(knobs), knobs=knobs)
    board.start()
    assert (board.state, board.history.step) == ("finished", 4)
    board.start()
    assert board.state == "error" and "an iterator runs only once: give the board a recipe" in str(
        board.player.error
    )


def test_what_is_no_record_is_named():
    board = shown(lambda: iter([{"loss": 1.0}]))
    board.start()
    assert board.state == "error" and "a board draws records, got dict: yield Record(" in str(
        board.player.error
    )


@pytest.mark.parametrize("source", [3, None, 2.5])
def test_what_a_board_cannot_draw_is_one_line(source):
    with pytest.raises(ValueError, match=r"^a board needs a recipe, .*, got (int|NoneType|float)$"):
        shown(source)


def test_a_stream_has_no_state_to_keep():
    stream = as_algorithm(records(OneKnob()), OneKnob)
    assert isinstance(stream, Stream) and stream.knobs.beta == 1.0 and not stream.rewind()
    next(stream)
    assert stream.step == 1
    with pytest.raises(ValueError, match="its run cannot be continued"):
        stream.state_dict()
    toy = ToyDPO(steps=2, pause=0)
    assert as_algorithm(toy) is toy


def test_a_form_begins_with_the_recipes_own_value():
    recipe = recipes.Reward(ranked=4)
    found = choices_of(recipe, {"ranked": (2, 4, 8), "blind": ("", "film")})
    assert list(found["ranked"].options) == [4, 2, 8] and found["ranked"].label == "ranked together"
    assert list(found["blind"].options.items()) == [("", "nothing"), ("film", "film")]
    board = shown(recipe, choices={"ranked": (2, 4, 8)})
    assert board.frame()["choices"] == {"ranked": 0}
    assert board.setup()["choices"][0]["options"] == ["4", "2", "8"]
