"""A control problem as a task: state = observation, action = what the environment takes, reward = what it gives.

With a value function a row of a rollout is a stretch of one copy's time, in which episodes end and begin; without one
it is a whole episode from its start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from rlhflab.core.algorithm import TrainingDiverged
from rlhflab.core.record import Backdrop, Evaluated
from rlhflab.models.control import MLP, ControlPolicy, value_function
from rlhflab.models.threads import take_one_thread
from rlhflab.objectives.importance import mean_estimate
from rlhflab.objectives.policy_gradient import last_step, masked_mean
from rlhflab.tasks.rollout import Collected, Outputs, Rollout
from rlhflab.worlds.control import Array, ControlWorld, EnvironmentFault, Episode, Make

RECENT = 100  # episodes of the mean return that decides whether an environment is solved
LONGEST = 1000  # most steps of an episode if the environment has no limit
ROOM = 1 << 22  # most numbers to allocate at once


class Tape(NamedTuple):
    """What happened while a policy acted; all are [time, envs], with one more time step of states.

    Attributes:
        states: [time + 1, envs, size].
        actions: whole numbers, or real ones [time, envs, actions].
        rewards: 0 where `counts` is False.
        terminated: bool, the episode was over for good.
        counts: bool, False on steps that only began an episode, and after the first episode if only one was requested.
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    counts: Tensor

    def episodes(self) -> list[Episode]:
        """Return and length of each copy's episode, if one episode was requested."""
        totals, lengths = self.rewards.double().sum(0).tolist(), self.counts.sum(0).tolist()
        return [Episode(*pair) for pair in zip(totals, lengths, strict=True)]


def act(
    policy: ControlPolicy, world: ControlWorld, generator: torch.Generator, steps: int, one_episode: bool = False
) -> Tape:  # fmt: skip
    """Let a policy act from the world's current state.

    Memory is allocated as steps are made, so that a time limit far beyond an episode's end costs nothing.

    Args:
        policy: π_θ; it acts on the CPU.
        world: copies of an environment.
        generator: of the actions.
        steps: most steps of every copy.
        one_episode: stop when every copy has ended an episode, and do not count its later steps.

    Raises:
        TrainingDiverged: the environment returned, or the policy gave, NaN or infinity.
        Fault: the environment failed.
    """
    policy, tapes = policy.on_cpu(), []
    under_way = np.ones(world.envs, dtype=bool) if one_episode else None
    try:
        for part in _parts(steps, world):
            tapes.append(_act(policy, world, policy.noise(part, world.envs, generator), under_way))
            if under_way is not None and not under_way.any():
                break
    except EnvironmentFault as fault:
        raise TrainingDiverged(str(fault)) from None
    if len(tapes) == 1:
        return tapes[0]
    states = torch.cat([tape.states[:-1] for tape in tapes] + [tapes[-1].states[-1:]])
    return Tape(states, *(torch.cat(column) for column in list(zip(*tapes, strict=True))[1:]))


def _parts(steps: int, world: ControlWorld) -> Iterator[int]:
    """Lengths that add up to `steps`; a single one if it needs little memory."""
    at_once = ROOM // (world.envs * (world.size + world.actions))
    if steps > at_once:
        part = max(
            16, min(at_once, 1024) // 16 * 16
        )  # so that the normal numbers equal those of a single draw
        while steps >= 2 * part:
            yield part
            steps -= part
    yield steps


def _act(policy: ControlPolicy, world: ControlWorld, noise: Tensor, under_way: Array | None) -> Tape:
    """As many steps as there is noise, or until no copy's first episode is `under_way`, which is updated in place."""
    steps, envs = noise.shape[:2]
    states = np.empty((steps + 1, envs, world.size), dtype=np.float32)
    shape = (steps, envs) if world.discrete else (steps, envs, world.actions)
    actions = np.empty(shape, dtype=np.int64 if world.discrete else np.float32)
    rewards = np.empty((steps, envs), dtype=np.float32)
    terminated, counts = np.empty((steps, envs), dtype=bool), np.empty((steps, envs), dtype=bool)
    states[0] = world.observations
    seen, draws = torch.from_numpy(states), noise.unbind()
    with torch.inference_mode():
        for t, state in enumerate(seen[:-1].unbind()):
            actions[t] = drawn = policy.draw(state, draws[t]).numpy()
            step = world.step(drawn)
            states[t + 1], rewards[t], terminated[t], counts[t] = (
                step.observations, step.rewards, step.terminated, step.counts
            )  # fmt: skip
            if under_way is not None:
                counts[t] &= under_way
                under_way &= ~world.resetting
                if not under_way.any():
                    break
    taken = slice(0, t + 1)
    rewards[taken] *= counts[taken]
    columns = (actions, rewards, terminated, counts)
    return Tape(seen[: t + 2], *(torch.from_numpy(column[taken]) for column in columns))


class ControlTask:
    """Copies of an environment in which a small policy acts.

    Args:
        make: a gymnasium id or MODULE:ID, or a function that makes one environment.
        envs: copies; the rows of a rollout.
        horizon: steps of a copy per rollout, if there is a value function.
        seed: of weights, starts and actions.
        value: whether there is a value function, a separate network. Without one a row is a whole episode.
        episodes: episodes per evaluation.
        hidden: sizes of the hidden layers of policy and value function.
        device: where they are trained. They act on the CPU, where the environments are.

    Raises:
        ValueError: an environment that is unknown or not supported; whole episodes without a time limit.
    """

    kind = "control"
    backdrop: Backdrop | None = None

    def __init__(
        self,
        make: Make,
        envs: int,
        horizon: int,
        seed: int,
        value: bool = True,
        episodes: int = 20,
        hidden: tuple[int, ...] = (64, 64),
        device: torch.device | str = "cpu",
    ) -> None:
        for name, given in (("horizon", horizon), ("episodes", episodes)):
            if given < 1:
                raise ValueError(f"{name} must be ≥ 1, got {given}")
        self.world = ControlWorld(make, envs, seed)
        if not value and self.world.time_limit is None:
            raise ValueError(f"REINFORCE needs whole episodes, and {self.world.name} has no time limit")
        self.horizon, self.seed = horizon, seed
        self._make, self._episodes = make, episodes
        world = self.world
        take_one_thread()
        self._device = torch.device(device)
        self.policy = ControlPolicy(world.size, world.actions, world.discrete, seed, hidden).to(device)
        self.value: MLP | None = value_function(world.size, seed, hidden).to(device) if value else None
        self._generator = torch.Generator().manual_seed(seed)
        self._judged: ControlWorld | None = None
        self._recent: deque[Episode] = deque(maxlen=RECENT)
        self.env_steps = 0

    def policy_parameters(self) -> list[nn.Parameter]:
        """π_θ's parameters."""
        return list(self.policy.parameters())

    def value_parameters(self) -> list[nn.Parameter]:
        """V's parameters; none without a value function."""
        return [] if self.value is None else list(self.value.parameters())

    # ---- acting ------------------------------------------------------------------------------------------------

    def collect(self, knobs: Mapping[str, float]) -> Collected:
        """Act for `horizon` steps in every copy, or for one episode in each if there is no value function."""
        rollout, ended = self._whole_episodes() if self.value is None else self._stretches(self.value)
        rollout = rollout.to(self._device)
        self._recent.extend(ended)
        self.env_steps += int(rollout.mask.sum())
        scalars = {"env_steps": float(self.env_steps)}
        for name, episodes in (("", ended), ("_100", self._recent)):
            if episodes:
                totals, lengths = zip(*episodes, strict=True)
                scalars[f"episode/return{name}"] = sum(totals) / len(totals)
                scalars[f"episode/length{name}"] = sum(lengths) / len(lengths)
        with torch.no_grad():
            distribution = self.distribution(rollout)
            rollout.logps.copy_(distribution.log_prob(rollout.actions))
            scalars["policy/entropy_avg"] = float(masked_mean(distribution.entropy(), rollout.mask))
        return Collected(rollout, scalars)

    def _stretches(self, value: MLP) -> tuple[Rollout, list[Episode]]:
        tape = act(self.policy, self.world, self._generator, self.horizon)
        mask = tape.counts.T.contiguous()
        with torch.no_grad():
            values = value(tape.states.transpose(0, 1)).squeeze(-1).cpu()
        between = ~mask
        rollout = _rollout(
            tape, mask,
            rewards=torch.where(between, values[:, :-1], tape.rewards.T),
            values=values[:, :-1], dones=tape.terminated.T | between, last_values=values[:, -1],
            groups=torch.arange(len(mask)),
        )  # fmt: skip
        return rollout, self.world.take_finished()

    def _whole_episodes(self) -> tuple[Rollout, list[Episode]]:
        assert self.world.time_limit is not None
        self.world.reset()
        tape = act(self.policy, self.world, self._generator, self.world.time_limit, one_episode=True)
        mask = tape.counts.T.contiguous()
        nothing = torch.zeros(mask.shape)
        rollout = _rollout(
            tape, mask, rewards=tape.rewards.T.contiguous(), values=nothing, dones=last_step(mask),
            last_values=nothing[:, 0], groups=torch.zeros(len(mask), dtype=torch.long),
        )  # fmt: skip
        return rollout, tape.episodes()

    # ---- judging anew ------------------------------------------------------------------------------------------

    def distribution(self, rollout: Rollout, twice: bool = False) -> Distribution:
        """π_θ on a rollout's states; the graph can always be differentiated twice."""
        found: Distribution = self.policy(rollout.inputs)
        return found

    def outputs(self, rollout: Rollout) -> Outputs:
        """π_θ and V on a rollout's states."""
        values = torch.zeros_like(rollout.logps) if self.value is None else self.values(rollout)
        return Outputs(self.distribution(rollout), values)

    def values(self, rollout: Rollout) -> Tensor:
        """V(s_t), [batch, time]."""
        if self.value is None:
            raise ValueError("there is no value function")
        values: Tensor = self.value(rollout.inputs).squeeze(-1)
        return values

    def judge(self, knobs: Mapping[str, float]) -> Evaluated:
        """Mean return and length of fresh episodes, with standard errors (none for a single episode).

        The starts and random numbers are always the same.
        """
        columns = (torch.tensor(x, dtype=torch.float64) for x in zip(*self._played(), strict=True))
        found = {}
        for name, values in zip(("return", "length"), columns, strict=True):
            found[name] = float(values.mean())
            if len(values) > 1:
                found[f"{name}_se"] = float(mean_estimate(values).se)
        if self.world.threshold is not None:
            found["solved"] = self.world.threshold
        return Evaluated(estimated=found)

    def _played(self) -> list[Episode]:
        if self._judged is None:
            self._judged = ControlWorld(self._make, self._episodes, self.seed)
        return play(self.policy, self._judged, self.seed).episodes()

    def release(self) -> None:
        """Nothing to release: no pass keeps anything."""

    # ---- state -------------------------------------------------------------------------------------------------

    def position(self) -> dict[str, Any]:
        """Random state, the environments and the running episodes, the recent returns."""
        return {
            "generator": self._generator.get_state(),
            "world": self.world.state_dict(),
            "recent": [list(episode) for episode in self._recent],
            "env_steps": self.env_steps,
        }

    def return_to(self, position: Mapping[str, Any]) -> None:
        """Inverse of `position`; an environment whose state cannot be saved begins new episodes."""
        self._generator.set_state(position["generator"])
        self.world.load_state_dict(position["world"])
        self._recent.clear()
        self._recent.extend(Episode(*episode) for episode in position["recent"])
        self.env_steps = int(position["env_steps"])

    def learnt(self) -> dict[str, Any]:
        """The weights of policy and value function."""
        state = {"policy": dict(self.policy.state_dict())}
        return state if self.value is None else {**state, "value": dict(self.value.state_dict())}

    def relearn(self, state: Mapping[str, Any]) -> None:
        """Inverse of `learnt`."""
        self.policy.load_state_dict(state["policy"])
        if self.value is not None:
            self.value.load_state_dict(state["value"])


def play(policy: ControlPolicy, world: ControlWorld, seed: int) -> Tape:
    """Play one episode in every copy of a world; the same seed gives the same starts and random numbers."""
    world.reset(seed)
    generator = torch.Generator().manual_seed(seed)
    return act(policy, world, generator, world.time_limit or LONGEST, one_episode=True)


def _rollout(tape: Tape, mask: Tensor, **rest: Tensor) -> Rollout:
    """Rows are copies, columns are steps; the log-probabilities are filled in later."""
    return Rollout(
        inputs=tape.states[:-1].transpose(0, 1).contiguous(), actions=tape.actions.transpose(0, 1).contiguous(),
        logps=torch.empty(mask.shape), mask=mask, **rest,
    )  # fmt: skip
