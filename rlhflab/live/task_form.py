"""A form to choose what a lab trains: a task, its size, and the names of models and data that it uses.

The form never blocks: the cells below run with the values it shows. Rerunning its cell keeps them, so "run all" works.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

_kept: dict[str, Any] = {}  # the last choices, for when the cell is run again
WORDS = {"model": "model", "world": "data", "reward": "reward"}
HELP = {
    "model": "a hub id, or a folder written by save_pretrained",
    "world": "a data set of the hub, or a file: JSONL, JSON, CSV, Parquet",
    "reward": "a text classifier's hub id or folder, a reward-model run, or FILE.py:FUNCTION",
}


class FormTask(Protocol):
    """What a form needs of a task; see `recipes.real_tasks.Task`."""

    @property
    def label(self) -> str: ...
    @property
    def names(self) -> Mapping[str, str]: ...
    @property
    def sizes(self) -> Mapping[str, Mapping[str, Any]]: ...


class TaskForm:
    """The form; display it as the last expression of a cell, and read `values` in the next one.

    Args:
        tasks: name → task; the first one is chosen at the start.

    >>> form = TaskForm(TASKS)                                        # doctest: +SKIP
    >>> form.fill(task="reward", model="models/opt", updates=20)      # doctest: +SKIP
    """

    def __init__(self, tasks: Mapping[str, FormTask]) -> None:
        import ipywidgets

        if not tasks:
            raise ValueError("a form needs at least one task")
        self._tasks = dict(tasks)
        wide = {"layout": {"width": "560px"}, "style": {"description_width": "70px"}}
        self._task = ipywidgets.Dropdown(
            options=[(task.label, name) for name, task in tasks.items()], description="task", **wide
        )
        self._size = ipywidgets.Dropdown(description="size", **wide)
        self._names = {
            name: ipywidgets.Text(description=words, continuous_update=False, **wide)
            for name, words in WORDS.items()
        }
        self._updates = ipywidgets.BoundedIntText(description="updates", min=1, max=1_000_000, **wide)
        self._helps = {name: ipywidgets.HTML(f"<small>{HELP[name]}</small>") for name in WORDS}
        rows = [ipywidgets.HBox([self._names[name], self._helps[name]]) for name in WORDS]
        self._rows = dict(zip(WORDS, rows, strict=True))
        self.widget = ipywidgets.VBox([self._task, self._size, *rows, self._updates])
        """The widget, for custom layouts."""
        self._follow_task()
        self._task.observe(lambda _: self._follow_task(), "value")
        self._size.observe(lambda _: self._follow_size(), "value")
        if _kept.get("task") in self._tasks:
            self.fill(**_kept)
        for field in (self._task, self._size, *self._names.values(), self._updates):
            field.observe(lambda _: self._keep(), "value")

    @property
    def values(self) -> dict[str, Any]:
        """What is chosen: `task`, `size`, the task's names, and `steps`."""
        shown = self._shown()
        return {
            **{name: value for name, value in shown.items() if name != "updates"},
            "steps": shown["updates"],
        }

    def fill(self, **values: Any) -> None:
        """Fill the form in: `task`, `size`, `model`, `world`, `reward`, `updates`.

        Raises:
            ValueError: unknown task, size or field, in one line.
        """
        task = values.pop("task", self._task.value)
        if task not in self._tasks:
            raise ValueError(f"task must be one of {', '.join(self._tasks)}, got {task!r}")
        found = self._tasks[task]
        size = values.pop("size", self._size.value if task == self._task.value else next(iter(found.sizes)))
        if size not in found.sizes:
            raise ValueError(f"size must be one of {', '.join(found.sizes)}, got {size!r}")
        for name in values:
            if name not in found.names and name != "updates":
                raise ValueError(
                    f"the task {task!r} has no field {name!r}; it has {', '.join(found.names)}, updates"
                )
        self._task.value, self._size.value = task, size
        for name, value in values.items():
            (self._updates if name == "updates" else self._names[name]).value = value

    def _shown(self) -> dict[str, Any]:
        names = self._tasks[self._task.value].names
        return {
            "task": self._task.value, "size": self._size.value,
            **{name: self._names[name].value.strip() for name in names}, "updates": self._updates.value,
        }  # fmt: skip

    def _keep(self) -> None:
        _kept.clear()
        _kept.update(self._shown())

    def _follow_task(self) -> None:
        task = self._tasks[self._task.value]
        self._size.options = list(task.sizes)
        self._size.value = next(iter(task.sizes))
        for name, field in self._names.items():
            field.value = task.names.get(name, "")
            self._rows[name].layout.display = "flex" if name in task.names else "none"
        self._follow_size()

    def _follow_size(self) -> None:
        if self._size.value is not None:  # None between setting its options and its value
            self._updates.value = self._tasks[self._task.value].sizes[self._size.value]["steps"]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """The widget, and its values as text for front ends without widgets."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        words = "\n".join(f"{name:>8}  {value}" for name, value in self._shown().items())
        return {"application/vnd.jupyter.widget-view+json": view, "text/plain": words}
