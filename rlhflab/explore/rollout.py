"""The rollout player: one episode, step by step, with its states, actions, rewards and returns.

CartPole is drawn as a cart and a pole; of any other environment the observations are shown as curves.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import traitlets
from torch import Tensor

from rlhflab.explore.explorable import Explorable, Number
from rlhflab.objectives.advantages import discounted_returns

if TYPE_CHECKING:
    import plotly.graph_objects as go

CARTPOLE = ("cart's place", "cart's speed", "pole's angle", "pole's turning")  # metres, radians, seconds
MOST_STEPS = 1000


class RolloutPlayer(Explorable):
    """Play an episode: a slider over time, π(a|s) at every step, and returns that follow γ.

    Args:
        states: [time + 1, size], s_0 … s_T, the state after the last step included.
        actions: [time], whole numbers from 0.
        rewards: [time].
        probabilities: [time, actions], π(a|s_t).
        gamma: the first discount, 0 to 1.
        names: of the entries of a state; with those of CartPole (by default, for four entries) it is drawn as one.
        action_names: of the actions; "left" and "right" where there are two.

    Attributes:
        time: t of the frame shown, 0 to T.
        gamma: γ.

    Raises:
        ValueError: lengths that do not match, more than 1,000 steps, or invalid numbers.
    """

    _script = "rollout.js"

    time = traitlets.Int(0).tag(sync=True)
    gamma = Number(0.99, 0.0, 1.0)

    def __init__(
        self,
        states: Tensor,
        actions: Tensor,
        rewards: Tensor,
        probabilities: Tensor,
        gamma: float = 0.99,
        names: Sequence[str] | None = None,
        action_names: Sequence[str] | None = None,
    ) -> None:
        steps, lengths = len(rewards), (len(states) - 1, len(actions), len(probabilities))
        if not 1 <= steps <= MOST_STEPS:
            raise ValueError(f"an episode must have 1 to {MOST_STEPS} steps, got {steps}")
        if set(lengths) != {steps}:
            raise ValueError(
                f"for {steps} rewards {steps + 1} states, {steps} actions and {steps} rows of probabilities are "
                f"needed, got {lengths[0] + 1}, {lengths[1]} and {lengths[2]}"
            )
        size, choices = states.shape[1], probabilities.shape[1]
        names = names or (CARTPOLE if size == len(CARTPOLE) else [f"s[{i}]" for i in range(size)])
        action_names = action_names or (
            ("left", "right") if choices == 2 else [str(a) for a in range(choices)]
        )
        if len(names) != size or len(action_names) != choices:
            raise ValueError(
                f"{size} names and {choices} action names are needed, got {len(names)} and {len(action_names)}"
            )
        for name, values in (("states", states), ("rewards", rewards), ("probabilities", probabilities)):
            if not values.isfinite().all():
                raise ValueError(f"{name} must be finite")
        if actions.is_floating_point() or not ((actions >= 0) & (actions < choices)).all():
            least, most = actions.min().item(), actions.max().item()
            raise ValueError(
                f"actions must be whole numbers from 0 to {choices - 1}, got {least:g} to {most:g}"
            )
        payload = {
            "states": _rounded(states),
            "actions": actions.tolist(),
            "rewards": _rounded(rewards),
            "probabilities": _rounded(probabilities),
            "names": list(names),
            "actionNames": list(action_names),
            "cartpole": tuple(names) == CARTPOLE,
        }
        super().__init__(payload, gamma=gamma)

    @traitlets.validate("time")
    def _check_time(self, proposal: dict[str, int]) -> int:
        last = len(self.data.get("rewards", ()))
        if not 0 <= proposal["value"] <= last:
            raise ValueError(f"time must be from 0 to {last}, got {proposal['value']}")
        return proposal["value"]

    def returns(self) -> Tensor:
        """G_t = Σ_k γ^k·r_{t+k}, [time]."""
        rewards = torch.tensor([self.data["rewards"]], dtype=torch.float64)
        dones = torch.zeros_like(rewards, dtype=torch.bool)
        dones[:, -1] = True
        return discounted_returns(rewards, dones, self.gamma)[0]

    def figure(self) -> go.Figure:
        """Return a static plotly figure: the states and the returns to go over time."""
        from plotly.subplots import make_subplots

        figure = make_subplots(
            rows=2, cols=1, shared_xaxes=True, subplot_titles=("States", "Return to go G_t")
        )
        for name, values in zip(self.data["names"], zip(*self.data["states"], strict=True), strict=True):
            figure.add_scatter(y=values, name=html.escape(name, quote=False), row=1, col=1)
        figure.add_scatter(y=self.returns().tolist(), name=f"G at γ = {self.gamma:g}", row=2, col=1)
        figure.update_xaxes(title_text="step t", row=2, col=1)
        return figure.update_layout(template="plotly_white", height=480)


def _rounded(values: Tensor) -> Any:
    return torch.round(values.double(), decimals=4).tolist()
