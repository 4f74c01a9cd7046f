"""The panels of a DPO board, and parts that other boards reuse."""

from __future__ import annotations

from rlhflab.plots.panel import Line, Panel

POLICY = ("π_θ", "the policy being trained")
REF = ("π_{ref}", "the reference it started from")
TRUE_R = ("r(x, y)", "true reward of answer y to prompt x, known in this world")
BETA = ("β", "strength of the KL term")
PAIR = ("y_w, y_l", "chosen and rejected answer of a pair")
RHAT = ("r̂", "implicit reward; β is included")

ERRORS = (
    "bars, shades",
    "one standard error, in a world whose answers cannot all be listed; they may reach above the frontier, which is "
    "drawn as far as it is known",
)

AT_LEAST = ("at least", "if samples of π_{ref} give only a lower bound on J*")

REWARD = Panel(
    id="reward",
    title="True reward",
    caption="Should rise from π_{ref} towards π*, which depends on β: change β, and π* moves.",
    formula=("E_x Σ_y π_θ(y|x) · r(x, y)",),
    symbols=(
        POLICY,
        TRUE_R,
        ("dashed", "the same mean under π*, the best policy for the β in force"),
        ("dotted", "under the reference π_{ref}"),
    ),
    lines=(
        Line("exact/reward", "π_θ", "policy", ghost=True),
        Line(
            "estimated/reward",
            "π_θ, estimate ± its error",
            "policy",
            spread="estimated/reward_se",
            ghost=True,
        ),
        Line("estimated/ref_reward", "π_{ref}, estimate", "reference", dash="dot"),
    ),
    target="reward",
    reference="ref_reward",
)
KL = Panel(
    id="kl",
    title="KL from the reference",
    caption="How far π_θ has moved. Beyond π* the extra KL costs more than it gains at this β.",
    formula=("KL(π_θ ‖ π_{ref}) = E_x Σ_y π_θ(y|x) · log [ π_θ(y|x) / π_{ref}(y|x) ]",),
    symbols=(
        POLICY,
        REF,
        ("dashed", "KL(π* ‖ π_{ref}), the optimum's, for the β in force"),
        (
            "estimate",
            "mean over answers of π_θ of Σ_t KL(π_θ(·|s_t) ‖ π_{ref}(·|s_t)), where s_t is the text before token t",
        ),
        ("unit", "nats"),
    ),
    lines=(
        Line("exact/kl", "π_θ", "policy", ghost=True),
        Line(
            "estimated/kl_rb", "π_θ, estimate ± its error", "policy", spread="estimated/kl_rb_se", ghost=True
        ),
        Line("estimated/kl_k3", "π_θ, k3 of an older run: low where the KL is large", "policy", ghost=True),
    ),
    target="kl",
)
IMPLICIT = Panel(
    id="implicit",
    title="Implicit rewards",
    caption="The gap must open. Both may fall: that alone is not a mistake. Bands: ±1 std of the batch.",
    formula=("r̂(x, y) = β · log [ π_θ(y|x) / π_{ref}(y|x) ]",),
    symbols=(
        RHAT,
        BETA,
        POLICY,
        REF,
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
    formula=("margin = r̂(x, y_w) − r̂(x, y_l)", "accuracy = fraction of pairs with margin > 0"),
    symbols=(RHAT, PAIR),
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
    caption="Every pair starts at ½. Learnt pairs move left; pairs that the policy ranks wrongly move right.",
    formula=("w = σ( r̂(x, y_l) − r̂(x, y_w) )", "∇L = −β · E [ w · ( ∇log π_θ(y_w|x) − ∇log π_θ(y_l|x) ) ]"),
    symbols=(
        ("w", "how strongly this pair pulls, between 0 and 1"),
        ("σ(z)", "1 / (1 + e^{−z})"),
        RHAT,
        PAIR,
        BETA,
    ),
    kind="weights",
    y_title="pairs in batch",
)
WEIGHTS_OVER_TIME = Panel(
    id="heat",
    title="Gradient weights over time",
    caption="A histogram per column. What stays near 1 resists: often a wrong label.",
    formula=("w = σ( r̂(x, y_l) − r̂(x, y_w) )",),
    symbols=(("colour", "percentage of the pairs of those steps with this weight"), RHAT, PAIR),
    kind="heatmap",
    y_title="weight",
)
PLANE = Panel(
    id="plane",
    title="Reward against KL",
    caption="No policy lies above the frontier. The closer the trail, the more reward for its KL.",
    formula=(
        "max_π E[r] − β · KL(π ‖ π_{ref})",
        "π*(y|x) = π_{ref}(y|x) · e^{r(x, y)/β} / Z(x)",
        "Z(x) = Σ_y π_{ref}(y|x) · e^{r(x, y)/β}",
    ),
    symbols=(
        ("frontier", "π* for every β: the best reward at each KL; its slope at π* is β"),
        ("diamond", "π* for the β in force"),
        ("trail", "this training, its head now"),
        ERRORS,
        TRUE_R,
    ),
    kind="plane",
    x_title="KL(π ‖ π<sub>ref</sub>)",
    y_title="E[r]",
    note="efficiency",
)
LOSS = Panel(
    id="loss",
    title="Loss and regret",
    caption="Loss falls while regret rises? Then the pairs are fitted at the expense of the goal.",
    formula=(
        "L = −E log σ( r̂(x, y_w) − r̂(x, y_l) )",
        "regret = J* − J = β · KL(π_θ ‖ π*)",
        "J = E[r] − β · KL(π_θ ‖ π_{ref})",
    ),
    symbols=(
        RHAT,
        PAIR,
        ("J*", "the largest possible J, reached by π*"),
        ("efficiency", "( E[r] − E_{ref}[r] ) / ( frontier reward at the same KL − E_{ref}[r] )"),
        AT_LEAST,
    ),
    lines=(
        Line("loss", "loss", "fit"),
        Line("exact/regret", "regret", "policy", right=True),
        Line(
            "estimated/regret",
            "regret, estimate ± its error",
            "policy",
            spread="estimated/regret_se",
            right=True,
        ),
        Line("estimated/regret_at_least", "regret, at least", "policy", right=True, dash="dot"),
    ),
    y_title="loss",
    right_title="regret",
    note="efficiency",
)
EFFICIENCY = Panel(
    id="efficiency",
    title="Efficiency",
    caption="Reward gained, relative to the most that can be gained at this KL. At most 1.",
    formula=("efficiency = ( E[r] − E_{ref}[r] ) / ( frontier reward at the same KL − E_{ref}[r] )",),
    symbols=(TRUE_R, POLICY, REF, ("frontier", "π* for every β: the best reward at each KL")),
    lines=(Line("exact/efficiency", "efficiency", "policy"),),
    y_title="efficiency",
    level=1.0,
    report_only=True,
)
GRAMMATICAL = Panel(
    id="grammatical",
    title="Clean language",
    caption="How much of its output the grammar allows. Chasing the reward may lower it.",
    formula=("E_x Σ_{y clean} π_θ(y|x)",),
    symbols=(POLICY, ("y clean", "an answer that the grammar allows")),
    lines=(
        Line("exact/grammatical", "π_θ", "policy", ghost=True),
        Line("estimated/grammatical", "π_θ, fraction of samples", "policy", ghost=True),
    ),
    y_title="probability",
    range=(0.0, 1.05),
    report_only=True,
)

DPO_PANELS: tuple[Panel, ...] = (
    REWARD, KL, IMPLICIT, MARGINS, WEIGHTS, WEIGHTS_OVER_TIME, PLANE, LOSS, EFFICIENCY, GRAMMATICAL,
)  # fmt: skip
"""In reading order."""
