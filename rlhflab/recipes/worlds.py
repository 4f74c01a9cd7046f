"""The built-in worlds of language: made once per process, seen from a reference, evaluated exactly or by samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from rlhflab.core.record import Evaluator
from rlhflab.data.hub import Data, read_data
from rlhflab.data.sampled import SampledReference
from rlhflab.evaluation.evaluators import EstimatingEvaluator, ExactEvaluator
from rlhflab.worlds.micro import MicroWorld, ReferencePoint
from rlhflab.worlds.reviews import ReviewsWorld

MAKE: Mapping[str, Callable[[], MicroWorld | ReviewsWorld]] = {"micro": MicroWorld, "reviews": ReviewsWorld}


def world_named(name: Any) -> Any:
    """Return a built-in world by name; a world object is returned unchanged.

    Raises:
        ValueError: unknown name, in one line.
    """
    if not isinstance(name, str):
        return name
    if name not in MAKE:
        raise ValueError(f"unknown world {name!r}; use {' or '.join(MAKE)}")
    return _made(name)


@cache
def _made(name: str) -> MicroWorld | ReviewsWorld:
    return MAKE[name]()


def view_from(world: Any, ref_policy: Any) -> ReferencePoint | SampledReference:
    """A world seen from π_ref: exactly if it can be enumerated, otherwise through samples."""
    return (ReferencePoint if world.enumerable else SampledReference)(world, ref_policy)


def evaluator_of(view: ReferencePoint | SampledReference, seed: int) -> Evaluator:
    """The evaluator for a view: exact or estimating."""
    return ExactEvaluator(view, seed) if isinstance(view, ReferencePoint) else EstimatingEvaluator(view, seed)


def read_micro_pairs(path: str, skip_bad: bool, progress: bool) -> Data:
    """Pairs in the micro world's language; ValueError names the first text that is not in it."""
    lab, data = world_named("micro"), read_data(path, skip_bad, progress)
    if not data.pairs:
        raise ValueError(
            f"{path} holds texts with labels, which need a real model: give --model a folder or a hub id"
        )
    for pair in data.pairs:
        try:
            lab.encode_prompt(pair.prompt)
            lab.encode_answer(pair.chosen)
            lab.encode_answer(pair.rejected)
        except ValueError as error:
            raise ValueError(
                f"{path}, {pair.place}: {error}; for other texts give --model a folder or a hub id"
            ) from None
    return data
