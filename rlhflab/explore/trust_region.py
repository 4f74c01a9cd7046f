"""The trust-region explorable: one step in the plane of parameters and in the square of policies.

Everything is computed in the browser (static/trust_region.js); `two_states` computes the same in Python, with the
functions that TRPO uses, for the static figure and the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import traitlets

from rlhflab.explore.explorable import Explorable, Number
from rlhflab.explore.two_states import (
    GAMMA,
    PARAMETERS,
    PAY,
    START,
    TRIES,
    Step,
    evaluate,
    logits_of,
    mean_kl,
    theta_of,
    trpo_step,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

LOGIT = 5.0  # farthest logit


class TrustRegionExplorable(Explorable):
    """Drag a policy of two parameters, and δ: its trust region, the natural and the plain gradient, the price λ of KL.

    Args:
        logits: of staying in A and in B, from −5 to 5.
        max_kl: δ, from 0.001 to 0.5, nats a step.
        parameters: how the policy is written: "separate", "stretched" or "mixed"; see two_states.PARAMETERS.

    Attributes:
        logit_a, logit_b, max_kl, parameters: as last set by the user, or by Python.
        landscape: "J" or "surrogate": whose level lines are shown.
        circles: whether circles of one size in θ are shown in both planes.
        paths: whether sixty steps are.

    Raises:
        ValueError: a number out of range, or an unknown name.
    """

    _script = "trust_region.js"

    logit_a = Number(1.5, -LOGIT, LOGIT)
    logit_b = Number(-1.5, -LOGIT, LOGIT)
    max_kl = Number(0.05, 0.001, 0.5)
    parameters = traitlets.Unicode("separate").tag(sync=True)
    landscape = traitlets.Unicode("J").tag(sync=True)
    circles = traitlets.Bool(False).tag(sync=True)
    paths = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        logits: tuple[float, float] = (1.5, -1.5),
        max_kl: float = 0.05,
        parameters: str = "separate",
        circles: bool = False,
    ) -> None:
        problem = {"gamma": GAMMA, "start": START, "pay": PAY, "tries": TRIES}
        super().__init__(
            {"problem": problem, "matrices": PARAMETERS},
            logit_a=logits[0], logit_b=logits[1], max_kl=max_kl, parameters=parameters, circles=circles,
        )  # fmt: skip

    @traitlets.validate("parameters", "landscape")
    def _check_choice(self, proposal: dict[str, Any]) -> str:
        name, value = proposal["trait"].name, str(proposal["value"])
        allowed = tuple(PARAMETERS) if name == "parameters" else ("J", "surrogate")
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        return value

    def step(self) -> Step:
        """TRPO's step from here, computed in Python."""
        logits = torch.tensor([self.logit_a, self.logit_b], dtype=torch.float64)
        return trpo_step(theta_of(logits, self.parameters), self.max_kl, self.parameters)

    def figure(self) -> go.Figure:
        """Return a static plotly figure: level lines of J, the true trust region and the ellipse, both gradients."""
        import plotly.graph_objects as go

        grid = torch.linspace(-LOGIT, LOGIT, 61, dtype=torch.float64)
        corners = torch.cartesian_prod(grid, grid)
        old = torch.tensor([self.logit_a, self.logit_b], dtype=torch.float64)
        theta, step = theta_of(old, self.parameters), self.step()
        new = logits_of(corners, self.parameters)
        figure = go.Figure()
        axis = grid.tolist()
        heights = {"J": evaluate(new).objective, "KL": mean_kl(old, new)}
        tables = {name: values.view(61, 61).T.tolist() for name, values in heights.items()}
        bar = {"title": {"text": "J"}}
        figure.add_contour(
            x=axis, y=axis, z=tables["J"], name="J", colorscale="Blues", ncontours=18, colorbar=bar
        )
        region = {"start": self.max_kl, "end": self.max_kl, "size": 1, "coloring": "lines"}
        figure.add_contour(
            x=axis, y=axis, z=tables["KL"], name="KL = δ", contours=region, showscale=False,
            colorscale=[[0, "#E69F00"], [1, "#E69F00"]], line={"width": 3},
        )  # fmt: skip
        ends = (
            ("natural gradient, full step", step.scale * step.natural, "#009E73"),
            ("plain gradient, to the ellipse", step.plain, "#D55E00"),
        )
        for name, move, colour in ends:
            xs, ys = zip(theta.tolist(), (theta + move).tolist(), strict=True)
            figure.add_scatter(
                x=xs, y=ys, name=name, line={"color": colour, "width": 3}, mode="lines+markers"
            )
        figure.update_layout(
            title=f"δ = {self.max_kl:g}, λ = {1 / step.scale:.3g}: level lines of J, and KL = δ",
            xaxis={"title": "θ<sub>1</sub>", "range": [-LOGIT, LOGIT], "constrain": "domain"},
            yaxis={"title": "θ<sub>2</sub>", "range": [-LOGIT, LOGIT], "scaleanchor": "x"},
            template="plotly_white", height=560, legend={"orientation": "h", "y": -0.15},
        )  # fmt: skip
        return figure
