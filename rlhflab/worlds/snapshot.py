"""The state of gymnasium environments as tensors and JSON values, so that a stopped run continues exactly.

An environment's state is the contents of its attributes. Numbers, arrays, lists of them, and the random generator can
be saved; an environment with anything else (such as a simulator's handle) has no snapshot. Classic control has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from rlhflab.worlds.guarded import Guarded

CONSTANT = ("Space", "EnvSpec")  # classes whose instances describe an environment and never change
WRAPPER = (
    "_saved_kwargs",
    "_action_space",
    "_observation_space",
    "_metadata",
    "_cached_spec",
)  # nor do these


class _NotPlain(Exception):
    """A value that cannot be saved."""


def snapshot(vector: Any) -> list[dict[str, Any]] | None:
    """Return the state of a vectorised environment; None if it contains something that cannot be saved."""
    try:
        return [{name: _pack(value) for name, value in _state(layer)} for layer in _layers(vector)]
    except _NotPlain:
        return None


def restore(vector: Any, state: list[dict[str, Any]]) -> None:
    """Restore `state` into a vectorised environment of the same kind that has been reset."""
    for layer, values in zip(_layers(vector), state, strict=True):
        for name, value in values.items():
            if name == "_np_random":
                layer._np_random.bit_generator.state = _unpack(value)
            else:
                setattr(layer, name, _unpack(value))


def _layers(env: Any) -> Iterator[Any]:
    """An environment and everything that it wraps or runs in a loop; our own guard has no state."""
    if not isinstance(env, Guarded):
        yield env
    for inner in getattr(env, "envs", ()):
        yield from _layers(inner)
    if "env" in vars(env):
        yield from _layers(env.env)


def _state(layer: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(layer, "envs"):  # runs copies in a loop: everything else is overwritten by the next step
        yield "_autoreset_envs", layer._autoreset_envs
        return
    for name, value in vars(layer).items():
        kinds = {kind.__name__ for kind in type(value).__mro__}
        if name not in ("env", "metadata", *WRAPPER) and not kinds.intersection(CONSTANT):
            yield name, value.bit_generator.state if name == "_np_random" else value


def _pack(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):  # before float, as np.float64 is a subclass
        if value.dtype.kind not in "biuf":
            raise _NotPlain
        return {"array" if isinstance(value, np.ndarray) else "scalar": torch.from_numpy(np.array(value))}
    if isinstance(value, Mapping):
        return {"map": {str(key): _pack(item) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return type(value)(_pack(item) for item in value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise _NotPlain


def _unpack(value: Any) -> Any:
    if isinstance(value, Mapping):
        ((kind, content),) = value.items()
        if kind == "map":
            return {key: _unpack(item) for key, item in content.items()}
        array = content.numpy().copy()
        return array if kind == "array" else array[()]
    if isinstance(value, list | tuple):
        return type(value)(_unpack(item) for item in value)
    return value
