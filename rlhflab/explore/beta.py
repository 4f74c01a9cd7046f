"""The β explorable: drag β and see the closed-form optimum π*(y|x) = π_ref(y|x)·exp(r(x,y)/β)/Z(x) move.

Everything that depends on β is computed in the browser (static/beta.js), so a drag never asks the kernel. Z, E[r] and
KL of π* depend on π_ref only through how much of its mass lies on each distinct reward, so that distribution is what is
sent, with the few answers that get a bar: tens of kilobytes where the full table has 200,000 numbers.
"""

from __future__ import annotations

import html
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anywidget
import numpy as np
import traitlets
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import plotly.graph_objects as go

MIN_BETA, MAX_BETA = 0.05, 10.0
ALL_PROMPTS = -1  # value of `BetaExplorable.prompt` that means "the mean over prompts"

_MOST_PAIR_LEVELS = 2_000  # the pair means are quadratic in the number of levels
_PAYLOAD_BYTES = 95_000  # what may be sent; the promise is 100 kB
_BYTES_PER_LEVEL = 32  # one reward and one mass in JSON, at nine digits
_FEWEST_LEVELS = 64  # fewer would be visible in the curves
_LONGEST_TEXT = 80
_BAR_BETAS = (2.0, 1.0, 0.5, 0.2, 0.1, MIN_BETA)  # where to look for answers that π* makes likely
_CHOSEN, _REJECTED, _OPTIMUM, _REFERENCE = "#0072B2", "#D55E00", "#333333", "#A9A9A9"

Floats = NDArray[np.float64]


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


def reward_levels(ref_logps_row: ArrayLike, rewards_row: ArrayLike) -> tuple[Floats, Floats]:
    """Sum π_ref over answers of equal reward.

    Args:
        ref_logps_row: [answers] log π_ref(y|x) in nats, for all answers of one prompt; -inf where π_ref is 0.
        rewards_row: [answers] r(x, y).

    Returns:
        levels: [L] distinct rewards, ascending.
        masses: [L] π_ref mass on each level; they sum to 1 (normalised, so that rounding in π_ref cannot make
            KL(π*‖π_ref) negative).

    >>> reward_levels(np.log([0.5, 0.25, 0.25]), [1.0, 0.0, 1.0])
    (array([0., 1.]), array([0.25, 0.75]))
    """
    logps, rewards = _float64(ref_logps_row), _float64(rewards_row)
    if logps.ndim != 1 or logps.shape != rewards.shape:
        raise ValueError(
            f"ref_logps_row and rewards_row must be [answers], got {logps.shape} and {rewards.shape}"
        )
    levels, level_of_answer = np.unique(rewards, return_inverse=True)
    masses = _binned(level_of_answer, np.exp(logps), len(levels))
    return levels, masses / float(masses.sum())


def optimum_at(levels: ArrayLike, masses: ArrayLike, beta: float) -> Optimum:
    """Evaluate π* ∝ π_ref·exp(r/β) exactly.

    Z = Σ_k p_k·exp(r_k/β),  E[r] = Σ_k p_k·r_k·exp(r_k/β)/Z,  KL(π*‖π_ref) = E[r]/β − log Z,
    and J* = E[r] − β·KL = β·log Z.

    Args:
        levels: [L] distinct rewards r_k.
        masses: [L] π_ref mass p_k on each, sum 1.
        beta: strength of the KL term, > 0; usual range 0.05 to 10.

    Source: Rafailov et al. 2023 (DPO), equation 4.

    >>> optimum_at([0.0, 1.0], [0.5, 0.5], beta=1.0).log_z == math.log((1 + math.e) / 2)
    True
    """
    if not (math.isfinite(beta) and beta > 0):
        raise ValueError(f"beta must be a finite number > 0, got {beta!r}")
    r, p = _float64(levels), _float64(masses)
    exponents = r / beta
    peak = float(exponents[p > 0].max())
    weights = np.where(p > 0, p * np.exp(np.minimum(exponents - peak, 0.0)), 0.0)
    z = float(weights.sum())
    log_z = peak + math.log(z)
    reward = float(weights @ r) / z
    return Optimum(reward=reward, kl=max(reward / beta - log_z, 0.0), log_z=log_z)


def chosen_rejected_means(levels: ArrayLike, masses: ArrayLike) -> tuple[float, float]:
    """Mean reward of the chosen and of the rejected answer when Bradley–Terry labels pairs drawn from π_ref.

    p(w = i, l = j) = 2·p_i·p_j·σ(r_i − r_j), with both answers drawn independently (equal ones included), hence
    E[r_w] = E[r] + Σ_ij p_i·p_j·r_i·tanh((r_i − r_j)/2) and E[r_w] + E[r_l] = 2·E[r].

    Args:
        levels: [L] distinct rewards, ascending. Above 2,000 levels they are first merged into 2,000 equal bins, each
            at its mean reward: the cost is quadratic.
        masses: [L] π_ref mass on each, sum 1.

    Returns:
        (E[r_w], E[r_l]). With them E[log π*(y_w)/π_ref(y_w)] = E[r_w]/β − log Z is exact for every β.

    >>> [round(mean, 4) for mean in chosen_rejected_means([0.0, 1.0], [0.5, 0.5])]
    [0.6155, 0.3845]
    """
    r, p = merge_levels(_float64(levels), _float64(masses), _MOST_PAIR_LEVELS)
    mean = float(p @ r)
    lift = float((p * r) @ np.tanh((r[:, None] - r[None, :]) / 2) @ p)
    return mean + lift, mean - lift


def merge_levels(levels: Floats, masses: Floats, most: int) -> tuple[Floats, Floats]:
    """Merge `levels` into at most `most` bins of equal width, each at its mean reward; E_ref[r] is kept exactly.

    Returned unchanged when there are no more than `most`. With bins of width w, log Z falls by less than w²/(8β²).
    """
    if len(levels) <= most:
        return levels, masses
    low, high = float(levels[0]), float(levels[-1])
    bins = np.minimum(((levels - low) / (high - low) * most).astype(np.int64), most - 1)
    mass = _binned(bins, masses, most)
    kept = mass > 0
    mean = _binned(bins, masses * levels, most)[kept] / mass[kept]
    return mean, mass[kept]


class BetaExplorable(anywidget.AnyWidget):
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
        beta: β as last left by the person (written when a drag ends), or by Python.
        prompt: index of the prompt shown; -1 is the mean over prompts.

    Rewards with more distinct values than fit in 100 kB are merged into narrow bins; the view says so.

    Raises:
        ValueError: shapes, non-finite numbers, rows that do not sum to 1, or too many prompts for 100 kB.
    """

    _esm = Path(__file__).parent / "static" / "beta.js"

    data: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    beta = traitlets.Float(1.0).tag(sync=True)
    prompt = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        prompts: Sequence[str],
        answers: Sequence[str],
        ref_logps: ArrayLike,
        rewards: ArrayLike,
        beta: float = 1.0,
        top: int = 12,
    ) -> None:
        prompts, answers = [str(x) for x in prompts], [str(y) for y in answers]
        logps, r = _validated(prompts, answers, ref_logps, rewards)
        if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= 40:
            raise ValueError(f"top must be an integer from 1 to 40, got {top!r}")
        super().__init__(data=_payload(prompts, answers, logps, r, top), beta=_valid_beta(beta))

    @traitlets.validate("beta")
    def _check_beta(self, proposal: Any) -> float:
        return _valid_beta(proposal["value"])

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
        rows = [optimum_at(self.data["levels"][i], self.data["masses"][i], beta) for i in self._shown(prompt)]
        return Optimum(*(float(np.mean(column)) for column in zip(*rows, strict=True)))

    def _shown(self, prompt: int | None = None) -> list[int]:
        prompt = self.prompt if prompt is None else prompt
        return list(range(len(self.data["prompts"]))) if prompt == ALL_PROMPTS else [prompt]

    def _bars(self, beta: float) -> tuple[list[str], list[float], list[float], list[float]]:
        """Return texts, rewards, π_ref and π* of the answers with bars, best reward first."""
        shown, group = (
            self._shown(),
            self.data["bars"][self.prompt + 1 if len(self.data["prompts"]) > 1 else 0],
        )
        log_z = np.array(
            [optimum_at(self.data["levels"][i], self.data["masses"][i], beta).log_z for i in shown]
        )
        ref, r = np.array(group["ref"]), np.array(group["rewards"])  # both [bars, shown prompts]
        with np.errstate(divide="ignore"):
            best = np.exp(np.log(ref) + r / beta - log_z).mean(axis=1)
        return group["texts"], list(r.mean(axis=1)), list(ref.mean(axis=1)), list(best)

    def figure(self) -> go.Figure:
        """Return a static plotly figure of the three plots at the current β and prompt."""
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots

        beta, shown = self.beta, self._shown()
        betas = np.geomspace(MIN_BETA, MAX_BETA, 80)
        now, curve = self.optimum(), [self.optimum(float(b)) for b in betas]
        start = float(np.mean([np.dot(self.data["masses"][i], self.data["levels"][i]) for i in shown]))
        texts, r, ref, best = self._bars(beta)
        labels = [
            f"{_plotly_text(_shortened(text, 32))}  ({value:+.2f})"
            for text, value in zip(texts, r, strict=True)
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

        frontier = go.Scatter(
            x=[o.kl for o in curve] + [0.0],
            y=[o.reward for o in curve] + [start],
            mode="lines",
            name="frontier",
            line={"color": _OPTIMUM, "dash": "dash"},
        )
        point = {"color": _OPTIMUM, "size": 11}
        figure.add_trace(frontier, row=1, col=2)
        figure.add_trace(
            go.Scatter(x=[now.kl], y=[now.reward], mode="markers", name=f"π* at β = {beta:g}", marker=point),
            row=1,
            col=2,
        )
        figure.update_xaxes(title_text="KL(π*‖π<sub>ref</sub>), nats", row=1, col=2)
        figure.update_yaxes(title_text="E[r]", row=1, col=2)

        for name, key, colour in (("chosen", "chosen", _CHOSEN), ("rejected", "rejected", _REJECTED)):
            mean = float(np.mean([self.data[key][i] for i in shown]))
            ratio = [mean / b - o.log_z for b, o in zip(betas, curve, strict=True)]
            figure.add_trace(go.Scatter(x=betas, y=ratio, name=name, line={"color": colour}), row=2, col=2)
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

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Add to the widget what front ends without widgets can show: the plotly figure, and a plain table."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        # JupyterLab, Notebook and VS Code rank widgets above HTML (not above plotly's own type everywhere: leave that
        # out); for Colab that is not known, so it gets the widget alone. plotly.js by address keeps a saved notebook
        # small; the table has no script, so it is there offline and on pages that remove scripts.
        if "google.colab" not in sys.modules:
            figure = self.figure().to_html(full_html=False, include_plotlyjs="cdn", include_mathjax=False)
            data["text/html"] = self._table() + figure
        data["text/plain"] = f"BetaExplorable({len(self.data['prompts'])} prompts, beta={self.beta:g})"
        return data, metadata

    def _table(self) -> str:
        """Return E[r], KL, log Z and J* at several β as an HTML table without scripts."""
        rows = ""
        for beta in sorted({self.beta, *_BAR_BETAS, 5.0, MAX_BETA}):
            o = self.optimum(beta)
            cells = "".join(f"<td>{v:.3f}</td>" for v in (o.reward, o.kl, o.log_z, o.reward - beta * o.kl))
            rows += f"<tr><th>{beta:g}</th>{cells}</tr>"
        head = "".join(f"<th>{name}</th>" for name in ("β", "E[r]", "KL(π*‖π_ref)", "log Z", "J*"))
        return f"<table><caption>π* for {html.escape(self._title())}</caption><tr>{head}</tr>{rows}</table>"


def _binned(bins: NDArray[np.int64], weights: Floats, count: int) -> Floats:
    return np.bincount(bins, weights=weights, minlength=count).astype(np.float64)


def _float64(values: Any) -> Floats:
    """Return `values` (array, list, or tensor on any device) as a float64 array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def _valid_beta(beta: float) -> float:
    try:
        value = float(beta)
    except (TypeError, ValueError):
        value = math.nan
    if not MIN_BETA <= value <= MAX_BETA:
        raise ValueError(f"beta must be a number from {MIN_BETA:g} to {MAX_BETA:g}, got {beta!r}")
    return value


def _validated(
    prompts: list[str], answers: list[str], ref_logps: ArrayLike, rewards: ArrayLike
) -> tuple[Floats, Floats]:
    """Return both tables as float64, or raise ValueError in one line."""
    logps, r = _float64(ref_logps), _float64(rewards)
    expected = (len(prompts), len(answers))
    if 0 in expected:
        raise ValueError(
            f"at least one prompt and one answer are needed, got {expected[0]} and {expected[1]}"
        )
    if logps.shape != expected or r.shape != expected:
        raise ValueError(
            f"ref_logps and rewards must be [prompts, answers] = {expected}, got {logps.shape} and {r.shape}"
        )
    if not np.isfinite(r).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(r))[0])
        raise ValueError(f"rewards must be finite, got {r[at]} at {at} in shape {r.shape}")
    if np.isnan(logps).any():
        at = tuple(int(i) for i in np.argwhere(np.isnan(logps))[0])
        raise ValueError(f"ref_logps must not be NaN, got NaN at {at} in shape {logps.shape}")
    with np.errstate(over="ignore"):
        sums = np.exp(logps).sum(axis=1)
    worst = int(np.abs(sums - 1).argmax())
    if not abs(sums[worst] - 1) <= 1e-4:
        raise ValueError(
            "exp(ref_logps) must sum to 1 over the answers, "
            f"got {sums[worst]:.6g} for prompt {worst} ({_shortened(prompts[worst])!r})"
        )
    return logps, r


def _payload(
    prompts: list[str], answers: list[str], logps: Floats, rewards: Floats, top: int
) -> dict[str, Any]:
    """Return all that the browser needs, as JSON lists of at most 100 kB."""
    count = len(prompts)
    exact = [reward_levels(logps[i], rewards[i]) for i in range(count)]
    means = [chosen_rejected_means(*pair) for pair in exact]
    groups = [[i] for i in range(count)]
    if count > 1:
        groups.insert(0, list(range(count)))  # bars[0] is "all prompts"
    payload: dict[str, Any] = {
        "prompts": [_shortened(text) for text in prompts],
        "answers": len(answers),
        "range": [MIN_BETA, MAX_BETA],
        "chosen": _digits([chosen for chosen, _ in means]),
        "rejected": _digits([rejected for _, rejected in means]),
        "bars": [
            _bars(answers, logps[group], rewards[group], [exact[i] for i in group], top) for group in groups
        ],
    }
    used = _json_bytes(payload)
    needed = max(len(levels) for levels, _ in exact)
    sent = _levels(exact)
    if used + _json_bytes(sent) > _PAYLOAD_BYTES:
        most = (_PAYLOAD_BYTES - used) // (_BYTES_PER_LEVEL * count)
        if most < _FEWEST_LEVELS:
            raise ValueError(
                f"{count} prompts with {needed} distinct rewards do not fit in 100 kB: pass fewer prompts"
            )
        sent = _levels([merge_levels(levels, masses, most) for levels, masses in exact])
    # `merged`: distinct rewards before merging; 0 where all were sent
    return {**payload, **sent, "merged": needed if needed > max(map(len, sent["levels"])) else 0}


def _levels(pairs: list[tuple[Floats, Floats]]) -> dict[str, Any]:
    return {
        "levels": [_digits(levels) for levels, _ in pairs],
        "masses": [_digits(masses) for _, masses in pairs],
    }


def _json_bytes(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _bars(
    answers: list[str], logps: Floats, rewards: Floats, exact: list[tuple[Floats, Floats]], top: int
) -> dict[str, Any]:
    """Choose the answers with bars: the likeliest under π_ref, then those that π* makes likely; best reward first."""
    ref = np.exp(logps).mean(axis=0)
    chosen = list(np.argsort(-ref, kind="stable")[:top])
    ranked = []
    for beta in _BAR_BETAS:
        log_z = np.array([[optimum_at(levels, masses, beta).log_z] for levels, masses in exact])
        with np.errstate(over="ignore"):
            ranked.append(
                np.argsort(-np.exp(logps + rewards / beta - log_z).mean(axis=0), kind="stable")[:top]
            )
    wanted = min(len(answers), top + max(top // 2, 1))
    taken = {int(i) for i in chosen}
    for place in range(top):  # the first of every β, then the second of every β, …
        for order in ranked:
            if place < len(order) and len(taken) < wanted:
                taken.add(int(order[place]))
    shown = sorted(taken, key=lambda i: (-rewards[:, i].mean(), -ref[i]))
    return {
        "texts": [_shortened(answers[i]) for i in shown],
        "ref": [_digits(np.exp(logps[:, i])) for i in shown],
        "rewards": [_digits(rewards[:, i]) for i in shown],
    }


def _shortened(text: str, longest: int = _LONGEST_TEXT) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _digits(values: Any) -> list[float]:
    """Nine significant digits: what a curve can show is far coarser, and JSON gets half as long."""
    return [float(f"{value:.9g}") for value in values]


def _plotly_text(text: str) -> str:
    """Plotly reads a few HTML tags in labels: show them as text."""
    return html.escape(text, quote=False) or "(empty)"
