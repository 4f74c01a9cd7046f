"""The panels of REINFORCE, PPO and TRPO boards."""

from __future__ import annotations

from dataclasses import replace

from rlhflab.plots import panels_dpo
from rlhflab.plots.panel import Line, Panel, Upright
from rlhflab.plots.panels_dpo import AT_LEAST, BETA, EFFICIENCY, GRAMMATICAL, PLANE, POLICY, REF, TRUE_R

_OLD = ("π_{old}", "the policy that drew the answers of this iteration")
_A = ("A_t", "advantage of token t: how much better than expected it was")
_EPSILON = ("ε", "clip range")
_DELTA = ("δ", "radius of the trust region, shrunk by the schedule")
_RATIO = "ratio_t = π_θ(a_t|s_t) / π_{old}(a_t|s_t)"

REWARD = replace(
    panels_dpo.REWARD,
    title="True reward and score",
    caption="The score is what training sees. If it rises while the true reward falls, it is being gamed.",
    symbols=(
        *panels_dpo.REWARD.symbols,
        ("score", "what training maximises, mean over the answers just drawn: r itself or a reward model"),
    ),
    lines=(Line("objective/scores", "score (proxy)", "fit"), *panels_dpo.REWARD.lines),
)
KL = replace(
    panels_dpo.KL,
    caption="How far π_θ has moved. The estimate from the batch scatters around the exact value.",
    symbols=(
        *panels_dpo.KL.symbols,
        ("batch", "mean of log [ π_θ(y|x) / π_{ref}(y|x) ] over the answers just drawn"),
    ),
    lines=(Line("objective/kl", "batch", "fit"), *panels_dpo.KL.lines),
)
REGRET = Panel(
    id="regret",
    title="Regret",
    caption="The gap to π*. It should fall; if it rises at constant β, training has gone on too long.",
    formula=("regret = J* − J = β · KL(π_θ ‖ π*)", "J = E[r] − β · KL(π_θ ‖ π_{ref})"),
    symbols=(
        POLICY,
        REF,
        BETA,
        TRUE_R,
        ("J*", "the largest possible J, reached by π*"),
        ("efficiency", "( E[r] − E_{ref}[r] ) / ( frontier reward at the same KL − E_{ref}[r] )"),
        AT_LEAST,
    ),
    lines=(
        Line("exact/regret", "regret", "policy", ghost=True),
        Line("estimated/regret", "estimate ± its error", "policy", spread="estimated/regret_se", ghost=True),
        Line("estimated/regret_at_least", "at least", "policy", dash="dot", ghost=True),
    ),
    y_title="J* − J",
    note="efficiency",
)
ENTROPY = Panel(
    id="entropy",
    title="Entropy",
    caption="Falls as π_θ becomes more certain. Near 0 it no longer explores.",
    formula=("H ≈ − mean_t log π_θ(a_t|s_t)",),
    symbols=(POLICY, ("a_t, s_t", "token t, and the text before it"), ("unit", "nats per token")),
    lines=(Line("policy/entropy_avg", "entropy", "policy"),),
    y_title="nats",
)
LENGTH = Panel(
    id="length",
    title="Length of answers",
    caption="Ever longer answers are a common reward hack: read them.",
    formula=("length = tokens of an answer", "stopped = fraction of the answers that ended by themselves"),
    symbols=(("not stopped", "cut at the maximum length"),),
    lines=(
        Line("answer_length", "tokens", "policy"),
        Line("stopped", "stopped", "fit", right=True),
    ),
    right_range=(0.0, 1.03),
    y_title="tokens",
    right_title="stopped",
)
VALUE = Panel(
    id="value",
    title="Value function",
    caption="Explained variance: 1 is a perfect V, 0 no better than a constant, below 0 worse.",
    formula=("L_V = ½ · mean_t ( V(s_t) − R_t )^{2}", "explained variance = 1 − Var(R − V) / Var(R)"),
    symbols=(
        ("V(s_t)", "what the value function expects from token t on"),
        ("R_t", "return: reward from t on, KL term included, weighted by λ"),
    ),
    lines=(
        Line("loss/value_avg", "loss", "fit"),
        Line("val/explained_variance", "explained", "policy", right=True),
    ),
    y_title="loss",
    right_title="explained variance",
)

ADVANTAGES = Panel(
    id="advantages",
    title="Noise of the gradient",
    caption="At π* every answer's return is β · log Z(x): the advantages, and with them the noise, vanish.",
    formula=("A_i = R_i − mean_{j≠i} R_j", "R = r(x, y) − β · log [ π_θ(y|x) / π_{ref}(y|x) ]"),
    symbols=(
        ("A_i", "advantage of answer i over the mean of the other answers to its prompt"),
        ("std", "of A over the batch"),
        ("gradient", "norm of ∇L before clipping"),
        BETA,
    ),
    lines=(
        Line("advantages/std", "std of A", "policy"),
        Line("grad_norm", "gradient", "fit", right=True),
    ),
    y_title="std of A",
    right_title="gradient",
)

RATIO = Panel(
    id="ratio",
    title="Ratios",
    caption="Clipped: beyond 1 ± ε on the side that A favours. The outer bars hold all values beyond.",
    formula=(_RATIO, "L = − mean_t min( ratio_t · A_t, clip(ratio_t, 1 − ε, 1 + ε) · A_t )"),
    symbols=(
        POLICY,
        _OLD,
        _A,
        _EPSILON,
        ("bars", "tokens of the last minibatch of this iteration"),
        ("clipped", "those that no longer have a gradient"),
    ),
    kind="histogram",
    lines=(Line("ratio", "ratio", "policy"), Line("ratio_clipped", "clipped", "rejected")),
    uprights=(
        Upright("", 1.0),
        Upright("1 − ε", 1.0, "clip_range", -1.0),
        Upright("1 + ε", 1.0, "clip_range", 1.0),
    ),
    y_title="% of tokens",
)
CLIP = Panel(
    id="clip",
    title="Clip fraction",
    caption="Near 0 the clip does nothing. High: π_θ hits it early, and later epochs change little.",
    formula=(_RATIO, "clipped: ratio_t > 1 + ε and A_t > 0, or ratio_t < 1 − ε and A_t < 0"),
    symbols=(_OLD, _A, _EPSILON, ("clip fraction", "fraction of the tokens whose gradient is clipped")),
    lines=(Line("policy/clipfrac_avg", "clipped", "rejected"),),
    y_title="fraction",
    knob="clip_range",
)
UPDATE = Panel(
    id="update",
    title="Size of the update",
    caption="The clip does not bound the KL. A spike: one iteration moved π_θ far from its own data.",
    formula=("KL(π_{old} ‖ π_θ) ≈ k_3 = mean_t [ ratio_t − 1 − log ratio_t ]", _RATIO),
    symbols=(
        POLICY,
        _OLD,
        ("mean", "over the minibatches"),
        ("last", "minibatch"),
        ("unit", "nats per token"),
    ),
    lines=(
        Line("policy/kl_old_k3_last", "last", "weight"),
        Line("policy/kl_old_k3", "mean", "policy"),
    ),
    y_title="KL, nats",
    knob="clip_range",
)

STEP_KL = Panel(
    id="step_kl",
    title="Trust region",
    caption="The line search keeps the true KL below δ: it shortens the step if the prediction was too low.",
    formula=("KL(π_{old} ‖ π_θ) ≈ ½ · Δθ^{T} H Δθ", "predicted = share^{2} · δ"),
    symbols=(
        _OLD,
        _DELTA,
        ("H", "Fisher matrix: Hessian of the KL at π_{old}"),
        ("share", "of the full step that the line search took"),
        ("unit", "nats per token"),
    ),
    lines=(
        Line("trpo/max_kl", "δ", "reference", dash="dot"),
        Line("trpo/predicted_kl_old", "predicted", "fit", dash="dash"),
        Line("trpo/kl_old", "true", "policy"),
    ),
    y_title="KL, nats",
)
STEP_GAIN = Panel(
    id="step_gain",
    title="Gain of the step",
    caption="If the true gain falls short of the predicted one, the step is too long for the linear model.",
    formula=("gain = mean_t [ ratio_t · A_t ] − mean_t [ A_t ]", "predicted = share · g^{T} Δθ"),
    symbols=(
        _A,
        ("g", "gradient of the gain at π_{old}"),
        ("Δθ", "the full step, at the edge of the trust region"),
        ("share", "of it that the line search took"),
    ),
    lines=(
        Line("trpo/predicted_gain", "predicted", "fit", dash="dash"),
        Line("trpo/gain", "true", "policy"),
    ),
    y_title="gain",
)
SHARE = Panel(
    id="share",
    title="Share of the step taken",
    caption="1: the full step was accepted. Lower: it was shortened. 0: no try was accepted, π_θ did not change.",
    formula=("share = 0.8^{k}, the first with gain > 0 and KL(π_{old} ‖ π_θ) ≤ δ",),
    symbols=(_OLD, _DELTA),
    lines=(Line("trpo/share", "share", "policy"),),
    y_title="share",
    range=(0.0, 1.05),
)
LINE_SEARCH = Panel(
    id="line_search",
    title="Line search now",
    caption="From the full step leftwards, until the KL is at most δ and the gain is above 0.",
    formula=("share = 1, 0.8, 0.8^{2} …", "taken: the first with gain > 0 and KL(π_{old} ‖ π_θ) ≤ δ"),
    symbols=(_OLD, _DELTA, ("dots", "the tries of this iteration, the last one on the left")),
    kind="xy",
    lines=(
        Line("line_search/kl", "KL", "policy", x="line_search/share", dots="joined"),
        Line("line_search/gain", "gain", "fit", x="line_search/share", dots="joined", right=True),
    ),
    reference="trpo/max_kl",
    x_range=(0.0, 1.05),
    x_title="share of the full step",
    y_title="KL",
    right_title="gain",
)
CG = Panel(
    id="cg",
    title="Conjugate gradient now",
    caption="The residual usually falls, but not at every iteration: it is the error in H's norm that always falls.",
    formula=("H x = g", "residual = ‖ g − H x_k ‖ / ‖ g ‖"),
    symbols=(
        ("g", "gradient of the gain"),
        ("H", "Fisher matrix and damping"),
        ("x_k", "solution after k iterations: the natural gradient"),
    ),
    kind="xy",
    lines=(Line("cg_residuals", "residual", "policy", dots="joined"),),
    x_title="iteration k",
    y_title="residual",
    log=True,
)

_GOAL, _ANSWERS = (REWARD, KL, PLANE, REGRET), (ENTROPY, LENGTH, EFFICIENCY, GRAMMATICAL)
REINFORCE_PANELS: tuple[Panel, ...] = (*_GOAL, ADVANTAGES, *_ANSWERS)
PPO_PANELS: tuple[Panel, ...] = (*_GOAL, RATIO, CLIP, UPDATE, VALUE, *_ANSWERS)
TRPO_PANELS: tuple[Panel, ...] = (*_GOAL, STEP_KL, STEP_GAIN, SHARE, LINE_SEARCH, CG, VALUE, *_ANSWERS)
KEPT = Panel(
    id="kept",
    title="Drawn and kept",
    caption="The gap is what a round can teach. It closes as the answers to a prompt become alike.",
    formula=("kept = mean of max( r(x, y_1), …, r(x, y_n) )", "drawn = mean of r(x, y_i)"),
    symbols=(("y_1, …, y_n", "answers to one prompt, drawn at the beginning of a round"), TRUE_R),
    lines=(
        Line("rejection/kept_scores", "kept", "chosen", ghost=True),
        Line("objective/scores", "drawn", "policy"),
        Line("rejection/round", "round", "reference", right=True, dash="dot"),
    ),
    y_title="score",
    right_title="round",
)
LIKELIHOOD = Panel(
    id="likelihood",
    title="Loss",
    caption="Within a round it falls; a new round has new answers, so it may jump.",
    formula=("L = − mean log π_θ(y|x) of the answers kept",),
    symbols=(POLICY, ("unit", "nats per answer")),
    lines=(Line("loss", "loss", "fit"),),
    y_title="nats",
)
REJECTION_PANELS: tuple[Panel, ...] = (*_GOAL, KEPT, LIKELIHOOD, *_ANSWERS)
POLICY_PANELS: tuple[Panel, ...] = tuple(dict.fromkeys((*REINFORCE_PANELS, *PPO_PANELS, *TRPO_PANELS)))
"""Panels that any of the three may show."""

SCORE = Panel(
    id="score",
    title="Score",
    caption="All that training sees of its success. It cannot tell whether the score can be trusted.",
    formula=("mean of the scores of the answers just drawn",),
    symbols=(("score", "what training maximises: here the only known measure of an answer"),),
    lines=(Line("objective/scores", "score", "fit"),),
)
PROXY_PANELS: tuple[Panel, ...] = (
    SCORE,
    replace(
        KL,
        caption="How far π_θ has moved, estimated from the answers just drawn.",
        lines=KL.lines[:1],
    ),
    RATIO,
    CLIP,
    UPDATE,
    VALUE,
    ENTROPY,
    LENGTH,
)
"""A PPO board without the true reward, and without anything that could reveal it."""
