"""Knobs and loop settings that several trainings have in common, each declared once."""

from __future__ import annotations

from dataclasses import dataclass

from rlhflab.core.knobs import Knob
from rlhflab.core.settings import Setting, Settings, knob, setting
from rlhflab.seeds import require_seed

SCHEDULES = ("constant", "linear", "cosine")

BETA = Knob(
    1.0, 0.05, 10.0, label="β",
    help="Price of leaving the reference: small β trusts the reward or the preferences, large β the reference.",
)  # fmt: skip
LEARNING_RATE = Knob(1e-3, 1e-5, 1e-2, label="learning rate", help="Step size of AdamW at its peak.")
GAE_LAMBDA = Knob(
    0.95, 0.0, 1.0, at_least=0.0, at_most=1.0, log=False, label="GAE λ",
    help="0 trusts the value function, 1 the observed rewards: bias against variance.",
)  # fmt: skip
GAMMA = Knob(
    0.99, 0.5, 1.0, at_least=0.0, at_most=1.0, log=False, label="γ",
    help="Discount of a reward one step later: how far the policy looks ahead.",
)  # fmt: skip
PAIRS = Knob(
    2000, 50, 20_000, at_least=1, whole=True, label="pairs",
    help="How many of the pool's rankings are used for training: the annotation budget.",
)  # fmt: skip
LABEL_NOISE = Knob(
    0.0, 0.0, 0.5, at_least=0.0, at_most=0.5, log=False, label="label noise",
    help="Fraction of the labels that contradict the better answer.",
)  # fmt: skip

STEPS = Setting(help="Updates to make", at_least=1)
BATCH_SIZE = Setting(help="Examples per update", at_least=1)
MINIBATCHES = Setting(help="Minibatches per epoch over a rollout", at_least=1)
WARMUP = Setting(help="Updates over which the step size rises", at_least=0)
SCHEDULE = Setting(help="How the step size falls afterwards", one_of=SCHEDULES)
SEED = Setting(help="The same seed gives the same run", at_least=0)
EVALUATE_EVERY = Setting(
    help="Updates between evaluations; the first and the last update are always evaluated", at_least=1
)

REAL_RATE = "real models: 1e-5, or 0.2 / model width for adapters"


def tenth(steps: int, most: int) -> int:
    """A tenth of the updates, at most `most`."""
    return min(most, steps // 10)


@dataclass(frozen=True, kw_only=True)
class Loop(Settings):
    """Settings of every training loop."""

    steps: int = setting(600, STEPS)
    schedule: str = setting("linear", SCHEDULE)
    warmup: int = setting(0, WARMUP)
    evaluate_every: int = setting(25, EVALUATE_EVERY)
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm", above=0)
    seed: int = setting(0, SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class KLStrength(Settings):
    """β."""

    beta: float = knob(1.0, BETA, real=0.1)


@dataclass(frozen=True, kw_only=True)
class Discount(Settings):
    """γ, in control."""

    gamma: float = knob(0.99, GAMMA)


@dataclass(frozen=True, kw_only=True)
class PolicyGradientSettings(Loop):
    """Settings that REINFORCE, TRPO and PPO have in common."""

    steps: int = setting(300, STEPS)
    evaluate_every: int = setting(10, EVALUATE_EVERY)
