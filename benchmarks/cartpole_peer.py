"""stable-baselines3's PPO and sb3-contrib's TRPO as a worker for cartpole, and the judgement that all share.

As a program it runs in an environment of its own (`python -m benchmarks.cartpole --install`) and knows nothing of
rlhflab: a line `{"algorithm": "ppo", "seed": 0}` on stdin is answered by what `Clock.result` says. The settings are
those of rl-baselines3-zoo (hyperparams/ppo.yml and trpo.yml, CartPole-v1), all else is at its default.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SOLVED, BUDGET = 475.0, 100_000  # mean return; steps of the environment, the zoo's n_timesteps
EVERY, EPISODES = 1_024, 100  # steps between evaluations; episodes of one


class Clock:
    """When a run first had a mean return of 475: over its last 100 episodes, and in an evaluation.

    An evaluation plays 100 fresh episodes with sampled actions, at the first rollout's end after every 1,024 steps; its
    time is left out of all times.

    Args:
        right: observations [n, 4] → the policy's probability of action 1, [n].
    """

    def __init__(self, right: Callable[[Any], Any]) -> None:
        import gymnasium

        self._right, self._next = right, EVERY
        self._worlds = gymnasium.make_vec(
            "CartPole-v1", num_envs=EPISODES, vectorization_mode="vector_entry_point"
        )
        self.last_100: tuple[int, float] | None = None  # steps, seconds
        self.evaluated: tuple[int, float] | None = None
        self._left_out, self._began = 0.0, time.perf_counter()

    def look(self, steps: int, mean_of_100: float | None) -> bool:
        """Note where a run is after a rollout; returns whether it is over.

        Args:
            steps: of the environment so far.
            mean_of_100: mean return of the last 100 episodes; None before there are as many.
        """
        self.steps, self.seconds = steps, time.perf_counter() - self._began - self._left_out
        if self.last_100 is None and mean_of_100 is not None and mean_of_100 >= SOLVED:
            self.last_100 = steps, self.seconds
        if self.evaluated is None and steps >= self._next:
            self._next += EVERY
            before = time.perf_counter()
            if self._mean_return(steps) >= SOLVED:
                self.evaluated = steps, self.seconds
            self._left_out += time.perf_counter() - before
        return steps >= BUDGET or (self.last_100 is not None and self.evaluated is not None)

    def _mean_return(self, seed: int) -> float:
        random, totals, under_way = np.random.default_rng(seed), np.zeros(EPISODES), np.ones(EPISODES, bool)
        seen, _ = self._worlds.reset(seed=seed)
        while under_way.any():
            actions = (random.random(EPISODES) < self._right(seen)).astype(np.int64)
            seen, rewards, terminated, truncated, _ = self._worlds.step(actions)
            totals += rewards * under_way
            under_way &= ~(terminated | truncated)
        return float(totals.mean())

    def result(self) -> dict[str, Any]:
        """Steps and seconds to both, None where they were not reached, and to the end of the run."""
        return {"last_100": self.last_100, "evaluated": self.evaluated, "end": (self.steps, self.seconds)}


def train(algorithm: str, seed: int) -> dict[str, Any]:
    """Train one of the peers until the clock says that it is over."""
    import torch
    from sb3_contrib import TRPO
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    if algorithm == "ppo":
        envs = make_vec_env("CartPole-v1", n_envs=8, seed=seed)
        model: Any = PPO(
            "MlpPolicy", envs, n_steps=32, batch_size=256, gae_lambda=0.8, gamma=0.98, n_epochs=20, ent_coef=0.0,
            learning_rate=lambda left: 1e-3 * left, clip_range=lambda left: 0.2 * left, seed=seed, device="cpu",
        )  # fmt: skip
    else:
        envs = make_vec_env("CartPole-v1", n_envs=2, seed=seed)
        model = TRPO(
            "MlpPolicy", envs, n_steps=512, batch_size=512, cg_damping=1e-3, gae_lambda=0.98, gamma=0.99,
            learning_rate=1e-3, n_critic_updates=20, seed=seed, device="cpu",
        )  # fmt: skip

    def right(seen: Any) -> Any:
        with torch.no_grad():
            return model.policy.get_distribution(torch.from_numpy(seen)).distribution.probs[:, 1].numpy()

    class Watch(BaseCallback):
        def _on_training_start(self) -> None:
            self.clock, self.over = Clock(right), False

        def _on_rollout_start(self) -> None:  # after the update that the last rollout led to
            episodes = self.model.ep_info_buffer
            whole = len(episodes) == episodes.maxlen  # 100
            mean = float(np.mean([episode["r"] for episode in episodes])) if whole else None
            if self.model.num_timesteps:
                self.over = self.clock.look(self.model.num_timesteps, mean)

        def _on_step(self) -> bool:
            return not self.over

    watch = Watch()
    model.learn(BUDGET, callback=watch)
    if not watch.over:
        watch._on_rollout_start()
    return watch.clock.result()


def main() -> None:
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(train(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
