"""Settings of PPO."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rlhflab.core.knobs import Knob
from rlhflab.core.settings import Setting, knob, setting
from rlhflab.settings.common import (
    GAE_LAMBDA,
    LEARNING_RATE,
    MINIBATCHES,
    Discount,
    KLStrength,
    PolicyGradientSettings,
)

CLIP_RANGE = Knob(
    0.2,
    0.02,
    1.0,
    at_most=10.0,
    label="clip ε",
    help="How far a ratio may move before its gradient is cut off.",
)
EPOCHS = Knob(
    2, 1, 10, at_least=1, at_most=50, whole=True, log=False, label="epochs", help="Passes over each rollout."
)
EPOCHS_IN_CONTROL = replace(EPOCHS, high=40)
VALUE_COEF = Setting(help="Weight of the value loss, usually 0.1–1", at_least=0)
ADAM_EPS = Setting(help="AdamW's ε; a larger one keeps a converged policy from drifting", above=0)


@dataclass(frozen=True, kw_only=True)
class PPOUpdates(PolicyGradientSettings):
    """Settings of PPO's updates, in any task."""

    learning_rate: float = knob(1e-3, LEARNING_RATE)
    clip_range: float = knob(0.2, CLIP_RANGE)
    gae_lambda: float = knob(0.95, GAE_LAMBDA)
    epochs: int = knob(2, EPOCHS)
    minibatches: int = setting(2, MINIBATCHES)
    value_coef: float = setting(0.1, VALUE_COEF)
    entropy_coef: float = setting(
        0.0, "Weight of the entropy bonus; 0 if a KL term already keeps the policy stochastic", at_least=0
    )
    value_clip: float | None = setting(
        None, "Clip range of V: larger changes do not lower its loss; none for no clip", above=0
    )
    whiten_advantages: bool = setting(True, "Scale advantages to mean 0 and standard deviation 1")
    target_kl: float | None = setting(
        None, "Stop an iteration's epochs once KL(π_old‖π_θ) per step (k3) exceeds this", above=0
    )
    kl_target: float | None = setting(
        None, "Adapt β so that KL(π_θ‖π_ref) per answer approaches this many nats", above=0
    )
    kl_horizon: int = setting(10_000, "Time scale of that adaptation, in answers", at_least=1)
    adam_eps: float = setting(1e-8, ADAM_EPS)


@dataclass(frozen=True, kw_only=True)
class PPOSettings(KLStrength, PPOUpdates):
    """Settings of PPO on answers."""


@dataclass(frozen=True, kw_only=True)
class PPOControlSettings(Discount, PPOUpdates):
    """Settings of PPO on control problems."""

    epochs: int = knob(20, EPOCHS_IN_CONTROL)
    max_grad_norm: float = setting(0.5, "Gradients are clipped to this norm", above=0)
    value_coef: float = setting(1.0, VALUE_COEF)
    adam_eps: float = setting(1e-5, ADAM_EPS)
