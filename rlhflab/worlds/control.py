"""Control problems: copies of one gymnasium environment that step together, and the bookkeeping of their episodes.

An episode ends in one of two ways. Terminated: the state has no future, its value is 0. Truncated: a time limit cut it,
and the state after the last step still has a value. A copy begins its next episode in *the step after* the last one
(gymnasium's next-step autoreset), so the final state of an episode is observed like any other and can be valued. The
action of that extra step is ignored, and `Step.counts` is False for it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rlhflab.boundary import Fault, given
from rlhflab.remedies import require_gymnasium
from rlhflab.seeds import for_numpy, require_seed
from rlhflab.user_code import module_of
from rlhflab.worlds.guarded import Guarded, guarded, is_space
from rlhflab.worlds.snapshot import restore, snapshot

NATIVE_FROM = 4  # copies; with fewer, gymnasium's vectorised CartPole is slower than a loop
NEXT_STEP = "NextStep"

Array = NDArray[Any]
Make = str | Callable[[], Any]  # a gymnasium id, or a function that makes one environment


class EnvironmentFault(Fault):
    """An environment returned, or was given, NaN or infinity; the message says what and when."""


class Step(NamedTuple):
    """The result of one step of all copies; arrays are [envs] except for the observations.

    Attributes:
        observations: [envs, size] float32, the states after the step.
        rewards: 0 where `counts` is False.
        terminated: bool, the episode is over for good.
        truncated: bool, the episode was cut by a time limit; never where it terminated.
        counts: bool, False where the copy only began its next episode and ignored the action.
    """

    observations: Array
    rewards: Array
    terminated: Array
    truncated: Array
    counts: Array


class Episode(NamedTuple):
    """A finished episode: its undiscounted return, and its steps."""

    total: float
    length: int


class ControlWorld:
    """Copies of one environment that step together.

    Discrete actions are whole numbers from 0; continuous ones are real numbers for which −1 to 1 spans the allowed
    range, and anything beyond is clipped. Discrete observations become one-hot vectors; others are flattened.

    Args:
        make: a gymnasium id such as "CartPole-v1", or "MODULE:ID" if importing the module registers it, or a function
            that makes one environment.
        envs: copies, ≥ 1.
        seed: of all starts, ≥ 0.

    Attributes:
        name: the id, or the environment's class.
        envs: copies.
        size: length of an observation.
        discrete: whether actions are whole numbers.
        actions: number of discrete actions, or the length of an action.
        time_limit: most steps of an episode; None if there is no limit.
        threshold: mean return at which gymnasium considers it solved; None if undefined.
        observations: [envs, size] float32, the current states.
        resetting: [envs] bool, True where the next step begins the next episode.

    Raises:
        ValueError: unknown id, a missing package, or spaces that are not supported, in one line.
        Fault: the environment cannot be made or reset; from `step` and `reset` too.
    """

    def __init__(self, make: Make, envs: int = 1, seed: int = 0) -> None:
        if envs < 1:
            raise ValueError(f"envs must be ≥ 1, got {envs}")
        require_seed(seed)
        self.envs = envs
        self._vector, self._rows = _make(make, envs), np.arange(envs)
        self._guarded = hasattr(self._vector, "envs")  # each copy has its own guard
        first = getattr(self._vector, "envs", [self._vector])[0]
        self.name = make if isinstance(make, str) else _class_name(first)
        copies = [getattr(env, "unwrapped", env) for env in getattr(self._vector, "envs", ())]
        if len({id(copy_) for copy_ in copies}) < len(copies):
            raise ValueError(f"{self.name} is the same object in all copies: make a new one at every call")
        self.time_limit = _time_limit(first)
        self.threshold: float | None = getattr(first.spec, "reward_threshold", None)
        self._read_spaces(self._vector.single_observation_space, self._vector.single_action_space)
        self.reset(int(np.random.SeedSequence(seed).generate_state(1)[0]))

    def _read_spaces(self, observation: Any, action: Any) -> None:
        self._states: int | None = None
        if is_space(observation, "Discrete"):
            self.size = self._states = int(observation.n)
            self._first = int(observation.start)
        elif is_space(observation, "Box") and 0 not in observation.shape:
            self.size = math.prod(observation.shape)
        else:
            kind = f"{type(observation).__name__}{observation.shape or ''}"
            raise ValueError(f"{self.name} has observations of kind {kind}; supported: Box, Discrete")
        self._shape = (self.envs, *observation.shape)
        self.discrete = is_space(action, "Discrete")
        if self.discrete:
            self.actions, self._start = int(action.n), int(action.start)
        elif is_space(action, "Box") and len(action.shape) == 1 and np.issubdtype(action.dtype, np.floating):
            self.actions = int(action.shape[0])
            bounded = np.isfinite(action.low) & np.isfinite(action.high)
            self._low, self._high = action.low, action.high
            with np.errstate(invalid="ignore", over="ignore"):
                self._middle = np.where(bounded, (action.high + action.low) / 2, 0).astype(np.float32)
                self._half = np.where(bounded, (action.high - action.low) / 2, 1).astype(np.float32)
        else:
            raise ValueError(
                f"{self.name} has actions of kind {action}; supported: Discrete, and Box with one axis of real numbers"
            )

    # ---- acting ------------------------------------------------------------------------------------------------

    def reset(self, seed: int | None = None) -> Array:
        """Begin a new episode in every copy; without a seed the random state continues. Returns the observations."""
        observations, _ = self._call("reset", seed=None if seed is None else for_numpy(seed))
        self.resetting = np.zeros(self.envs, dtype=bool)
        self._totals, self._lengths = np.zeros(self.envs), np.zeros(self.envs, dtype=np.int64)
        self._finished: list[Episode] = []
        self.observations = self._flat(observations)
        self._check("observations", self.observations)
        return self.observations

    def step(self, actions: Array) -> Step:
        """Take one step in every copy.

        Args:
            actions: [envs] whole numbers, or [envs, actions] real ones.

        Raises:
            EnvironmentFault: NaN or infinity in the actions, the observations or the rewards.
            Fault: the environment raised, or returned what its spaces do not allow.
        """
        if self.discrete:
            given = actions + self._start if self._start else actions
        else:
            self._check("actions", actions)
            given = np.clip(self._middle + self._half * actions, self._low, self._high)
        observations, rewards, terminated, truncated, _ = self._call("step", given)
        self.observations = self._flat(observations)
        self._check("observations", self.observations)
        self._check("rewards", rewards)
        counts = ~self.resetting
        truncated = truncated & ~terminated
        self._totals += rewards
        self._lengths += counts
        self.resetting = over = terminated | truncated
        if over.any():
            for index in over.nonzero()[0]:
                self._finished.append(Episode(float(self._totals[index]), int(self._lengths[index])))
            self._totals[over] = 0.0
            self._lengths[over] = 0
        return Step(self.observations, rewards, terminated, truncated, counts)

    def take_finished(self) -> list[Episode]:
        """The episodes that have ended since the last call, or since `reset`."""
        finished, self._finished = self._finished, []
        return finished

    def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        try:
            return getattr(self._vector, method)(*arguments, **named)
        except (Exception, SystemExit) as error:
            if self._guarded:
                raise
            with guarded(self.name, method):
                raise error

    def _flat(self, observations: Array) -> Array:
        if observations.shape != self._shape:  # only a user's own vectorised environment gets here
            raise Fault(f"{self.name} returned observations of shape {observations.shape}, not {self._shape}")
        if self._states is None:
            return np.asarray(observations, dtype=np.float32).reshape(self.envs, -1)
        index = observations - self._first
        if not self._guarded and (index.min() < 0 or index.max() >= self._states):
            raise Fault(
                f"{self.name} returned the observations {observations}, not in {self._vector.single_observation_space}"
            )
        one_hot = np.zeros((self.envs, self._states), dtype=np.float32)
        one_hot[self._rows, index] = 1.0
        return one_hot

    def _check(self, what: str, values: Array) -> None:
        flat = values.ravel()
        with np.errstate(over="ignore"):
            quick = math.isfinite(np.dot(flat, flat))
        if quick or np.isfinite(flat).all():
            return
        rows = values.reshape(self.envs, -1)
        copy_, entry = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        did = "was given" if what == "actions" else "returned"
        raise EnvironmentFault(
            f"{self.name} {did} {what} that are not finite: {rows[copy_, entry]} for copy {copy_}, "
            f"{self._lengths[copy_]} steps into its episode"
        )

    # ---- state -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The exact state of all copies; without `copies` if the environment's state cannot be saved."""
        state: dict[str, Any] = {
            "observations": torch.from_numpy(self.observations.copy()),
            "resetting": torch.from_numpy(self.resetting.copy()),
            "totals": torch.from_numpy(self._totals.copy()),
            "lengths": torch.from_numpy(self._lengths.copy()),
        }
        copies = snapshot(self._vector)
        return state if copies is None else {**state, "copies": copies}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken; if it has no `copies`, running episodes start over."""
        if "copies" not in state:
            self.reset()
            return
        with given(f"{self.name} is not the environment that this state was taken of"):
            restore(self._vector, state["copies"])
        for name in ("observations", "resetting"):
            setattr(self, name, state[name].numpy().copy())
        self._totals, self._lengths = state["totals"].numpy().copy(), state["lengths"].numpy().copy()
        self._finished = []


def _time_limit(env: Any) -> int | None:
    limit = getattr(env, "_max_episode_steps", None) or getattr(env.spec, "max_episode_steps", None)
    if limit is None and "env" in vars(env):
        return _time_limit(env.env)
    return None if limit is None else int(limit)


def _class_name(env: Any) -> str:
    return type(getattr(env, "unwrapped", env)).__name__


def _make(make: Make, envs: int) -> Any:
    gymnasium = require_gymnasium()
    if isinstance(make, str):
        return _registered(gymnasium, make, envs)
    if not callable(make):
        raise ValueError(
            f"a world must be a gymnasium id or a function that makes one, got {type(make).__name__}"
        )

    def one() -> Guarded:
        env = make()
        return Guarded(env, _class_name(env))

    with given(f"cannot make an environment by {getattr(make, '__name__', make)}"):
        return gymnasium.vector.SyncVectorEnv([one] * envs)


def _registered(gymnasium: Any, name: str, envs: int) -> Any:
    """The copies of a registered gymnasium environment; MODULE:ID imports the module that registers it first."""
    if name.startswith("rlhflab/"):
        import rlhflab.worlds.probes  # noqa: F401  they register themselves
    module, _, env_id = name.rpartition(":")
    if module:
        module_of(module, f"world {name!r}")
    try:
        spec = copy.deepcopy(gymnasium.spec(env_id))
    except gymnasium.error.Error as error:
        known = "micro, reviews or an environment's id such as CartPole-v1"
        raise ValueError(f"unknown world {name!r}; use {known} ({error})") from None
    spec.disable_env_checker = True  # ours is `Guarded`
    with given(f"cannot make world {name!r}"):
        if spec.vector_entry_point is not None and envs >= NATIVE_FROM:
            native = gymnasium.make_vec(spec, num_envs=envs, vectorization_mode="vector_entry_point")
            mode = native.metadata.get("autoreset_mode", NEXT_STEP)
            if getattr(mode, "value", mode) == NEXT_STEP:
                return native
        return gymnasium.make_vec(
            spec, num_envs=envs, vectorization_mode="sync", wrappers=[lambda env: Guarded(env, name)]
        )
