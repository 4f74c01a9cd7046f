"""What TRPO reads."""

from __future__ import annotations

from dataclasses import dataclass

from rlhflab.core.knobs import Knob
from rlhflab.core.settings import Setting, knob, setting
from rlhflab.settings.common import GAE_LAMBDA, MINIBATCHES, Discount, KLStrength, PolicyGradientSettings

MAX_KL = Knob(
    0.01, 1e-4, 1.0, label="max KL δ",
    help="Radius of the trust region: KL(π_old‖π_θ) a step may cost, in nats per token or time step.",
)  # fmt: skip
FISHER_SHARE = Setting(
    help="Share of a rollout's rows that the Fisher matrix is taken on", above=0, at_most=1
)
VALUE_EPOCHS = Setting(help="Passes of the value function over each rollout", at_least=0)


@dataclass(frozen=True, kw_only=True)
class TRPOUpdates(PolicyGradientSettings):
    """Settings of TRPO's updates, in any task; `schedule` acts on the radius √δ.

    Preconditioned, conjugate gradient works with a running guess of the Fisher matrix's diagonal: its ten products then
    also find directions that move π little; without it some runs stay on a plateau for long.
    """

    max_kl: float = knob(0.01, MAX_KL)
    gae_lambda: float = knob(0.95, GAE_LAMBDA)
    cg_iterations: int = setting(10, "Fisher-vector products a step, usually 5–20", at_least=1)
    damping: float = setting(1e-3, "Added to the Fisher matrix's diagonal, usually 1e-5 to 0.1", at_least=0)
    preconditioned: bool = setting(True, "Precondition conjugate gradient by the Fisher matrix's diagonal")
    fisher_share: float = setting(0.5, FISHER_SHARE)
    line_search: bool = setting(True, "Off only to see what it prevents: every full step is then taken")
    line_search_tries: int = setting(10, "Shares 1, 0.8, 0.8², … of the step that are tried", at_least=1)
    value_epochs: int = setting(4, VALUE_EPOCHS)
    value_learning_rate: float = setting(2e-3, "AdamW's step size for the value function", above=0)
    minibatches: int = setting(4, MINIBATCHES)


@dataclass(frozen=True, kw_only=True)
class TRPOSettings(KLStrength, TRPOUpdates):
    """Settings of TRPO on answers."""


@dataclass(frozen=True, kw_only=True)
class TRPOControlSettings(Discount, TRPOUpdates):
    """Settings of TRPO on control problems."""

    max_grad_norm: float = setting(0.5, "Gradients are clipped to this norm", above=0)
    fisher_share: float = setting(1.0, FISHER_SHARE)
    value_epochs: int = setting(20, VALUE_EPOCHS)
    minibatches: int = setting(2, MINIBATCHES)
