"""The panels of a race board: all contestants on one plane, and their regrets."""

from __future__ import annotations

from rlhflab.plots import panels_dpo
from rlhflab.plots.panel import Line, Panel
from rlhflab.plots.panels_dpo import AT_LEAST, BETA, POLICY, REF, TRUE_R

# (name in the record, words, colour, whether it saw the pairs only)
RUNNERS = (
    ("dpo", "DPO", "chosen", True),
    ("ppo_learned", "PPO, learned r", "fit", True),
    ("preferred", "preferred FT", "brown", True),
    ("ppo", "PPO, true r", "policy", False),
    ("trpo", "TRPO, true r", "weight", False),
    ("reinforce", "REINFORCE, true r", "rejected", False),
)
_DASHED = ("dashed paths", "trained on the true reward, which no real training sees")

PLANE = Panel(
    id="race-plane",
    title="Reward against KL",
    caption="No policy passes the frontier. Solid: trained on the pairs only; dashed: on the true reward.",
    formula=("max_π E[r] − β · KL(π ‖ π_{ref})", "π*(y|x) = π_{ref}(y|x) · e^{r(x, y)/β} / Z(x)"),
    symbols=(
        ("frontier", "π* for every β: the best reward at each KL"),
        ("π*", "the best policy for the β in force"),
        ("best-of-n", "the answer with the best score among n = 1, 2, 4, 8, 16 of π_{ref}"),
        _DASHED,
        panels_dpo.ERRORS,
        POLICY,
        REF,
        TRUE_R,
        BETA,
    ),
    kind="xy",
    lines=(
        Line("frontier/reward", "frontier", "truth", spread="frontier/reward_se", x="frontier/kl"),
        *(
            Line(
                f"{name}/reward", words, colour, spread=f"{name}/reward_se", x=f"{name}/kl",
                x_spread=f"{name}/kl_se", dash="solid" if pairs else "dash",
            )
            for name, words, colour, pairs in RUNNERS
        ),
        Line(
            "best_of_n/reward", "best-of-n, learned r", "reference", spread="best_of_n/reward_se",
            x="best_of_n/kl", dots="joined",
        ),
        Line("optimum/reward", "π*", "truth", x="optimum/kl", dots="joined"),
    ),
    x_title="KL(π ‖ π<sub>ref</sub>)",
    y_title="E[r]",
    big=True,
)  # fmt: skip
REGRET = Panel(
    id="race-regret",
    title="Regret",
    caption="At each point all have done the same fraction of their training. The height is the gap to π*.",
    formula=("regret = J* − J = β · KL(π_θ ‖ π*)", "J = E[r] − β · KL(π_θ ‖ π_{ref})"),
    symbols=(("J*", "the largest possible J, reached by π*"), AT_LEAST, _DASHED, POLICY, REF, TRUE_R, BETA),
    kind="xy",
    lines=tuple(
        Line(
            f"{name}/regret", words, colour, spread=f"{name}/regret_se", x=f"{name}/lap",
            dash="solid" if pairs else "dash",
        )
        for name, words, colour, pairs in RUNNERS
    )
    + tuple(
        Line(f"{name}/regret_at_least", f"{words}, at least", colour, x=f"{name}/lap", dash="dot")
        for name, words, colour, _ in RUNNERS
    ),
    x_title="fraction of the training",
    y_title="J* − J",
    x_range=(0.0, 1.0),
)  # fmt: skip
FITTING = Panel(
    id="race-fitting",
    title="The reward model",
    caption="Fitted before the start, to the same pairs. A coin flip scores ln 2 ≈ 0.69.",
    formula=("L = − E log σ( r_φ(x, y_w) − r_φ(x, y_l) )",),
    symbols=(("r_φ", "the reward model"), ("y_w, y_l", "chosen and rejected answer of a pair")),
    lines=(Line("reward_model/loss", "loss", "fit"),),
    y_title="nats",
)

RACE_PANELS: tuple[Panel, ...] = (PLANE, REGRET, FITTING)
