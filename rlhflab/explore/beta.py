"""The β explorable: drag β and see the closed-form optimum π*(y|x) = π_ref(y|x)·exp(r(x,y)/β)/Z(x) move.

Everything that depends on β is computed in the browser (static/beta.js), so a drag never asks the kernel; Python
computes the same for the static figure, the table and the tests.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import traitlets
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlhflab.explore.beta_data import BAR_BETAS, MAX_BETA, MIN_BETA, payload, tables
from rlhflab.explore.explorable import Explorable, Number
from rlhflab.objectives.optimum import expected_reward, frontier, log_partition, optimum_moments
from rlhflab.text import clipped

if TYPE_CHECKING:
    import plotly.graph_objects as go

ALL_PROMPTS = -1  # value of `BetaExplorable.prompt` that means "the mean over prompts"

_CHOSEN, _REJECTED, _OPTIMUM, _REFERENCE = "#0072B2", "#D55E00", "#333333", "#A9A9A9"


class Optimum(NamedTuple):
    """What π* attains at one β.

    Attributes:
        reward: E_π*[r], in the reward's unit.
        kl: KL(π*‖π_ref) ≥ 0, in nats per answer.
        log_z: log Z, in nats.
    """

    reward: float
    kl: float
    log_z: float


class BetaExplorable(Explorable):
    """Drag β and watch π*, E[r], KL, the reward–KL frontier and the chosen and rejected log-ratios follow.

    Args:
        prompts: the prompts x.
        answers: all answers y; every prompt has the same ones. Texts are never read as HTML.
        ref_logps: [prompts, answers] log π_ref(y|x) in nats, EOS included; each row of exp(ref_logps) sums to 1.
            Tensor or array; -inf where π_ref is 0.
        rewards: [prompts, answers] r(x, y), finite.
        beta: the first β, from 0.05 to 10.
        top: how many of the likeliest answers under π_ref get bars; half as many again are added for answers that
            become likely under π*.

    Attributes:
        beta: β as last set by the user (written when a drag ends), or by Python.
        prompt: index of the prompt shown; -1 is the mean over prompts.

    Rewards with more distinct values than fit in 100 kB are merged into narrow bins; the view says so.

    Raises:
        ValueError: shapes, non-finite numbers, rows that do not sum to 1, or too many prompts for 100 kB.
    """

    _script = "beta.js"

    beta = Number(1.0, MIN_BETA, MAX_BETA)
    prompt = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        prompts: Sequence[str],
        answers: Sequence[str],
        ref_logps: Any,
        rewards: Any,
        beta: float = 1.0,
        top: int = 12,
    ) -> None:
        prompts, answers = [str(x) for x in prompts], [str(y) for y in answers]
        logps, r = tables(prompts, answers, ref_logps, rewards)
        if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= 40:
            raise ValueError(f"top must be an integer from 1 to 40, got {top!r}")
        super().__init__(payload(prompts, answers, logps, r, top), beta=beta)

    @traitlets.validate("prompt")
    def _check_prompt(self, proposal: Any) -> int:
        index, count = int(proposal["value"]), len(self.data.get("prompts", ()))
        if count and not -1 <= index < count:
            raise ValueError(
                f"prompt must be from 0 to {count - 1}, or -1 for the mean over prompts, got {index}"
            )
        return index

    def optimum(self, beta: float | None = None, prompt: int | None = None) -> Optimum:
        """Return what the view shows for `beta` and `prompt` (by default the current ones), computed in Python."""
        beta = self.beta if beta is None else beta
        reward, kl, objective = optimum_moments(*self._levels(prompt), beta)
        return Optimum(reward, max(kl, 0.0), objective / beta)

    def _shown(self, prompt: int | None = None) -> list[int]:
        prompt = self.prompt if prompt is None else prompt
        return list(range(len(self.data["prompts"]))) if prompt == ALL_PROMPTS else [prompt]

    def _levels(self, prompt: int | None = None) -> tuple[Tensor, Tensor]:
        """Return log π_ref mass and reward of each level as sent, both [shown prompts, levels], filled with mass 0."""
        masses, levels = (
            pad_sequence([_tensor(self.data[name][i]) for i in self._shown(prompt)], batch_first=True)
            for name in ("masses", "levels")
        )
        return masses.log(), levels

    def _bars(self, beta: float) -> tuple[list[str], list[float], list[float], list[float]]:
        """Return texts, rewards, π_ref and π* of the answers with bars, best reward first."""
        group = self.data["bars"][self.prompt + 1 if len(self.data["prompts"]) > 1 else 0]
        ref, r = _tensor(group["ref"]), _tensor(group["rewards"])  # both [bars, shown prompts]
        best = (ref.log() + r / beta - log_partition(*self._levels(), beta)).exp()
        return group["texts"], r.mean(1).tolist(), ref.mean(1).tolist(), best.mean(1).tolist()

    def figure(self) -> go.Figure:
        """Return a static plotly figure of the three plots at the current β and prompt."""
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots

        beta, shown = self.beta, self._shown()
        betas = torch.logspace(math.log10(MIN_BETA), math.log10(MAX_BETA), 80, dtype=torch.float64)
        now, curve = self.optimum(), frontier(*self._levels(), betas)
        start = float(expected_reward(*self._levels()).mean())
        texts, r, ref, best = self._bars(beta)
        labels = [
            f"{_plotly_text(clipped(text, 32))}  ({value:+.2f})" for text, value in zip(texts, r, strict=True)
        ]
        places = list(range(len(labels)))

        figure = make_subplots(
            rows=2,
            cols=2,
            specs=[[{"rowspan": 2}, {}], [None, {}]],
            subplot_titles=(
                "π<sub>ref</sub> and π*, likeliest answers",
                "Reward–KL frontier",
                "Mean log π*/π<sub>ref</sub> in pairs",
            ),
            horizontal_spacing=0.12,
            vertical_spacing=0.2,
        )
        for name, values, colour in (("π<sub>ref</sub>", ref, _REFERENCE), ("π*", best, _OPTIMUM)):
            figure.add_trace(
                go.Bar(y=places, x=values, name=name, orientation="h", marker_color=colour), row=1, col=1
            )
        figure.update_yaxes(tickvals=places, ticktext=labels, autorange="reversed", row=1, col=1)
        figure.update_xaxes(title_text="probability", row=1, col=1)

        trace = go.Scatter(
            x=[*curve.kl.tolist(), 0.0],
            y=[*curve.reward.tolist(), start],
            mode="lines",
            name="frontier",
            line={"color": _OPTIMUM, "dash": "dash"},
        )
        point = {"color": _OPTIMUM, "size": 11}
        figure.add_trace(trace, row=1, col=2)
        figure.add_trace(
            go.Scatter(x=[now.kl], y=[now.reward], mode="markers", name=f"π* at β = {beta:g}", marker=point),
            row=1,
            col=2,
        )
        figure.update_xaxes(title_text="KL(π*‖π<sub>ref</sub>), nats", row=1, col=2)
        figure.update_yaxes(title_text="E[r]", row=1, col=2)

        for name, key, colour in (("chosen", "chosen", _CHOSEN), ("rejected", "rejected", _REJECTED)):
            mean = sum(self.data[key][i] for i in shown) / len(shown)
            ratio = ((mean - curve.objective) / betas).tolist()  # objective is β·log Z
            figure.add_trace(
                go.Scatter(x=betas.tolist(), y=ratio, name=name, line={"color": colour}), row=2, col=2
            )
            figure.add_trace(
                go.Scatter(
                    x=[beta],
                    y=[mean / beta - now.log_z],
                    mode="markers",
                    showlegend=False,
                    marker={"color": colour, "size": 9},
                ),
                row=2,
                col=2,
            )
        figure.update_xaxes(title_text="β", type="log", row=2, col=2)
        figure.update_yaxes(title_text="nats", range=[-8, 1.5], row=2, col=2)
        figure.update_layout(
            title_text=f"β = {beta:g} · {_plotly_text(self._title())} · E[r] = {now.reward:.3f} · KL = {now.kl:.3f}",
            template="plotly_white",
            height=560,
            bargap=0.25,
            legend={"orientation": "h", "y": -0.14},
        )
        return figure

    def _title(self) -> str:
        return "all prompts" if self.prompt == ALL_PROMPTS else str(self.data["prompts"][self.prompt])

    def _table(self) -> str:
        """Return E[r], KL, log Z and J* at several β as an HTML table without scripts."""
        rows = ""
        for beta in sorted({self.beta, *BAR_BETAS, 5.0, MAX_BETA}):
            o = self.optimum(beta)
            cells = "".join(f"<td>{v:.3f}</td>" for v in (o.reward, o.kl, o.log_z, o.reward - beta * o.kl))
            rows += f"<tr><th>{beta:g}</th>{cells}</tr>"
        head = "".join(f"<th>{name}</th>" for name in ("β", "E[r]", "KL(π*‖π_ref)", "log Z", "J*"))
        return f"<table><caption>π* for {html.escape(self._title())}</caption><tr>{head}</tr>{rows}</table>"


def _tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _plotly_text(text: str) -> str:
    """Plotly reads a few HTML tags in labels: show them as text."""
    return html.escape(text, quote=False) or "(empty)"
