"""Settings of REINFORCE, TRPO and PPO on control problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhflab.core.settings import Setting, setting
from rlhflab.recipes.recipe import BuiltIn

if TYPE_CHECKING:
    from rlhflab.tasks.control import ControlTask

ENVS = Setting(help="Copies of the environment that run at the same time", at_least=1)
HORIZON = Setting(help="Steps of every copy per iteration", at_least=1)


@dataclass(frozen=True, kw_only=True)
class Environment(BuiltIn):
    """Copies of one of gymnasium's environments.

    From Python `world` may also be a function that makes one environment.
    """

    world: Any = setting(
        "CartPole-v1",
        "an environment's id such as CartPole-v1, or MODULE:ID where importing the module registers it",
    )
    envs: int = setting(4, ENVS)

    def task(self, horizon: int = 1, value: bool = True) -> ControlTask:
        """The environment as a task.

        Args:
            horizon: steps of every copy per iteration.
            value: whether there is a value function; without one, whole episodes are played.
        """
        from rlhflab.models.devices import choose_device
        from rlhflab.tasks.control import ControlTask

        seed, device = getattr(self, "seed", 0), choose_device(self.device, "control")
        return ControlTask(self.world, self.envs, horizon, seed, value=value, device=device)
