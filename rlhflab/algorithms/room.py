"""What builders and algorithms do where memory runs out: say where, and what takes less; nothing is left behind."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from rlhflab.models.memory import smaller
from rlhflab.oom import OutOfMemory, Way, chain, out_of_memory
from rlhflab.seeds import require_seed

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
"""Function that was running, by its qualified name → what it does; the innermost counts, but an evaluation is whole."""

Made = TypeVar("Made")
Given = ParamSpec("Given")


def phase_of(error: BaseException) -> str:
    """What was being done where an error was raised, as its traceback tells; "" where that has no name here."""
    found = ""
    for each in reversed([*chain(error)]):
        for frame, _ in traceback.walk_tb(each.__traceback__):
            code = frame.f_code
            found = found if found == EVALUATION else PHASES.get(code.co_qualname, found)
    return found


def fits(build: Callable[Given, Made]) -> Callable[Given, Made]:
    """For a builder: memory that runs out while it builds is an `OutOfMemory` that knows the builder's settings.

    What is built keeps the settings as `built_with`, for its own steps.
    """
    signature, name = inspect.signature(build), build.__name__.removeprefix("build_").replace("_", " ")

    @functools.wraps(build)
    def built(*given: Given.args, **named: Given.kwargs) -> Made:
        def failed(error: BaseException) -> OutOfMemory | None:
            phase = phase_of(error)
            place = f"{phase}, building {name}" if phase else f"in building {name}"
            return out_of_memory(error, place, _ways(settings, gradients=False, batches=False))

        settings: dict[str, Any] = {}
        with suppress(TypeError):  # `build` says better what is wrong with its arguments
            settings = _bound(signature, *given, **named)
        require_seed(settings.get("seed", 0))
        made: Any = _guarded(lambda: build(*given, **named), failed)
        made.built_with = settings
        return made

    return built


def counted(algorithm: Any, advance: Callable[[], Made]) -> Made:
    """Make the next step of an algorithm by `advance`; where it fails it does not count, and leaves nothing behind.

    Args:
        algorithm: has `step`, `steps`, `name`, `built_with`, `release` to let go what a failed step left in it, and
            `halfway`, False where the step was whole when Ctrl-C came: then it counts.
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
    """Return `work()`; an error of which `failed` makes an `OutOfMemory` is replaced by that, and not kept in it."""
    told: list[OutOfMemory] = []
    try:
        return work()
    except BaseException as error:
        if isinstance(error, OutOfMemory):
            error.ways = []  # those of a training within this one: nobody can give them here
        found = failed(error)
        if found is None:
            raise
        told.append(found)
        del found  # or this frame and the error that is raised from it keep each other alive
    raise told.pop()


def _bound(signature: inspect.Signature, *given: Any, **named: Any) -> dict[str, Any]:
    """A call's arguments by name, the defaults among them."""
    bound = signature.bind(*given, **named)
    bound.apply_defaults()
    return dict(bound.arguments)


def _ways(settings: Mapping[str, Any], gradients: bool, batches: bool = True) -> list[Way]:
    return [Way(changes) for changes in smaller(settings, gradients, batches)]
