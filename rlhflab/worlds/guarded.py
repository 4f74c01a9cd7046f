"""A guard around a user's environment: whatever it raises or returns wrongly becomes one line.

gymnasium's vectorised environments copy return values into their own arrays, where "1" becomes 1.0, None becomes False
and the two numbers of an observation become an observation and an info. So they are checked here first.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhflab.boundary import Fault, cause, given

STEP = "observation, reward, terminated, truncated, info"


class Guarded:
    """An environment that returns exactly what its spaces allow, in numpy's types, or raises `Fault`.

    All attributes and methods except `reset` and `step` are the environment's own. Infos are dropped, as unused.

    Args:
        env: a gymnasium environment; observations are checked if their space is Box or Discrete.
        name: its name in messages.
    """

    def __init__(self, env: Any, name: str) -> None:
        self.env, self.name = env, name
        self._space = space = env.observation_space
        self._box = (space.shape, space.dtype) if is_space(space, "Box") else None
        self._states = (
            range(int(space.start), int(space.start + space.n)) if is_space(space, "Discrete") else None
        )

    def __getattr__(self, attribute: str) -> Any:
        if attribute == "env":  # while being copied it has none yet
            raise AttributeError(attribute)
        return getattr(self.env, attribute)

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Observation and an empty info."""
        with guarded(self.name, "reset"):
            found = self.env.reset(**arguments)
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)):
            raise Fault(f"{self.name}: reset must return a pair, observation and info, got {_short(found)}")
        return self._observation(found[0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated and an empty info."""
        try:
            found = self.env.step(action)
        except (Exception, SystemExit) as error:  # using `guarded` at every step would take 10 % longer
            with guarded(self.name, "step"):
                raise error
        if not (isinstance(found, tuple) and len(found) == 5):
            raise Fault(f"{self.name}: step must return ({STEP}), got {_short(found)}")
        observation, reward, terminated, truncated, _ = found
        return (
            self._observation(observation),
            reward if type(reward) is float else self._number(reward),
            terminated if type(terminated) is bool else self._truth("terminated", terminated),
            truncated if type(truncated) is bool else self._truth("truncated", truncated),
            {},
        )

    def _observation(self, observation: Any) -> Any:
        if self._box is not None:
            shape, dtype = self._box
            if type(observation) is np.ndarray and observation.shape == shape and observation.dtype == dtype:
                return observation
            return self._converted(observation, shape, dtype)
        if self._states is None:
            return observation
        try:
            state = int(observation) if isinstance(observation, np.bool_) else operator.index(observation)
        except TypeError:
            state = None
        if state is None or state not in self._states:
            raise Fault(f"{self.name} returned the observation {_short(observation)}, not in {self._space}")
        return state

    def _converted(self, observation: Any, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An observation in the space's dtype; other dtypes are accepted if only the precision changes."""
        try:
            array = np.asarray(observation)
        except (
            TypeError,
            ValueError,
            RuntimeError,
        ):  # lists of unequal lengths, or a tensor on another device
            array = np.array(None)
        if array.dtype.kind not in "biuf":
            raise Fault(f"{self.name} returned the observation {_short(observation)}, not in {self._space}")
        if array.shape != shape:
            raise Fault(f"{self.name} returned an observation of shape {array.shape}, not in {self._space}")
        with np.errstate(over="ignore", invalid="ignore"):
            found = array.astype(dtype)
        if np.dtype(dtype).kind != "f" and not np.array_equal(found, array):
            raise Fault(f"{self.name} returned the observation {_short(observation)}, not in {self._space}")
        return found

    def _number(self, reward: Any) -> float:
        try:
            value = _scalar(reward)
            if not isinstance(value, str | bytes):
                return float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            pass
        raise Fault(f"{self.name} returned the reward {_short(reward)}, not a number")

    def _truth(self, name: str, value: Any) -> bool:
        try:
            found = _scalar(value)
        except (TypeError, ValueError, RuntimeError):
            found = None
        if not (isinstance(found, int) and found in (0, 1)):  # includes bool
            raise Fault(f"{self.name} returned {name} = {_short(value)}, neither True nor False")
        return bool(found)


def guarded(name: str, what: str) -> Any:
    """Catch errors in an environment's `reset` or `step`."""
    return given(f"{name}: {what} failed", _reason)


def _reason(error: BaseException) -> str:
    old = isinstance(error, ValueError) and "values to unpack" in str(
        error
    )  # gymnasium's own wrappers unpack
    return f"{cause(error)}; step must return ({STEP})" if old else cause(error)


def is_space(space: Any, kind: str) -> bool:
    """Whether a space is of gymnasium's class of that name or a subclass."""
    return any(
        one.__name__ == kind and one.__module__.startswith("gymnasium.") for one in type(space).__mro__
    )


def _scalar(value: Any) -> Any:
    return np.asarray(value).item() if hasattr(value, "shape") else value


def _short(value: Any) -> str:
    try:
        words = " ".join(f"{value!r}".split())
    except Exception:  # a number with too many digits to print, or a custom class
        return f"of type {type(value).__name__}"
    return words if len(words) <= 80 else f"{words[:80]}…"
