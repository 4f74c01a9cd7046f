"""What a board shows, as data: one `Panel` per plot.

The page (static/plots.js) and the still pictures (still.py) draw the same specifications. A panel whose series no
record has is not shown, so a new algorithm needs only its own panels here.
Formulas are plain text; `_x`, `_{…}` and `^{…}` become subscripts and superscripts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

# Okabe and Ito's colours, distinguishable with every common colour-vision deficiency: (on white, on black).
COLOURS: dict[str, tuple[str, str]] = {
    "policy": ("#00805f", "#2fd0a2"),
    "chosen": ("#0072b2", "#5bb8f0"),
    "rejected": ("#d55e00", "#ff8c42"),
    "weight": ("#a8518a", "#e08fc4"),
    "fit": ("#a87400", "#f0c040"),
    "truth": ("#24292f", "#e6e9ec"),
    "reference": ("#8a929a", "#8a929a"),
}

Kind = Literal["lines", "histogram", "heatmap", "plane"]


@dataclass(frozen=True)
class Line:
    """One curve over steps.

    Attributes:
        series: name of a scalar, or exact/… for an exact value.
        name: what the legend says.
        colour: a key of COLOURS.
        spread: series of the standard deviation, drawn as a band of ±1 around the curve.
        right: whether it belongs to the axis on the right.
        ghost: whether former runs of the board leave this curve behind.
    """

    series: str
    name: str
    colour: str
    spread: str = ""
    right: bool = False
    ghost: bool = False


@dataclass(frozen=True)
class Panel:
    """One plot.

    Attributes:
        id: unique among panels.
        title: two to four words.
        caption: one line: what to look for.
        formula: the formula lines the ? opens.
        symbols: (symbol, meaning) of everything in the formula.
        kind: lines over steps, histogram or heat map of the weights, or the reward–KL plane.
        lines: the curves, for kind "lines".
        target: field of the backdrop whose value at the current β is a dashed line.
        reference: exact value drawn as a dotted line.
        range, right_range: fixed ends of the vertical axes; None follows the data.
        y_title, right_title: axis titles; "" for none.
        note: exact value written into the plot.
    """

    id: str
    title: str
    caption: str
    formula: tuple[str, ...]
    symbols: tuple[tuple[str, str], ...]
    kind: Kind = "lines"
    lines: tuple[Line, ...] = ()
    target: str = ""
    reference: str = ""
    range: tuple[float, float] | None = None
    right_range: tuple[float, float] | None = None
    y_title: str = ""
    right_title: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and lists, ready for json.dumps."""
        return asdict(self)

    def shown_by(self, data: Mapping[str, Any]) -> bool:
        """Whether the frame `data` has anything for this panel."""
        if self.kind == "lines":
            return any(line.series in data["series"] for line in self.lines)
        return {"histogram": "batch", "heatmap": "heat", "plane": "trail"}[self.kind] in data


_POLICY = ("π_θ", "the policy being trained")
_REF = ("π_{ref}", "the reference it started from")
_R = ("r(x, y)", "true reward of answer y to prompt x, known in this world")
_BETA = ("β", "strength of the KL term: the slider")
_PAIR = ("y_w, y_l", "chosen and rejected answer of a pair")
_RHAT = ("r̂", "implicit reward; β is included")

REWARD = Panel(
    id="reward",
    title="True reward",
    caption="Should climb from π_{ref} towards π* of the β in force; π* moves with the slider.",
    formula=("E_x Σ_y π_θ(y|x) · r(x, y)",),
    symbols=(
        _POLICY,
        _R,
        ("dashed", "the same mean under π*, the best policy for the β on the slider"),
        ("dotted", "under the reference π_{ref}"),
    ),
    lines=(Line("exact/reward", "π_θ", "policy", ghost=True),),
    target="reward",
    reference="ref_reward",
)
KL = Panel(
    id="kl",
    title="KL from the reference",
    caption="How far π_θ has moved. Beyond π* it moves further than this β says is worth it.",
    formula=("KL(π_θ ‖ π_{ref}) = E_x Σ_y π_θ(y|x) · log [ π_θ(y|x) / π_{ref}(y|x) ]",),
    symbols=(
        _POLICY,
        _REF,
        ("dashed", "KL(π* ‖ π_{ref}), the optimum's, for the β on the slider"),
        ("unit", "nats"),
    ),
    lines=(Line("exact/kl", "π_θ", "policy", ghost=True),),
    target="kl",
)
IMPLICIT = Panel(
    id="implicit",
    title="Implicit rewards",
    caption="The gap must open. Both may fall: that alone is no mistake. Bands: ±1 std of the batch.",
    formula=("r̂(x, y) = β · log [ π_θ(y|x) / π_{ref}(y|x) ]",),
    symbols=(
        _RHAT,
        _BETA,
        _POLICY,
        _REF,
        ("chosen, rejected", "mean of r̂ over the answers y_w, y_l of the batch"),
    ),
    lines=(
        Line("rewards/chosen", "chosen", "chosen", spread="rewards/chosen_std"),
        Line("rewards/rejected", "rejected", "rejected", spread="rewards/rejected_std"),
    ),
)
MARGINS = Panel(
    id="margins",
    title="Margin and accuracy",
    caption="Both rise as pairs get ranked right; wrong labels keep accuracy below 1.",
    formula=("margin = r̂(x, y_w) − r̂(x, y_l)", "accuracy = share of pairs with margin > 0"),
    symbols=(_RHAT, _PAIR),
    lines=(
        Line("rewards/margins", "margin", "policy"),
        Line("rewards/accuracies", "accuracy", "fit", right=True),
    ),
    right_range=(0.0, 1.03),
    y_title="margin",
    right_title="accuracy",
)
WEIGHTS = Panel(
    id="weights",
    title="Gradient weights now",
    caption="Every pair starts at ½. Learnt pairs move left; pairs the policy contradicts move right.",
    formula=("w = σ( r̂(x, y_l) − r̂(x, y_w) )", "∇L = −β · E [ w · ( ∇log π_θ(y_w|x) − ∇log π_θ(y_l|x) ) ]"),
    symbols=(
        ("w", "how strongly this pair pulls, between 0 and 1"),
        ("σ(z)", "1 / (1 + e^{−z})"),
        _RHAT,
        _PAIR,
        _BETA,
    ),
    kind="histogram",
    y_title="pairs in batch",
)
WEIGHTS_OVER_TIME = Panel(
    id="heat",
    title="Gradient weights over time",
    caption="A histogram per column. What stays near 1 resists: often a wrong label.",
    formula=("w = σ( r̂(x, y_l) − r̂(x, y_w) )",),
    symbols=(("colour", "share of the pairs of those steps with this weight"), _RHAT, _PAIR),
    kind="heatmap",
    y_title="weight",
)
PLANE = Panel(
    id="plane",
    title="Reward against KL",
    caption="No policy lies above the frontier. The nearer the trail, the more reward for its KL.",
    formula=(
        "max_π E[r] − β · KL(π ‖ π_{ref})",
        "π*(y|x) = π_{ref}(y|x) · e^{r(x, y)/β} / Z(x)",
        "Z(x) = Σ_y π_{ref}(y|x) · e^{r(x, y)/β}",
    ),
    symbols=(
        ("frontier", "π* for every β: the best reward at each KL; its slope at π* is β"),
        ("diamond", "π* for the β on the slider"),
        ("trail", "this training, its head now"),
        _R,
    ),
    kind="plane",
    y_title="E[r]",
    note="efficiency",
)
LOSS = Panel(
    id="loss",
    title="Loss and regret",
    caption="Loss falls while regret rises? Then the pairs are fitted at the cost of the goal.",
    formula=(
        "L = −E log σ( r̂(x, y_w) − r̂(x, y_l) )",
        "regret = J* − J = β · KL(π_θ ‖ π*)",
        "J = E[r] − β · KL(π_θ ‖ π_{ref})",
    ),
    symbols=(
        _RHAT,
        _PAIR,
        ("J*", "the greatest J there is, reached by π*"),
        ("efficiency", "( E[r] − E_{ref}[r] ) / ( frontier reward at the same KL − E_{ref}[r] )"),
    ),
    lines=(
        Line("loss", "loss", "fit"),
        Line("exact/regret", "regret", "policy", right=True),
    ),
    y_title="loss",
    right_title="regret",
    note="efficiency",
)

PANELS: tuple[Panel, ...] = (REWARD, KL, IMPLICIT, MARGINS, WEIGHTS, WEIGHTS_OVER_TIME, PLANE, LOSS)
"""The panels of a preference-optimisation board, in reading order."""


def series_of(panels: Iterable[Panel]) -> list[str]:
    """Return the names of all series that the panels draw, each once."""
    names: dict[str, None] = {}
    for panel in panels:
        for line in panel.lines:
            names[line.series] = None
            if line.spread:
                names[line.spread] = None
    return list(names)


def ghost_series(panels: Iterable[Panel]) -> list[str]:
    """Return the names of the series that former runs leave behind."""
    return [line.series for panel in panels for line in panel.lines if line.ghost]
