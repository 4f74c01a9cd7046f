"""Settings of TRPO."""

from __future__ import annotations

from dataclasses import dataclass

from rlhflab.core.knobs import Knob
from rlhflab.core.settings import Setting, knob, setting
from rlhflab.settings.common import GAE_LAMBDA, MINIBATCHES, Discount, KLStrength, PolicyGradientSettings

MAX_KL = Knob(
    0.01, 1e-4, 1.0, label="max KL δ",
    help="Radius of the trust region: the most KL(π_old‖π_θ) per step, in nats per token or time step.",
)  # fmt: skip
FISHER_SHARE = Setting(help="Fraction of a rollout's rows used for the Fisher matrix", above=0, at_most=1)
VALUE_EPOCHS = Setting(help="Passes of the value function over each rollout", at_least=0)


@dataclass(frozen=True, kw_only=True)
class TRPOUpdates(PolicyGradientSettings):
    """Settings of TRPO's updates, in any task; `schedule` acts on the radius √δ.

    The preconditioner of conjugate gradient is a running estimate of the Fisher matrix's diagonal: ten products then
    also find directions that hardly move π; without it some runs stay on a plateau for a long time.
    """

    max_kl: float = knob(0.01, MAX_KL)
    gae_lambda: float = knob(0.95, GAE_LAMBDA)
    cg_iterations: int = setting(10, "Fisher-vector products per step, usually 5–20", at_least=1)
    damping: float = setting(1e-3, "Added to the Fisher matrix's diagonal, usually 1e-5 to 0.1", at_least=0)
    preconditioned: bool = setting(True, "Precondition conjugate gradient by the Fisher matrix's diagonal")
    fisher_share: float = setting(0.5, FISHER_SHARE)
    line_search: bool = setting(True, "Turn off only to see what it prevents: every full step is then taken")
    line_search_tries: int = setting(10, "Fractions 1, 0.8, 0.8², … of the step to try", at_least=1)
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
