"""The step explorable: one TRPO step of a real policy, with δ as a slider over what was measured along it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import traitlets

from rlhflab.explore.explorable import Explorable, Number

if TYPE_CHECKING:
    import plotly.graph_objects as go

TRIES = 10  # of the line search, each 0.8 of the one before
MOST = 0.5  # the largest δ


class StepExplorable(Explorable):
    """Drag δ: predicted and true KL and gain of the step, the line search's tries, conjugate gradient's residuals.

    Args:
        radii: √δ of the measured points, rising from 0 to √0.5 or more, so that every δ was measured.
        kls, gains: [directions][points], true mean KL and surrogate gain there.
        slopes: [directions], predicted gain per unit of the radius.
        iterations: [directions], of conjugate gradient.
        residuals: ‖g − H·x_k‖/‖g‖ from k = 0 to the most iterations, or to where it stopped.
        max_kl: the first δ, from 0.001 to 0.5.

    Attributes:
        max_kl, iterations: as last set by the user, or by Python.

    Raises:
        ValueError: lengths that do not agree, numbers that are not finite, a value out of range.
    """

    _script = "step.js"

    max_kl = Number(0.05, 0.001, MOST)
    iterations = traitlets.Int(10).tag(sync=True)

    def __init__(
        self,
        radii: Sequence[float],
        kls: Sequence[Sequence[float]],
        gains: Sequence[Sequence[float]],
        slopes: Sequence[float],
        iterations: Sequence[int],
        residuals: Sequence[float],
        max_kl: float = 0.05,
    ) -> None:
        if not len(kls) == len(gains) == len(slopes) == len(iterations) > 0:
            sizes = ", ".join(str(len(each)) for each in (kls, gains, slopes, iterations))
            raise ValueError(f"kls, gains, slopes and iterations must be equally long, got {sizes}")
        for name, rows in (("kls", kls), ("gains", gains)):
            if any(len(row) != len(radii) for row in rows):
                raise ValueError(f"{name} must have {len(radii)} points per direction, as radii has")
        if not residuals:
            raise ValueError("residuals must have at least one number, got none")
        for name, rows in (("kls", kls), ("gains", gains), ("slopes", [slopes]), ("residuals", [residuals])):
            if not all(math.isfinite(value) for row in rows for value in row):
                raise ValueError(f"{name} must be finite")
        if not radii or list(radii) != sorted(set(radii)) or radii[0] != 0 or radii[-1] < MOST**0.5 - 1e-9:
            raise ValueError(f"radii must rise from 0 to √{MOST} = {MOST**0.5:.4f} or more")
        payload = {
            "radii": list(radii), "kls": [list(row) for row in kls], "gains": [list(row) for row in gains],
            "slopes": list(slopes), "iterations": list(iterations), "residuals": list(residuals), "tries": TRIES,
        }  # fmt: skip
        chosen = 10 if 10 in iterations else iterations[-1]
        super().__init__(payload, max_kl=max_kl, iterations=chosen)

    @traitlets.validate("iterations")
    def _check_iterations(self, proposal: dict[str, Any]) -> int:
        value, known = int(proposal["value"]), self.data.get("iterations", ())
        if known and value not in known:
            raise ValueError(f"iterations must be one of {', '.join(map(str, known))}, got {value}")
        return value

    def figure(self) -> go.Figure:
        """Return a static plotly figure: predicted and true KL and gain along the step, for the present direction."""
        from plotly.subplots import make_subplots

        row = self.data["iterations"].index(self.iterations)
        radii, deltas = self.data["radii"], [radius**2 for radius in self.data["radii"]]
        figure = make_subplots(rows=1, cols=2, subplot_titles=("KL along the step", "Gain along the step"))
        promised = [self.data["slopes"][row] * radius for radius in radii]
        lines = ((1, deltas, self.data["kls"][row]), (2, promised, self.data["gains"][row]))
        for column, predicted, true in lines:
            for name, values, line in (
                ("predicted", predicted, {"color": "#333333", "dash": "dash"}),
                ("true", true, {"color": "#0072B2"}),
            ):
                figure.add_scatter(
                    x=deltas, y=values, name=name, line=line, row=1, col=column, showlegend=column == 1
                )
            figure.add_vline(x=self.max_kl, line={"dash": "dot", "width": 1}, row=1, col=column)
        figure.update_xaxes(title_text="δ of the full step")
        figure.update_layout(
            title=f"δ = {self.max_kl:g}, {self.iterations} iterations of conjugate gradient",
            template="plotly_white", height=380,
        )  # fmt: skip
        return figure
