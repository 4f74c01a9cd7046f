"""The base class of all algorithms but the race: an iterator of records with live knobs, a schedule and a state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from rlhflab.algorithms.optimiser import Optimiser, schedule_factor
from rlhflab.algorithms.room import counted
from rlhflab.core.algorithm import TrainingDiverged
from rlhflab.core.knobs import Knobs
from rlhflab.core.record import Backdrop, Evaluated, Record
from rlhflab.models.devices import device_name
from rlhflab.models.loading import save_model
from rlhflab.models.lora import load_trained_state, trained_state
from rlhflab.settings.common import Loop


class Frame(ABC):
    """Iterate for one update at a time; each algorithm is its own `_advance`.

    Args:
        config: the settings; its knobs are read once a step.
        backdrop: the exact frontier if there is one, else None.
        tokenizer: saved with the model by `save_model`; None to save none.
        notes: on model and data, one line each, by name, for the run and its reader.

    Attributes:
        fitted: name of the attribute that holds the trained model.
    """

    name: str
    engine = "lab"
    fitted: ClassVar[str] = "policy"
    policy: Any
    built_with: Mapping[str, Any] = MappingProxyType({"batch_size": None})
    """The settings that it was built with, if any: those that could be made smaller when memory runs out."""

    def __init__(
        self,
        config: Loop,
        backdrop: Backdrop | None,
        tokenizer: Any = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        self.config, self.backdrop = config, backdrop
        self.knobs: Knobs = config.knobs()
        self.tokenizer, self.notes = tokenizer, dict(notes or {})
        self.steps, self.step = config.steps, 0
        self._begun: tuple[int, dict[str, Any]] | None = (
            None  # `_writes` and position before the current update
        )
        self._draft: Record | None = (
            None  # its record, once the weights are updated and only the evaluation is left
        )

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        """Make one update and return its record; raises TrainingDiverged on NaN, OutOfMemory when memory runs out.

        An update that fails does not count: the next call tries again, with the next batch, or with the same one after
        `rewind`. If only the evaluation after it has failed, the next call repeats only that.
        """
        if self.step >= self.steps:
            raise StopIteration
        return counted(self, self._update_by_schedule)

    def _update_by_schedule(self) -> Record:
        if self._draft is None:
            self._begun = self._writes(), self.position()
        self.step += 1
        if self._draft is None:
            factor = schedule_factor(self.config.schedule, self.step, self.steps, self.config.warmup)
            self._draft = self._advance(self.knobs.snapshot(), factor)
        record = self._judged(self._draft)
        self._draft = self._begun = None
        return record

    @property
    def halfway(self) -> bool:
        """Whether an update has begun and is not complete: it failed or is in progress."""
        return self._begun is not None

    def rewind(self) -> bool:
        """After a failed update, go back to the last complete one, as if the failed one had never begun.

        Returns:
            False, and nothing is done, if the weights have already been changed.
        """
        if self._begun is not None and self._draft is None:
            writes, position = self._begun
            if writes != self._writes():
                return False
            self._return_to(position)
            self._begun = None
        return True

    @abstractmethod
    def position(self) -> dict[str, Any]:
        """What an update changes before the weights: random states, position in the data, an environment's state."""

    @abstractmethod
    def _return_to(self, state: Mapping[str, Any]) -> None:
        """Inverse of `position`."""

    def _writes(self) -> int:
        """How many times the weights have been changed so far."""
        optimiser: Optimiser | None = getattr(self, "_optimiser", None)
        return 0 if optimiser is None else optimiser.writes

    def release(self) -> None:
        """Release what a failed update has left: gradients, and references that keep a graph alive."""
        optimiser: Optimiser | None = getattr(self, "_optimiser", None)
        if optimiser is not None:
            optimiser.release()

    @abstractmethod
    def _advance(self, knobs: Mapping[str, float], factor: float) -> Record:
        """Make update number `step`; `factor` in (0, 1] is the schedule's factor on the step size."""

    def _judged(self, record: Record) -> Record:
        """Add to an update's record what is measured after it; changes no state, so that it can be repeated."""
        return record

    def _due(self, every: int) -> bool:
        """Whether a periodic event is due: every `every` updates, and at the first and the last one."""
        return self.step % every == 0 or self.step in (1, self.steps)

    def _evaluated(
        self,
        record: Record,
        evaluator: Callable[[Any, float], Evaluated] | None,
        model: Any,
        beta: float,
    ) -> Record:
        """Add an evaluation of `model` at `beta` to a record if one is due and the weights are finite."""
        if evaluator is None or not self._due(self.config.evaluate_every):
            return record
        require_finite(self.step, {"a weight": finite_or_nan(model.parameters())}, record.knobs)
        found = evaluator(model, beta)
        return replace(record, **found._replace(arrays={**record.arrays, **found.arrays})._asdict())

    def save_model(self, folder: Any) -> None:
        """Save the policy, or its adapters, so that `--model FOLDER` can read it."""
        if self.tokenizer is not None:
            save_model(self.policy, self.tokenizer, folder)

    def state_dict(self) -> dict[str, Any]:
        """Step, knobs, device and precision, position, weights; and a record that still lacks its evaluation."""
        state = {"step": self.step, "knobs": self.knobs.snapshot(), "arithmetic": self.arithmetic()}
        draft = {} if self._draft is None else {"draft": self._draft.to_dict()}
        return _joined(_joined({**state, **draft}, self.position()), self._learnt())

    @abstractmethod
    def _learnt(self) -> dict[str, Any]:
        """The part of the state that the updates change: weights, optimiser."""

    @abstractmethod
    def _relearn(self, state: Mapping[str, Any]) -> None:
        """Inverse of `_learnt`."""

    def arithmetic(self) -> dict[str, str]:
        """What rounding depends on: the `device` (a GPU's name, or a type) and the `precision` of computation."""
        weight = next(getattr(self, self.fitted).parameters())
        precision = getattr(getattr(self, self.fitted), "dtype", weight.dtype)
        return {"device": device_name(weight.device), "precision": str(precision).removeprefix("torch.")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken: exactly if the arithmetic is the same, else with a note that says so."""
        before, now = state.get("arithmetic"), self.arithmetic()  # absent in older checkpoints
        if before is not None and dict(before) != now:
            new_scale = now["precision"] == "float16" != before["precision"]
            words = ["{device} in {precision}".format(**each) for each in (before, now)]
            self.notes["resumed"] = (
                f"the run was on {words[0]} and continues on {words[1]}: weights, optimiser, random numbers and data "
                "are the same, rounding differs from here on"
                + (
                    "; the loss's new scale is too large at first, so a few updates may be skipped"
                    * new_scale
                )
            )
        for name, value in state["knobs"].items():
            setattr(self.knobs, name, value)
        self.step = int(state["step"])
        self._relearn(state)
        self._return_to(state)
        self._begun = None
        self._draft = None if "draft" not in state else Record.from_dict(state["draft"])


class Fit(Frame):
    """The frame of an algorithm that fits one model to data by gradient descent.

    The state holds the model under the name of its attribute, `fitted`.
    """

    _optimiser: Optimiser

    def _learnt(self) -> dict[str, Any]:
        """The model's weights and the optimiser."""
        return {
            self.fitted: trained_state(getattr(self, self.fitted)),
            "optimiser": self._optimiser.state_dict(),
        }

    def _relearn(self, state: Mapping[str, Any]) -> None:
        """Inverse of `_learnt`."""
        load_trained_state(getattr(self, self.fitted), state[self.fitted])
        self._optimiser.load_state_dict(state["optimiser"])


def _joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two states; mappings of the same name are merged too."""
    both = {name: {**first[name], **second[name]} for name in first.keys() & second.keys()}
    return {**first, **second, **both}


def require_finite(step: int, scalars: Mapping[str, float], knobs: Mapping[str, float]) -> None:
    """Raise TrainingDiverged naming the step and the knobs if a scalar is NaN or infinite."""
    bad = [name for name, value in scalars.items() if not -float("inf") < value < float("inf")]
    if bad:
        values = ", ".join(f"{name}={value:g}" for name, value in knobs.items())
        raise TrainingDiverged(f"{', '.join(bad)} became NaN or infinite at step {step} with {values}")


def finite_or_nan(parameters: Iterable[Tensor]) -> float:
    """0.0 if the sum of squares of all trainable weights is finite, else NaN."""
    squares = (weight.detach().float().square().sum() for weight in parameters if weight.requires_grad)
    return 0.0 if sum(map(float, squares)) < float("inf") else float("nan")
