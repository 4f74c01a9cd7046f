"""What all algorithms but the race are: an iterator of records with live knobs, a schedule and a state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from rlhflab.algorithms.algorithm import TrainingDiverged
from rlhflab.algorithms.evaluators import Evaluated
from rlhflab.algorithms.knobs import Knobs
from rlhflab.algorithms.optimiser import Optimiser, schedule_factor
from rlhflab.algorithms.record import Backdrop, Record
from rlhflab.algorithms.room import counted
from rlhflab.models.devices import device_name
from rlhflab.models.loading import save_model
from rlhflab.models.lora import load_trained_state, trained_state


class Frame(ABC):
    """Iterate for one update at a time; each algorithm is its own `_advance`.

    Args:
        config: has `steps`, `schedule`, `warmup` and `evaluate_every`.
        knobs: the live values; read once a step.
        backdrop: the exact frontier where there is one, else None.
        tokenizer: written beside the model by `save_model`; None where nothing is to be written.
        notes: what is worth knowing of model and data, a line each by name, for the run and its reader.

    Attributes:
        fitted: name of the attribute that holds the model that is trained.
    """

    name: str
    engine = "lab"
    fitted: ClassVar[str] = "policy"
    policy: Any
    built_with: Mapping[str, Any] = MappingProxyType({"batch_size": None})
    """The builder's settings where there was one: what could be made smaller where memory runs out."""

    def __init__(
        self,
        config: Any,
        knobs: Knobs,
        backdrop: Backdrop | None,
        tokenizer: Any = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        self.config, self.knobs, self.backdrop = config, knobs, backdrop
        self.tokenizer, self.notes = tokenizer, dict(notes or {})
        self.steps, self.step = config.steps, 0

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        """Make one update and return its record; raises TrainingDiverged on NaN, OutOfMemory where memory runs out.

        An update that fails does not count: the next call tries again, with the next batch.
        """
        if self.step >= self.steps:
            raise StopIteration
        return counted(self, self._update_by_schedule)

    def _update_by_schedule(self) -> Record:
        factor = schedule_factor(self.config.schedule, self.step, self.steps, self.config.warmup)
        return self._advance(self.knobs.snapshot(), factor)

    def release(self) -> None:
        """Let go what an update that failed has left: gradients, and what keeps a graph alive."""
        optimiser: Optimiser | None = getattr(self, "_optimiser", None)
        if optimiser is not None:
            optimiser.release()

    @abstractmethod
    def _advance(self, knobs: Mapping[str, float], factor: float) -> Record:
        """Make update number `step`; `factor` in (0, 1] is the schedule's on the step size."""

    def _due(self, every: int) -> bool:
        """Whether something comes now that comes every so many updates, at the first and at the last."""
        return self.step % every == 0 or self.step in (1, self.steps)

    def _evaluated(
        self,
        evaluator: Callable[[Any, float], Evaluated] | None,
        model: Any,
        knobs: Mapping[str, float],
        beta: float,
    ) -> Evaluated:
        """What `evaluator` says of `model` at `beta` where that is due, after a look at the weights; else nothing."""
        if evaluator is None or not self._due(self.config.evaluate_every):
            return Evaluated()
        require_finite(self.step, {"a weight": finite_or_nan(model.parameters())}, knobs)
        return evaluator(model, beta)

    def save_model(self, folder: Any) -> None:
        """Write the policy, or its adapters, so that `--model FOLDER` can read it."""
        if self.tokenizer is not None:
            save_model(self.policy, self.tokenizer, folder)

    def state_dict(self) -> dict[str, Any]:
        """Step, knobs, device and precision; algorithms add weights, random states and what else they keep."""
        return {"step": self.step, "knobs": self.knobs.snapshot(), "arithmetic": self.arithmetic()}

    def arithmetic(self) -> dict[str, str]:
        """What rounding depends on: the `device` (a GPU's name, or a type) and the `precision` of computation."""
        weight = next(getattr(self, self.fitted).parameters())
        precision = getattr(getattr(self, self.fitted), "dtype", weight.dtype)
        return {"device": device_name(weight.device), "precision": str(precision).removeprefix("torch.")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken: exactly with the same arithmetic, else with a note that says so."""
        before, now = state.get("arithmetic"), self.arithmetic()  # absent in checkpoints of before it
        if before is not None and dict(before) != now:
            new_scale = now["precision"] == "float16" != before["precision"]
            words = ["{device} in {precision}".format(**each) for each in (before, now)]
            self.notes["resumed"] = (
                f"the run was on {words[0]} and goes on on {words[1]}: weights, optimiser, random numbers and data are "
                "the same, rounding differs from here on"
                + (
                    "; the loss's new scale is too large at first, so that a few updates may be skipped"
                    * new_scale
                )
            )
        for name, value in state["knobs"].items():
            setattr(self.knobs, name, value)
        self.step = int(state["step"])


class Fit(Frame):
    """The frame of an algorithm that fits one model to data by gradient descent.

    The state has the model under the name of its attribute, `fitted`.
    """

    _optimiser: Optimiser

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser, knobs and step; algorithms add their position in the data."""
        return {**super().state_dict(), **self._learnt()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state` was taken."""
        super().load_state_dict(state)
        self._relearn(state)

    def _learnt(self) -> dict[str, Any]:
        """The part of the state that the updates change."""
        return {
            self.fitted: trained_state(getattr(self, self.fitted)),
            "optimiser": self._optimiser.state_dict(),
        }

    def _relearn(self, state: Mapping[str, Any]) -> None:
        """Inverse of `_learnt`."""
        load_trained_state(getattr(self, self.fitted), state[self.fitted])
        self._optimiser.load_state_dict(state["optimiser"])


def require_finite(step: int, scalars: Mapping[str, float], knobs: Mapping[str, float]) -> None:
    """Raise TrainingDiverged naming the step and the knobs if a scalar is NaN or infinite."""
    bad = [name for name, value in scalars.items() if not -float("inf") < value < float("inf")]
    if bad:
        values = ", ".join(f"{name}={value:g}" for name, value in knobs.items())
        raise TrainingDiverged(f"{', '.join(bad)} became NaN or infinite at step {step} with {values}")


def finite_or_nan(parameters: Iterable[Tensor]) -> float:
    """0.0 if every weight that is trained could be squared and summed to a finite number, else NaN."""
    squares = (weight.detach().float().square().sum() for weight in parameters if weight.requires_grad)
    return 0.0 if sum(map(float, squares)) < float("inf") else float("nan")
