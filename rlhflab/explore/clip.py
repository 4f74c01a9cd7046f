"""The explorable of PPO's clip: the objective of one action, and many epochs on one batch with and without it.

A Gaussian policy π_θ = N(μ, s²) has drawn 24 real actions as N(0, 1) and is now trained on them, epoch after epoch. The
reward is r(a) = −½(a − ½)² and noise, so that the true gain over π_old is known, and can be held against the promised
one, the mean of ρA over the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import traitlets
from torch import Tensor

from rlhflab.explore.explorable import Explorable, Number
from rlhflab.objectives.importance import effective_sample_size
from rlhflab.objectives.policy_gradient import ppo_clip_loss, surrogate_objective

if TYPE_CHECKING:
    import plotly.graph_objects as go

EPOCHS, BATCHES, SIZE = 100, 8, 24
GOAL = 0.5  # the best action
KINDS = {"min": "min(ρA, clip(ρ)A)", "alone": "clip(ρ)A alone", "none": "ρA, no clip"}


class Ascent(NamedTuple):
    """A policy while it is trained on one batch; all are [epochs + 1], from before the first epoch on.

    Attributes:
        mean, std: μ and s of π_θ.
        largest: largest ratio π_θ/π_old of the batch's actions.
        size: effective sample size of the ratios: the equivalent number of actions of π_θ.
        kl: KL(π_old‖π_θ), nats.
        promised: mean of ρA over the batch.
        gained: E_θ[r] − E_old[r].
    """

    mean: Tensor
    std: Tensor
    largest: Tensor
    size: Tensor
    kl: Tensor
    promised: Tensor
    gained: Tensor


class ClipExplorable(Explorable):
    """Drag an action's ratio along PPO's objective, and play the epochs on one batch with and without the clip.

    Args:
        ratio: ρ of one action, 0 to 2.
        advantage: its A, −2 to 2.
        clip_range: ε, 0.05 to 0.9.
        objective: what the batch is trained with: "min", "alone" (the clip without the minimum) or "none".
        epoch: 0 to 100, which of the epochs on the batch is shown.
        learning_rate: step size of the ascent, 0.01 to 0.2.
        noise: standard deviation of the rewards' noise, 0 to 3.
        batch: 1 to 8, which batch.
        seed: of the batches.
    """

    _script = "clip.js"

    ratio = Number(1.0, 0.0, 2.0)
    advantage = Number(1.0, -2.0, 2.0)
    clip_range = Number(0.2, 0.05, 0.9)
    objective = traitlets.Unicode("min").tag(sync=True)
    epoch = traitlets.Int(0).tag(sync=True)
    learning_rate = Number(0.05, 0.01, 0.2)
    noise = Number(2.0, 0.0, 3.0)
    batch = traitlets.Int(3).tag(sync=True)

    def __init__(
        self,
        ratio: float = 1.0,
        advantage: float = 1.0,
        clip_range: float = 0.2,
        objective: str = "min",
        epoch: int = 0,
        learning_rate: float = 0.05,
        noise: float = 2.0,
        batch: int = 3,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        actions, luck = (
            [[round(x, 3) for x in row] for row in torch.randn(BATCHES, SIZE, generator=generator).tolist()]
            for _ in range(2)
        )
        super().__init__(
            {"actions": actions, "luck": luck, "goal": GOAL, "epochs": EPOCHS},
            ratio=ratio, advantage=advantage, clip_range=clip_range, objective=objective, epoch=epoch,
            learning_rate=learning_rate, noise=noise, batch=batch,
        )  # fmt: skip

    @traitlets.validate("objective")
    def _check_objective(self, proposal: dict[str, str]) -> str:
        if proposal["value"] not in KINDS:
            raise ValueError(f"objective must be one of {', '.join(KINDS)}, got {proposal['value']!r}")
        return proposal["value"]

    @traitlets.validate("epoch", "batch")
    def _check_whole(self, proposal: dict[str, object]) -> object:
        name, value = proposal["trait"].name, proposal["value"]  # type: ignore[attr-defined]
        low, high = {"epoch": (0, EPOCHS), "batch": (1, BATCHES)}[name]
        if not low <= value <= high:  # type: ignore[operator]
            raise ValueError(f"{name} must be from {low} to {high}, got {value}")
        return value

    def advantages(self) -> tuple[Tensor, Tensor]:
        """The present batch: actions, and rewards less their mean, both [24]."""
        actions, luck = (
            torch.tensor(self.data[name][self.batch - 1], dtype=torch.float64) for name in ("actions", "luck")
        )
        rewards = -((actions - GOAL) ** 2) / 2 + self.noise * luck
        return actions, rewards - rewards.mean()

    def ascent(self, objective: str | None = None) -> Ascent:
        """Return the 100 epochs on the present batch, which the page shows, trained with an objective."""
        kind = objective or self.objective
        actions, advantages = self.advantages()
        mask = torch.ones(1, SIZE, dtype=torch.bool)
        old = torch.distributions.Normal(0.0, 1.0)
        theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # μ and log s
        rows = []
        for _ in range(EPOCHS + 1):
            policy = torch.distributions.Normal(theta[0], theta[1].exp())
            logps, old_logps = policy.log_prob(actions).unsqueeze(0), old.log_prob(actions).unsqueeze(0)
            promised = surrogate_objective(logps, old_logps, advantages.unsqueeze(0), mask)
            loss, seen = ppo_clip_loss(logps, old_logps, advantages.unsqueeze(0), mask, self.clip_range)
            if kind == "alone":
                held = (logps - old_logps).exp().clamp(1 - self.clip_range, 1 + self.clip_range)
                loss = -(held * advantages).mean()
            (gradient,) = torch.autograd.grad(-promised if kind == "none" else loss, theta)
            with torch.no_grad():
                mean, std = theta[0].clone(), theta[1].exp()
                size = effective_sample_size(logps - old_logps)[0]
                kl = torch.distributions.kl_divergence(old, policy)
                gained = (GOAL**2 + 1 - (mean - GOAL) ** 2 - std**2) / 2
                rows.append(torch.stack([mean, std, seen.ratio.max(), size, kl, promised, gained]))
                theta -= self.learning_rate * gradient / gradient.norm().clamp(min=1.0)
        return Ascent(*torch.stack(rows, 1))

    def figure(self) -> go.Figure:
        """Return a static plotly figure: the objective of one action, and the batch's promise beside the truth."""
        from plotly.subplots import make_subplots

        titles = (
            f"One action, A = {self.advantage:g}, ε = {self.clip_range:g}",
            "One batch: gain over π_old",
        )
        figure = make_subplots(rows=1, cols=2, subplot_titles=titles)
        ratio, epochs = torch.linspace(0, 2, 201), list(range(EPOCHS + 1))
        plain = ratio * self.advantage
        held = ratio.clamp(1 - self.clip_range, 1 + self.clip_range) * self.advantage
        heights = {"min": torch.minimum(plain, held), "alone": held, "none": plain}
        for (kind, name), colour in zip(KINDS.items(), ("#0072B2", "#E69F00", "#D55E00"), strict=True):
            line = {"color": colour, "width": 3 if kind == "min" else 1.5}
            figure.add_scatter(x=ratio.tolist(), y=heights[kind].tolist(), name=name, line=line, row=1, col=1)
            path = self.ascent(kind)
            shared = {"x": epochs, "legendgroup": kind, "row": 1, "col": 2}
            figure.add_scatter(y=path.gained.tolist(), name=f"true, {kind}", line=line, **shared)
            dashed = {**line, "dash": "dash"}
            figure.add_scatter(y=path.promised.tolist(), name=f"promised, {kind}", line=dashed, **shared)
        figure.update_xaxes(title="ratio π_θ/π_old", row=1, col=1)
        figure.update_xaxes(title="epochs on the batch", row=1, col=2)
        figure.update_yaxes(range=[-1.5, 2.5], row=1, col=2)
        figure.update_layout(template="plotly_white", height=380)
        return figure
