"""Handling of out of memory in builds and updates: say where, and what needs less; leave nothing behind."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rlhflab.models.memory import smaller
from rlhflab.oom import OutOfMemory, Way, chain, out_of_memory

BACKWARD, OPTIMISER, EVALUATION = "in the backward pass", "in the optimiser's step", "in the evaluation"
SAMPLING, SCORING, ACTING = "in sampling answers", "in scoring the answers", "in acting"
REFERENCE = "in the reference's log-probabilities"
LOGPS = "in the answers' log-probabilities"
PHASES = {
    "Frame._evaluated": EVALUATION,
    "RewardModelling._test": EVALUATION,
    "Tensor.backward": BACKWARD,
    "clip_grad_norm_": OPTIMISER,
    "Optimizer.profile_hook_step.<locals>.wrapper": OPTIMISER,
    "sample_answers": SAMPLING,
    "LanguageTask._act": SCORING,
    "LanguageTask._logps": LOGPS,
    "ControlTask.collect": ACTING,
    "LongPairs.next": REFERENCE,
    "FixedPairs.__init__": REFERENCE,
    "TRPO.propose": "in the trust-region step",
    "load_weights": "in loading the weights",
    "load_reference": "in copying the reference",
}
"""Qualified name of a running function → what it does; the innermost counts, but all of an evaluation is one phase."""

Made = TypeVar("Made")


def phase_of(error: BaseException) -> str:
    """The phase in which an error was raised, from its traceback; "" if it has no name here."""
    found = ""
    for each in reversed([*chain(error)]):
        for frame, _ in traceback.walk_tb(each.__traceback__):
            code = frame.f_code
            found = found if found == EVALUATION else PHASES.get(code.co_qualname, found)
    return found


def fitted(build: Callable[[], Made], name: str, settings: Mapping[str, Any]) -> Made:
    """Return `build()`; running out of memory raises an `OutOfMemory` that knows the settings.

    The algorithm keeps them as `built_with`, for its own steps.
    """

    def failed(error: BaseException) -> OutOfMemory | None:
        phase = phase_of(error)
        place = f"{phase}, building {name}" if phase else f"in building {name}"
        return out_of_memory(error, place, _ways(settings, gradients=False, batches=False))

    made: Any = _guarded(build, failed)
    made.built_with = settings
    return made


def counted(algorithm: Any, advance: Callable[[], Made]) -> Made:
    """Make the next step of an algorithm by `advance`; a failed step does not count, and leaves nothing behind.

    Args:
        algorithm: has `step`, `steps`, `name`, `built_with`, `release` to drop what a failed step left in it, and
            `halfway`, False if the step was complete when Ctrl-C came: then it counts.
        advance: counts the step and makes it.

    Raises:
        OutOfMemory: memory ran out; whatever else `advance` raises.
    """

    step = algorithm.step

    def failed(error: BaseException) -> OutOfMemory | None:
        phase = phase_of(error) or "in the forward pass"
        place = f"{phase}, step {step + 1} of {algorithm.steps} of {algorithm.name}"
        if algorithm.halfway:
            algorithm.step = step
        algorithm.release()
        gradients = phase not in (EVALUATION, SAMPLING, SCORING, REFERENCE, LOGPS, ACTING)
        return out_of_memory(error, place, _ways(algorithm.built_with, gradients))

    return _guarded(advance, failed)


def _guarded(work: Callable[[], Made], failed: Callable[[BaseException], OutOfMemory | None]) -> Made:
    """Return `work()`; an error that `failed` turns into an `OutOfMemory` is replaced by it, and not chained to it."""
    told: list[OutOfMemory] = []
    try:
        return work()
    except BaseException as error:
        if isinstance(error, OutOfMemory):
            error.ways = []  # settings of a training inside this one, which cannot be given here
        found = failed(error)
        if found is None:
            raise
        told.append(found)
        del found  # otherwise this frame and the error raised from it keep each other alive
    raise told.pop()


def _ways(settings: Mapping[str, Any], gradients: bool, batches: bool = True) -> list[Way]:
    return [Way(changes) for changes in smaller(settings, gradients, batches)]
