"""Probe environments: each tests one thing with a known answer, to show which part of an implementation is broken.

They build on each other, so look at the first that fails. Each is a gymnasium environment, rlhflab/NAME-v0, with one
number as observation and two actions. Train with γ = ½, at which Delayed and Endless can tell mistakes apart.

Source: Andy Jones (2021), "Debugging reinforcement learning, without the agonizing pain". Endless is our addition: it
distinguishes a time limit from a termination.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rlhflab.remedies import require_gymnasium

require_gymnasium()
import gymnasium  # noqa: E402  with the remedy where it is missing

NEAR = 0.1  # tolerance of a value, relative if it is above 1; and of a probability

Values = Mapping[float, float]  # observation → V


class Probe(gymnasium.Env):
    """Base class of the probes; each overrides what is special to it.

    Attributes:
        steps: length of an episode.
        cut: whether a time limit ends it, so that it is truncated instead of terminated.
        tests: what is tested, in words.
        best: observation → the right action there; empty if all actions are equal.
    """

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    steps: ClassVar[int] = 1
    cut: ClassVar[bool] = False
    tests: ClassVar[str] = ""
    best: ClassVar[Mapping[float, int]] = {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.taken, self.seen = 0, self.first()
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = self.reward(int(action))
        self.taken += 1
        self.seen = self.following()
        return self._observation(), reward, self.taken >= self.steps and not self.cut, False, {}

    def _observation(self) -> Any:
        return np.array([self.seen], dtype=np.float32)

    # ---- what happens ------------------------------------------------------------------------------------------

    def first(self) -> float:
        """The first observation of an episode."""
        return 0.0

    def following(self) -> float:
        """The observation after a step."""
        return self.seen

    def reward(self, action: int) -> float:
        """The reward of `action` now."""
        return 1.0

    # ---- what is known -----------------------------------------------------------------------------------------

    @classmethod
    def values(cls, gamma: float) -> Values:
        """V of the best policy."""
        return {0.0: 1.0}

    @classmethod
    def mistakes(cls, gamma: float) -> dict[str, Values]:
        """A mistake in words → V with that mistake."""
        return {}


class Constant(Probe):
    """One step, reward 1."""

    tests = "the value loss, its optimiser, and that nothing flows back across the end of an episode"

    @classmethod
    def mistakes(cls, gamma: float) -> dict[str, Values]:
        return {
            "V has not moved: is the value loss in the loss, and are V's weights in the optimiser?": {
                0.0: 0.0
            },
            "the value of the next episode is added: mask V(s') where the episode has terminated": {
                0.0: 1 / max(1 - gamma, 1e-6)
            },
        }


class Observed(Probe):
    """One step, reward equal to the observation, −1 or 1 by chance."""

    tests = "that V sees its observation, and that rewards and observations belong together"

    def first(self) -> float:
        return float(self.np_random.choice((-1.0, 1.0)))

    def reward(self, action: int) -> float:
        return self.seen

    @classmethod
    def values(cls, gamma: float) -> Values:
        return {-1.0: -1.0, 1.0: 1.0}

    @classmethod
    def mistakes(cls, gamma: float) -> dict[str, Values]:
        return {
            "V is the same everywhere: rewards and observations are shifted or shuffled apart": {-1.0: 0.0, 1.0: 0.0},
            "V has the wrong sign": {-1.0: 1.0, 1.0: -1.0},
        }  # fmt: skip


class Delayed(Probe):
    """Two steps; the second one's reward is 1."""

    steps = 2
    tests = "the discount, and that the next state's value flows back"

    def following(self) -> float:
        return 1.0

    def reward(self, action: int) -> float:
        return float(self.taken == 1)

    @classmethod
    def values(cls, gamma: float) -> Values:
        return {0.0: gamma, 1.0: 1.0}

    @classmethod
    def mistakes(cls, gamma: float) -> dict[str, Values]:
        return {
            "nothing is discounted: where is γ?": {0.0: 1.0, 1.0: 1.0},
            "the future is discounted twice": {0.0: gamma**2, 1.0: 1.0},
            "nothing flows back from the next state: is V(s') in the target, or is every step treated as an end?": {
                0.0: 0.0,
                1.0: 1.0,
            },
        }


class Acted(Probe):
    """One step; action 1 earns 1, action 0 earns −1."""

    tests = "the policy's loss, the sign of the advantages, and the policy's optimiser"
    best = {0.0: 1}

    def reward(self, action: int) -> float:
        return 2.0 * action - 1.0


class Both(Observed):
    """One step; action 1 is right where the observation is 1, action 0 where it is −1: it earns 1, the other −1."""

    tests = "that actions, advantages and observations of one step stay together"
    best = {-1.0: 0, 1.0: 1}

    def reward(self, action: int) -> float:
        return self.seen * (2.0 * action - 1.0)

    @classmethod
    def values(cls, gamma: float) -> Values:
        return {-1.0: 1.0, 1.0: 1.0}

    @classmethod
    def mistakes(cls, gamma: float) -> dict[str, Values]:
        return {}


class Endless(Probe):
    """Reward 1 in every step, for ever; a time limit cuts the episode after 5."""

    steps = 5
    cut = True
    tests = "that a truncated episode keeps the value of its future"

    @classmethod
    def values(cls, gamma: float) -> Values:
        return {0.0: 1 / max(1 - gamma, 1e-6)}

    @classmethod
    def mistakes(cls, gamma: float) -> dict[str, Values]:
        to_the_end = [sum(gamma**k for k in range(left)) for left in range(1, cls.steps + 1)]
        return {
            "a time limit is treated as a termination: add γ·V of the state after the last step": {
                0.0: sum(to_the_end) / len(to_the_end)
            },
        }


PROBES: dict[str, type[Probe]] = {
    f"rlhflab/{probe.__name__}-v0": probe for probe in (Constant, Observed, Delayed, Acted, Both, Endless)
}
"""gymnasium's id → probe, in the order to try them."""

for _id, _probe in PROBES.items():
    if _id not in gymnasium.registry:
        gymnasium.register(_id, _probe, max_episode_steps=_probe.steps if _probe.cut else 2 * _probe.steps)


def verdict(
    probe: type[Probe],
    gamma: float,
    probabilities: Callable[[Tensor], Tensor],
    value: Callable[[Tensor], Tensor] | None = None,
) -> str:
    """Say what is wrong with a policy and value function trained in a probe; "" if nothing is.

    Args:
        probe: where the policy was trained.
        gamma: the discount it was trained with.
        probabilities: observations [n, 1] → π, [n, 2].
        value: observations [n, 1] → V, [n]; None without a value function.
    """
    wanted = probe.values(gamma)
    seen = torch.tensor([[observation] for observation in wanted])
    with torch.no_grad():
        policies = probabilities(seen).tolist()
        found = dict(zip(wanted, value(seen).tolist(), strict=True)) if value is not None else dict(wanted)
    if not _near(found, wanted) and not (probe.best and not _decided(probe, wanted, policies)):
        for mistake, values in probe.mistakes(gamma).items():
            if _near(found, values):
                return f"{probe.__name__}: {mistake}"
        return (
            f"{probe.__name__}: V is {_shown(found)} but should be {_shown(wanted)}; it tests {probe.tests}"
        )
    if probe.best and not _decided(probe, wanted, policies):
        right = [
            policy[probe.best[observation]] for observation, policy in zip(wanted, policies, strict=True)
        ]
        if max(right) < NEAR:
            return (
                f"{probe.__name__}: the wrong action is learnt: does the policy's loss have the wrong sign?"
            )
        return (
            f"{probe.__name__}: the right action has probability {', '.join(f'{each:.2f}' for each in right)} but "
            f"should have 1; it tests {probe.tests}"
        )
    return ""


def _near(found: Values, wanted: Values) -> bool:
    return all(abs(found[seen] - value) <= NEAR * max(1.0, abs(value)) for seen, value in wanted.items())


def _decided(probe: type[Probe], wanted: Values, policies: list[list[float]]) -> bool:
    return all(policy[probe.best[seen]] >= 1 - NEAR for seen, policy in zip(wanted, policies, strict=True))


def _shown(values: Values) -> str:
    return ", ".join(f"{value:.2f} at {seen:g}" for seen, value in values.items())
