"""The panels of REINFORCE, PPO and TRPO boards on control problems: those of language reworded, and the episodes."""

from __future__ import annotations

from dataclasses import replace

from rlhflab.plots import panels_policy as policy
from rlhflab.plots.panel import Line, Panel
from rlhflab.plots.panels_dpo import POLICY

RETURN = Panel(
    id="return",
    title="Return of an episode",
    caption="Should rise to the dotted line, if there is one. Does it stay there once it has arrived?",
    formula=("R = Σ_t r_t, mean over episodes",),
    symbols=(
        ("r_t", "reward of time step t, not discounted"),
        ("evaluation", "fresh episodes of π_θ, from the same starts each time, ± its standard error"),
        ("this iteration", "episodes that ended while its rollout was collected"),
        ("solved", "mean return at which gymnasium calls the environment solved"),
        POLICY,
    ),
    lines=(
        Line("episode/return", "this iteration", "fit"),
        Line("estimated/return", "evaluation", "policy", spread="estimated/return_se", ghost=True),
        Line("estimated/solved", "solved", "truth", dash="dot"),
    ),
    y_title="return",
)
LENGTH = Panel(
    id="episode_length",
    title="Length of an episode",
    caption="If every step earns 1, this is the return; if every step costs, it should fall.",
    formula=("length = time steps until the episode ends",),
    symbols=(
        ("ends", "in a state without a future, or at the environment's time limit"),
        ("evaluation", "fresh episodes of π_θ"),
        ("this iteration", "episodes that ended while its rollout was collected"),
    ),
    lines=(
        Line("episode/length", "this iteration", "fit"),
        Line("estimated/length", "evaluation", "policy", spread="estimated/length_se"),
    ),
    y_title="time steps",
)
ADVANTAGES = Panel(
    id="advantages",
    title="Noise of the gradient",
    caption="The baseline removes what all episodes have in common. The rest grows with the length of episodes.",
    formula=("A_{i,t} = G_{i,t} − mean_{j≠i} G_{j,t}", "G_t = Σ_{k≥t} γ^{k−t} r_k"),
    symbols=(
        ("A_{i,t}", "advantage: return to go of episode i minus the mean of the others still running at t"),
        ("γ", "discount"),
        ("std", "of A over the rollout"),
        ("gradient", "norm of ∇L before clipping"),
    ),
    lines=policy.ADVANTAGES.lines,
    y_title="std of A",
    right_title="gradient",
)
ENTROPY = Panel(
    id="entropy",
    title="Entropy",
    caption="Falls as π_θ becomes more certain. For continuous actions it may go below 0.",
    formula=("H = mean_t E_{a ~ π_θ} [ − log π_θ(a|s_t) ]",),
    symbols=(POLICY, ("s_t", "the state at time step t"), ("unit", "nats per time step")),
    lines=policy.ENTROPY.lines,
    y_title=policy.ENTROPY.y_title,
)
VALUE = replace(
    policy.VALUE,
    caption="Explained variance: 1 is a perfect V, 0 a constant; far below 0 if all returns are nearly equal.",
    right_range=(-1.05, 1.05),  # then it may be −100, which means nothing
)

_WORDS = (
    ("the policy that drew the answers of this iteration", "the policy that acted in this iteration"),
    ("KL term included, ", ""),
    ("tokens", "time steps"),
    ("token", "time step"),
)


def in_control(panel: Panel) -> Panel:
    """The panel reworded for control: time steps instead of tokens."""
    return replace(
        panel,
        caption=_worded(panel.caption),
        symbols=tuple((symbol, _worded(meaning)) for symbol, meaning in panel.symbols),
        y_title=_worded(panel.y_title),
    )


def _worded(text: str) -> str:
    for language, control in _WORDS:
        text = text.replace(language, control)
    return text


_EPISODES = (RETURN, LENGTH)
_PPO = (policy.RATIO, policy.CLIP, policy.UPDATE, VALUE)
_TRPO = (policy.STEP_KL, policy.STEP_GAIN, policy.SHARE, policy.LINE_SEARCH, policy.CG, VALUE)
REINFORCE_PANELS: tuple[Panel, ...] = (*_EPISODES, ADVANTAGES, ENTROPY)
PPO_PANELS: tuple[Panel, ...] = (*_EPISODES, *map(in_control, _PPO), ENTROPY)
TRPO_PANELS: tuple[Panel, ...] = (*_EPISODES, *map(in_control, _TRPO), ENTROPY)
