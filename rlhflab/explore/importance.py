"""The importance-sampling explorable: expectations under one policy from the actions of another.

A target policy p and a behaviour policy q choose a real number a, and the reward is a itself, so that the right answer
E_p[a] is p's mean. The page estimates it 200 times from n actions of q weighted by p/q, always from the same noise: a
drag moves every estimate smoothly.
"""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING

import torch
import traitlets
from torch import Tensor

from rlhflab.explore.explorable import Explorable, Number
from rlhflab.objectives.importance import (
    GaussianWeights,
    effective_sample_size,
    gaussian_weights,
    self_normalised_mean,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

REPETITIONS, MOST = 200, 100  # estimates, and actions of each
_UNIT = 4096  # of the noise as sent: int16, so that it reaches ±8 standard deviations


class ImportanceExplorable(Explorable):
    """Drag the behaviour policy q away from the target p, and watch weights, estimates and effective sample size.

    Args:
        target_mean, target_std: of p, −3 to 3 and 0.5 to 3.
        mean, std: of q, in the same ranges.
        samples: n, actions an estimate, 2 to 100.
        normalised: whether the estimate is Σw·a / Σw instead of Σw·a / n.
        seed: of the noise.

    Attributes:
        noise: [200, 100] standard normal numbers; the actions of q are mean + std·noise.
    """

    _script = "importance.js"

    target_mean = Number(1.0, -3.0, 3.0)
    target_std = Number(1.0, 0.5, 3.0)
    mean = Number(0.0, -3.0, 3.0)
    std = Number(1.2, 0.5, 3.0)
    samples = traitlets.Int(50).tag(sync=True)
    normalised = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        target_mean: float = 1.0,
        target_std: float = 1.0,
        mean: float = 0.0,
        std: float = 1.2,
        samples: int = 50,
        normalised: bool = False,
        seed: int = 0,
    ) -> None:
        drawn = torch.randn(REPETITIONS, MOST, generator=torch.Generator().manual_seed(seed))
        sent = (drawn * _UNIT).round().clamp(-32768, 32767).short()
        self.noise: Tensor = sent.double() / _UNIT
        payload = {
            "noise": base64.b64encode(sent.numpy().astype("<i2").tobytes()).decode(),
            "unit": _UNIT,
            "repetitions": REPETITIONS,
            "most": MOST,
        }
        super().__init__(
            payload, target_mean=target_mean, target_std=target_std, mean=mean, std=std, samples=samples,
            normalised=normalised,
        )  # fmt: skip

    @traitlets.validate("samples")
    def _check_samples(self, proposal: dict[str, int]) -> int:
        if not 2 <= proposal["value"] <= MOST:
            raise ValueError(f"samples must be from 2 to {MOST}, got {proposal['value']}")
        return proposal["value"]

    def closed_form(self) -> GaussianWeights:
        """What is known of the present weights; the estimate's standard deviation is `value_std` / √n."""
        return gaussian_weights(self.mean, self.std, self.target_mean, self.target_std)

    def estimates(self) -> tuple[Tensor, Tensor]:
        """The 200 estimates of E_p[a] and their effective sample sizes, both [200]: what the page shows."""
        z = self.noise[:, : self.samples]
        actions = self.mean + self.std * z
        log_ratios = (z**2 - ((actions - self.target_mean) / self.target_std) ** 2) / 2
        log_ratios += math.log(self.std / self.target_std)
        ess = effective_sample_size(log_ratios)
        if self.normalised:
            return self_normalised_mean(actions, log_ratios).value, ess
        return (log_ratios.exp() * actions).mean(-1), ess

    def figure(self) -> go.Figure:
        """Return a static plotly figure: both policies, and the spread of the estimates."""
        from plotly.subplots import make_subplots

        estimates, ess = self.estimates()
        figure = make_subplots(
            rows=1, cols=2, subplot_titles=("Policies", "200 estimates of E<sub>p</sub>[a]")
        )
        a = torch.linspace(-6, 6, 241, dtype=torch.float64)
        for name, mean, std, colour in (
            ("target p", self.target_mean, self.target_std, "#D55E00"),
            ("behaviour q", self.mean, self.std, "#0072B2"),
        ):
            density = (-(((a - mean) / std) ** 2) / 2).exp() / (std * math.sqrt(2 * math.pi))
            figure.add_scatter(
                x=a.tolist(), y=density.tolist(), name=name, line={"color": colour}, row=1, col=1
            )
        figure.add_histogram(x=estimates.tolist(), name="estimates", marker_color="#0072B2", row=1, col=2)
        figure.add_vline(x=self.target_mean, line={"color": "#333", "dash": "dash"}, row=1, col=2)
        figure.update_layout(
            template="plotly_white",
            height=360,
            title_text=f"{self.samples} actions of q are equivalent to {float(ess.mean()):.1f} of p",
        )
        return figure
