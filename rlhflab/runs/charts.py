"""The plain plots of a report, as data: curves over steps, and the newest arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rlhflab.core.record import Record
from rlhflab.plots.drawing import (
    CHOSEN,
    FAINT,
    POLICY,
    REFERENCE,
    REJECTED,
    TRUTH,
    Plot,
    add_line,
    curve,
    in_bins,
    new_figure,
)


class Curve(NamedTuple):
    """One curve: a scalar's name, exact/… or estimated/…; `right` puts it on an axis of its own."""

    series: str
    name: str
    color: str = POLICY
    dash: str = "solid"
    right: bool = False


class Chart(NamedTuple):
    """Curves over steps with a title and the one line that says what to look for.

    It is there only where the records have one of the scalars `given`, if any are named, and none of `absent`.
    """

    title: str
    caption: str
    y: str
    curves: tuple[Curve, ...]
    level: float | None = None
    given: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    def plot(self, records: Sequence[Record]) -> Plot | None:
        """Return the plot of the curves that the records have; None where they have none."""
        if (self.given and not _have(records, self.given)) or _have(records, self.absent):
            return None
        figure = new_figure("step", self.y)
        for line in self.curves:
            points = curve(records, line.series)
            add_line(figure, points, line.name, line.color, line.dash, right=line.name if line.right else "")
        if not figure.data:
            return None
        if self.level is not None:
            figure.add_hline(y=self.level, line={"color": TRUTH, "dash": "dash", "width": 1})
        return Plot(self.title, self.caption, figure)


def _have(records: Sequence[Record], names: Sequence[str]) -> bool:
    return any(name in record.scalars for record in records[:1] for name in names)


OF_PAIRS = ("rewards/margins", "margin")  # scalars of preference optimisation and of reward modelling

EXACT = (
    Chart(
        "Efficiency",
        "Reward gained over the most that can be gained at this KL. Nothing goes above 1.",
        "efficiency",
        (Curve("exact/efficiency", "efficiency"),),
        level=1.0,
    ),
    Chart(
        "Regret",
        "J* − J = β·KL(π‖π*), what is missing. If it rises while β stays, training went on too long.",
        "J* − J",
        (
            Curve("exact/regret", "regret"),
            Curve("estimated/regret", "regret, estimate"),
            Curve("estimated/regret_at_least", "regret, at least", dash="dot"),
        ),
        level=0.0,
    ),
    Chart(
        "Rank correlation",
        "1: the reward model puts all answers in their true order.",
        "Spearman's ρ",
        (Curve("exact/rank_correlation", "ρ"), Curve("estimated/rank_correlation", "ρ over samples")),
        level=1.0,
    ),
    Chart(
        "Clean language",
        "Probability of the answers without a fault. A model of faulty texts makes faults as often as they do.",
        "probability",
        (
            Curve("exact/grammatical", "the policy"),
            Curve("exact/grammatical_texts", "the texts", TRUTH, "dash"),
            Curve("estimated/grammatical", "the policy, share of samples"),
        ),
    ),
)
EPISODES = (
    Chart(
        "Return of an episode",
        "Evaluation: fresh episodes, the same starts each time. Does it reach the dotted line, and stay?",
        "return",
        (
            Curve("episode/return", "this iteration", FAINT),
            Curve("estimated/return", "evaluation"),
            Curve("estimated/solved", "solved", TRUTH, "dot"),
        ),
    ),
    Chart(
        "Length of an episode",
        "Time steps until it ends. Where every step is paid for it is the return.",
        "time steps",
        (
            Curve("episode/length", "this iteration", FAINT),
            Curve("estimated/length", "evaluation"),
        ),
    ),
)
TRAINING = (
    Chart(
        "Margins and accuracy",
        "r̂ of chosen less r̂ of rejected, and the share of pairs where it is positive.",
        "margin, nats × β",
        (
            Curve("rewards/margins", "margin"),
            Curve("rewards/accuracies", "accuracy", CHOSEN, right=True),
        ),
    ),
    Chart(
        "Loss",
        "Falls to the entropy of the language and no further. Batch falls, language rises: learnt by heart.",
        "nats per token",
        (
            Curve("loss", "batch", REFERENCE),
            Curve("exact/cross_entropy", "over the language, exact"),
            Curve("estimated/cross_entropy", "over the language, held-out texts"),
            Curve("exact/entropy", "entropy of the language", TRUTH, "dash"),
        ),
        absent=OF_PAIRS,
    ),
    Chart(
        "Loss",
        "A pair starts at ln 2 ≈ 0.693. Held out turning up while training falls: learnt by heart.",
        "loss, nats",
        (Curve("loss", "training"), Curve("eval/loss", "held out", CHOSEN)),
        given=OF_PAIRS,
    ),
    Chart(
        "Accuracy",
        "Share of pairs ranked as labelled. Labels are drawn by chance, so it cannot reach 1.",
        "accuracy",
        (Curve("accuracy", "training"), Curve("eval/accuracy", "held out", CHOSEN)),
    ),
    Chart(
        "Margin",
        "Score of the first answer less that of the last.",
        "margin",
        (Curve("margin", "training"), Curve("eval/margin", "held out", CHOSEN)),
    ),
    Chart(
        "Score and KL of the batch",
        "What training sees: the score it maximises, and the KL it pays for.",
        "score",
        (Curve("objective/scores", "score"), Curve("objective/kl", "KL, nats", CHOSEN, right=True)),
    ),
    Chart(
        "Noise of the gradient",
        "Standard deviation of the advantages; at the optimum it vanishes.",
        "std of A",
        (Curve("advantages/std", "std of A"),),
    ),
    Chart(
        "Clip fraction",
        "Share of the actions (a token is one) whose gradient the clip stops.",
        "clip fraction",
        (Curve("policy/clipfrac_avg", "clipped", REJECTED),),
    ),
    Chart(
        "Size of the update",
        "KL(π_old‖π_θ) by k3: mean over the minibatches, and at the last one. The clip bounds no KL.",
        "nats per action",
        (Curve("policy/kl_old_k3_last", "last", CHOSEN), Curve("policy/kl_old_k3", "mean")),
    ),
    Chart(
        "Trust region",
        "The line search keeps the true KL(π_old‖π_θ) below δ.",
        "nats per action",
        (
            Curve("trpo/max_kl", "δ", REFERENCE, "dot"),
            Curve("trpo/predicted_kl_old", "predicted", CHOSEN, "dash"),
            Curve("trpo/kl_old", "true"),
        ),
    ),
    Chart(
        "Gain of the step",
        "Where the true gain falls short of the predicted one, the step is too long for a straight line.",
        "gain",
        (Curve("trpo/predicted_gain", "predicted", CHOSEN, "dash"), Curve("trpo/gain", "true")),
    ),
    Chart(
        "Share of the step taken",
        "1: the full step held. Lower: the line search shortened it. 0: no step was taken.",
        "share",
        (Curve("trpo/share", "share"),),
    ),
    Chart(
        "Value function",
        "Explained variance: 1 is a perfect V, 0 no better than a constant, below 0 worse.",
        "value loss",
        (
            Curve("loss/value_avg", "value loss"),
            Curve("val/explained_variance", "explained variance", CHOSEN, right=True),
        ),
    ),
    Chart(
        "Entropy",
        "Falls as the policy grows sure of itself. Near 0 nothing new is tried any more.",
        "nats per action",
        (Curve("policy/entropy_avg", "entropy"),),
    ),
    Chart(
        "Length of answers",
        "A length that runs off is a usual way to please a reward model.",
        "tokens",
        (Curve("answer_length", "tokens"), Curve("stopped", "share stopped", CHOSEN, right=True)),
    ),
)


class Columns(NamedTuple):
    """Two arrays against each other, or one against its places (x ""); with a line where both axes agree.

    `right` is an array on an axis of its own, by its name and title; `level` a scalar drawn as a dotted line.
    """

    title: str
    caption: str
    x: str
    y: str
    x_title: str
    y_title: str
    mode: str = "lines+markers"
    identity: bool = False
    log: bool = False
    right: tuple[str, str] = ("", "")
    level: tuple[str, str] = ("", "")

    def plot(self, records: Sequence[Record]) -> Plot | None:
        """Return the plot of the newest record that has the arrays; None where none has."""
        record = newest(records, self.y)
        if record is None:
            return None
        y = record.arrays[self.y]
        x = record.arrays.get(self.x, tuple(range(len(y))))
        figure = new_figure(self.x_title, self.y_title)
        if self.identity:
            ends = [max(min(x), min(y)), min(max(x), max(y))]
            add_line(figure, (ends, ends), "equal", TRUTH, "dash")
        size = 5 if self.mode == "markers" else 8
        figure.add_scatter(
            x=x, y=y, name=self.y_title, mode=self.mode, marker={"color": POLICY, "size": size}
        )
        if self.log:
            figure.update_yaxes(type="log")
        right, title = self.right
        if right in record.arrays:
            add_line(figure, (list(x), list(record.arrays[right])), title, CHOSEN, right=title)
            figure.data[-1].update(mode="lines+markers", marker={"size": 6})
        level, title = self.level
        if level in record.scalars:
            ends = [min(x), max(x)] if min(x) < max(x) else [0.0, max(x)]
            add_line(figure, (ends, [record.scalars[level]] * 2), title, REFERENCE, "dot")
        return Plot(self.title, f"Step {record.step}. {self.caption}", figure)


COLUMNS = (
    Columns(
        "Conjugate gradient",
        "The residual usually falls below 1, not at every iteration: the error is lessened as H measures it.",
        "", "cg_residuals", "iteration", "residual", log=True,
    ),
    Columns(
        "Line search",
        "From the full step leftwards, until the KL is no more than δ and the gain is above 0.",
        "line_search/share", "line_search/kl", "share of the full step", "KL(π_old‖π_θ)",
        right=("line_search/gain", "gain"), level=("trpo/max_kl", "δ"),
    ),
    Columns(
        "Calibration",
        "On the dashed line a predicted 70 % is true 70 % of the time. Flatter: the model is too sure.",
        "calibration/predicted", "calibration/true", "predicted probability", "true probability", identity=True,
    ),
    Columns(
        "Model against truth",
        "A perfect model: for each prompt a line parallel to the dashed one.",
        "scatter/true", "scatter/model", "true reward", "score of the model", "markers", identity=True,
    ),
)  # fmt: skip


def newest(records: Sequence[Record], array: str) -> Record | None:
    """Return the newest record that has the array; None where none has."""
    return next((record for record in reversed(records) if record.arrays.get(array)), None)


def ratios(records: Sequence[Record]) -> Plot | None:
    """Return the histogram of PPO's newest ratios between marks of the clip range then in force."""
    record = newest(records, "ratio")
    if record is None:
        return None
    clip_range = record.knobs.get("clip_range", 0.0)
    places = sorted({1 - clip_range, 1.0, 1 + clip_range})
    clipped = record.arrays.get("ratio_clipped", ())
    centres, shares, ends, held = in_bins(record.arrays["ratio"], places, clipped)
    figure = new_figure("π_θ/π_old", "% of actions")
    figure.add_bar(x=centres, y=shares, name="ratio", marker={"color": POLICY})
    if clipped:
        figure.add_bar(x=centres, y=held, name="clipped", marker={"color": REJECTED})
        figure.update_layout(barmode="overlay")
    for place in places:
        figure.add_vline(x=place, line={"color": TRUTH, "dash": "dash", "width": 1})
    figure.update_xaxes(range=ends)
    caption = (
        "Dashed: 1 and 1 ± ε, beyond which the clip can stop a gradient. The outer bars hold all beyond."
    )
    return Plot("Ratios", f"Step {record.step}. {caption}", figure)
