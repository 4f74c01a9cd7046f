"""The panels of a reward-model board."""

from __future__ import annotations

from dataclasses import replace

from rlhflab.plots import panels_dpo
from rlhflab.plots.panel import Line, Panel
from rlhflab.plots.panels_dpo import BETA, PAIR, TRUE_R

_R_PHI = ("r_φ(x, y)", "score of the reward model; only differences for the same prompt count")
_OPTIMAL = ("π*_φ", "the policy that is optimal for r_φ: the result of a perfect optimiser")
_HELD_OUT = ("held out", "rankings that are not trained on, labelled without noise")
_W = "w = σ( r_φ(x, y_l) − r_φ(x, y_w) )"

LOSS = Panel(
    id="loss",
    title="Loss",
    caption="Held out rises while training falls? That is overfitting.",
    formula=(
        "L = − E log σ( r_φ(x, y_w) − r_φ(x, y_l) )",
        "of a ranking: − E Σ_k log ( e^{r_k} / Σ_{j≥k} e^{r_j} )",
    ),
    symbols=(_R_PHI, PAIR, _HELD_OUT, ("unit", "nats; a pair starts at ln 2 ≈ 0.693")),
    lines=(
        Line("loss", "training", "fit"),
        Line("eval/loss", "held out", "policy", ghost=True),
    ),
)
ACCURACY = Panel(
    id="accuracy",
    title="Accuracy",
    caption="It cannot reach 1: labels are random, as annotators disagree.",
    formula=("accuracy = fraction of pairs with r_φ(x, y_w) > r_φ(x, y_l)",),
    symbols=(_R_PHI, PAIR, _HELD_OUT),
    lines=(
        Line("accuracy", "training", "fit"),
        Line("eval/accuracy", "held out", "policy", ghost=True),
    ),
)
MARGIN = Panel(
    id="margin",
    title="Margin",
    caption="Rises as pairs get ranked right. Much larger in training than held out: overfitting.",
    formula=("margin = r_φ(x, y_w) − r_φ(x, y_l)",),
    symbols=(_R_PHI, PAIR, _HELD_OUT),
    lines=(
        Line("margin", "training", "fit"),
        Line("eval/margin", "held out", "policy"),
    ),
)
CALIBRATION = Panel(
    id="calibration",
    title="Calibration",
    caption="Dashed: a predicted 70 % is true 70 % of the time. Flatter: overconfident.",
    formula=("predicted: σ( r_φ(x, y_1) − r_φ(x, y_2) )", "true: σ( r(x, y_1) − r(x, y_2) )"),
    symbols=(
        _R_PHI,
        TRUE_R,
        ("y_1, y_2", "two answers of π_{ref}"),
        ("dots", "means over bins of the predicted probability"),
    ),
    kind="xy",
    lines=(Line("calibration/true", "first preferred", "policy", x="calibration/predicted", dots="joined"),),
    identity=True,
    range=(0.0, 1.0),
    x_range=(0.0, 1.0),
    x_title="predicted probability",
    y_title="true probability",
)
SCATTER = Panel(
    id="scatter",
    title="Model against truth",
    caption="Perfect: each prompt gives a line parallel to the dashed one. Too high: over-rewarded.",
    formula=("r_φ(x, y) − E_{ref}[ r_φ(x, ·) ]  against  r(x, y)",),
    symbols=(
        _R_PHI,
        TRUE_R,
        ("dots", "300 answers: half drawn from π_{ref}, half from all grammatical ones"),
    ),
    kind="xy",
    lines=(Line("scatter/model", "answers", "chosen", x="scatter/true", dots="alone"),),
    identity=True,
    x_title="true reward",
    y_title="score of the model",
)
RANKS = Panel(
    id="ranks",
    title="Rank correlation",
    caption="1: all answers in their true order, including those that are in no pair of the data.",
    formula=("ρ = correlation of the ranks of r_φ(x, ·) and r(x, ·)",),
    symbols=(_R_PHI, TRUE_R, ("ρ", "Spearman's, over all grammatical answers, mean over prompts")),
    lines=(
        Line("exact/rank_correlation", "ρ", "policy", ghost=True),
        Line("estimated/rank_correlation", "ρ over samples", "policy", ghost=True),
    ),
)
WEIGHTS = replace(
    panels_dpo.WEIGHTS,
    caption="Every pair starts at ½. Learnt pairs move left; pairs that r_φ ranks wrongly move right.",
    formula=(_W, "∇L = − E [ w · ( ∇r_φ(x, y_w) − ∇r_φ(x, y_l) ) ]"),
    symbols=(
        ("w", "how strongly this pair pulls; of a ranking, the pair of its first and last answer"),
        ("σ(z)", "1 / (1 + e^{−z})"),
        _R_PHI,
        PAIR,
    ),
)
WEIGHTS_OVER_TIME = replace(
    panels_dpo.WEIGHTS_OVER_TIME,
    formula=(_W,),
    symbols=(panels_dpo.WEIGHTS_OVER_TIME.symbols[0], _R_PHI, PAIR),
)
PLANE = replace(
    panels_dpo.PLANE,
    title="Where the model would lead",
    caption="The trail is π*_φ, the policy that is optimal for r_φ, judged by the true reward r.",
    formula=("π*_φ(y|x) ∝ π_{ref}(y|x) · e^{r_φ(x, y)/β}", "π*(y|x) ∝ π_{ref}(y|x) · e^{r(x, y)/β}"),
    symbols=(
        _OPTIMAL,
        ("frontier", "π* for every β: the best true reward at each KL"),
        ("diamond", "π* for the β in force"),
        panels_dpo.ERRORS,
        TRUE_R,
    ),
    who="π*_φ",
)
REGRET = Panel(
    id="regret",
    title="The regret it would cost",
    caption="J* minus J of π*_φ: the cost of using this model, however well it is optimised.",
    formula=("regret = J(π*) − J(π*_φ)", "J(π) = E_π[r] − β · KL(π ‖ π_{ref})"),
    symbols=(_OPTIMAL, ("π*", "the policy that is optimal for the true reward r"), BETA),
    lines=(
        Line("exact/regret", "regret", "policy", ghost=True),
        Line("estimated/regret", "estimate", "policy", ghost=True),
    ),
    y_title="regret",
    note="efficiency",
)
TRUE_REWARD = replace(
    panels_dpo.REWARD,
    caption="The true reward of π*_φ, the optimal policy for the model. Does it approach that of π*?",
    formula=("E_x Σ_y π*_φ(y|x) · r(x, y)",),
    symbols=(_OPTIMAL, TRUE_R, *panels_dpo.REWARD.symbols[2:]),
    lines=(
        Line("exact/reward", "π*_φ", "policy"),
        Line("estimated/reward", "π*_φ, estimate ± its error", "policy", spread="estimated/reward_se"),
        Line("estimated/ref_reward", "π_{ref}, estimate", "reference", dash="dot"),
    ),
    report_only=True,
)
KL = replace(
    panels_dpo.KL,
    caption="How far an optimiser of this model would move. Beyond π* the extra KL costs more than it gains.",
    formula=("KL(π*_φ ‖ π_{ref})",),
    symbols=(_OPTIMAL, panels_dpo.REF, panels_dpo.KL.symbols[2], ("unit", "nats per answer")),
    lines=(Line("exact/kl", "π*_φ", "policy"), Line("estimated/kl", "π*_φ, estimate", "policy")),
    report_only=True,
)
EFFICIENCY = replace(panels_dpo.EFFICIENCY, symbols=(_OPTIMAL, *panels_dpo.EFFICIENCY.symbols))

REWARD_PANELS: tuple[Panel, ...] = (
    LOSS, ACCURACY, MARGIN, WEIGHTS, WEIGHTS_OVER_TIME, CALIBRATION, SCATTER, RANKS, PLANE, REGRET,
    TRUE_REWARD, KL, EFFICIENCY,
)  # fmt: skip
"""In reading order."""
