"""The form of lab 10: what it shows is what it says, a cell that is run again keeps it, mistakes are one line."""

from types import SimpleNamespace

import pytest

from rlhflab.live import task_form
from rlhflab.live.task_form import TaskForm

TASKS = {
    "small": SimpleNamespace(
        label="a small one", names={"model": "tiny", "world": "micro"}, sizes={"short": {"steps": 5}}
    ),
    "large": SimpleNamespace(
        label="a large one",
        names={"model": "some/model", "world": "some/data", "reward": "some/reward"},
        sizes={"short": {"steps": 10}, "long": {"steps": 100}},
    ),
}


@pytest.fixture(autouse=True)
def forgotten():
    task_form._kept.clear()
    yield
    task_form._kept.clear()


def fields(form):
    """The form's fields as a page has them, by their description."""
    task, size, *rows, updates = form.widget.children
    return {field.description: field for field in (task, size, *(row.children[0] for row in rows), updates)}


def rows_shown(form):
    rows = form.widget.children[2:-1]
    return [row.children[0].description for row in rows if row.layout.display == "flex"]


def test_the_first_task_holds_without_a_click():
    form = TaskForm(TASKS)
    assert form.values == {"task": "small", "size": "short", "model": "tiny", "world": "micro", "steps": 5}
    shown = form._repr_mimebundle_()
    assert "some/model" not in shown["text/plain"] and "tiny" in shown["text/plain"]
    assert rows_shown(form) == ["model", "data"]


def test_a_person_chooses():
    form = TaskForm(TASKS)
    field = fields(form)
    field["task"].value = "large"  # as the page does
    assert rows_shown(form) == ["model", "data", "reward"]
    field["size"].value = "long"
    assert form.values["steps"] == 100
    field["model"].value = " models/mine "
    field["updates"].value = 7
    wanted = {"task": "large", "size": "long", "model": "models/mine", "world": "some/data",
              "reward": "some/reward", "steps": 7}  # fmt: skip
    assert form.values == wanted
    assert TaskForm(TASKS).values == wanted  # the cell was run again
    field["task"].value = "small"
    assert TaskForm(TASKS).values["model"] == "tiny"


def test_filling_it_in_is_as_good_as_clicking():
    form = TaskForm(TASKS)
    form.fill(task="large", size="long", reward="mine.py:score", updates=3)
    assert form.values["reward"] == "mine.py:score" and form.values["steps"] == 3
    form.fill(model="other")
    assert (form.values["model"], form.values["size"], form.values["steps"]) == ("other", "long", 3)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"task": "huge"}, "task must be one of small, large, got 'huge'"),
        ({"size": "long"}, "size must be one of short, got 'long'"),
        ({"reward": "x"}, "the task 'small' has no field 'reward'; it has model, world, updates"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(given, says):
    form = TaskForm(TASKS)
    before = form.values
    with pytest.raises(ValueError, match=says):
        form.fill(**given)
    assert form.values == before
    with pytest.raises(ValueError, match="at least one task"):
        TaskForm({})
