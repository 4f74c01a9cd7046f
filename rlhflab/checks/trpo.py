"""The exercise of lab 02: write the product of the Fisher matrix with a vector, without the matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlhflab.checks.common import raised, say

# One state, three actions, logits θ with π = (0.5, 0.3, 0.2): H = diag(π) − ππᵀ. By hand, with v = (2, 0, −1):
# π·v = 0.8, so H·v = (0.5·2 − 0.5·0.8, −0.3·0.8, −0.2 − 0.2·0.8).
PROBABILITIES = torch.tensor([0.5, 0.3, 0.2])
VECTOR = torch.tensor([2.0, 0.0, -1.0])
EXPECTED = torch.tensor([0.6, -0.24, -0.36])
_SECOND = torch.tensor([1.0, 1.0, 1.0])  # all logits together: the policy stays, so H·v = 0

_HESSIAN = PROBABILITIES.diag() - torch.outer(PROBABILITIES, PROBABILITIES)

MISTAKES: dict[str, Tensor] = {
    "that is 0, as ∇KL is at π_θ = π_old: differentiate the number ∇KL·v once more": torch.zeros(3),
    "that is H's diagonal times v: sum ∇KL·v to one number before the second derivative": _HESSIAN.diag()
    * VECTOR,
    "that is v: it seems that nothing was differentiated": VECTOR,
    "the sign: H is the Hessian of +KL": -EXPECTED,
    "half of it: the ½ stands in ½·vᵀHv, not in H·v": EXPECTED / 2,
    "twice of it: H·v is one second derivative, without a factor": 2 * EXPECTED,
    "H was applied twice": _HESSIAN @ EXPECTED,
}


def check_fisher_product(function: Callable[..., Any]) -> bool:
    """Try a learner's Fisher-vector product, print what is found, and return whether it is right.

    Args:
        function: takes (kl, theta, vector): KL(π_old‖π_θ) at π_θ = π_old, a number with a graph; the parameters [n] and
            a vector [n]. Returns H·v, [n].
    """
    praise = "Right: H·v without H, as often as conjugate gradient asks."
    return say(_verdict(function), praise)


def _verdict(function: Callable[..., Any]) -> str:
    theta = PROBABILITIES.log().requires_grad_()
    kl = (PROBABILITIES * (PROBABILITIES.log() - theta.log_softmax(-1))).sum()
    try:
        product = function(kl, theta, VECTOR.clone())
    except Exception as error:  # the learner's own code: any error is a finding
        return _explained(error)
    if isinstance(product, tuple) and len(product) == 1:
        return "it returned a tuple: torch.autograd.grad gives one gradient a parameter, take the first"
    if product is None:
        return "not written yet: return H·v, one number a parameter"
    if not isinstance(product, Tensor):
        return f"it returned a {type(product).__name__}; a tensor with one number a parameter is wanted"
    if product.shape == ():
        return "it returned one number: vᵀHv perhaps, or ∇KL·v; its gradient by θ is wanted"
    if product.shape != EXPECTED.shape:
        return f"it returned the shape {tuple(product.shape)} for 3 parameters; (3,) is wanted"
    product = product.float()
    if not torch.allclose(product, EXPECTED, atol=1e-4):
        return _named(product)
    try:
        again = function(kl, theta, _SECOND.clone()).float()
    except Exception as error:
        return f"once it is right, but conjugate gradient asks ten times: {_explained(error)}"
    if not torch.allclose(again, torch.zeros(3), atol=1e-4):
        return f"once it is right; for v = (1, 1, 1), which moves no policy, H·v is 0, not {again.tolist()}"
    return ""


def _explained(error: Exception) -> str:
    text = str(error)
    if "does not require grad" in text:
        return "∇KL has no graph to be differentiated again: create_graph=True in the first derivative"
    if "second time" in text:
        return "the graph is gone after its first use: retain_graph=True in the second derivative"
    return raised(error)


def _named(product: Tensor) -> str:
    for words, wrong in MISTAKES.items():
        if torch.allclose(product, wrong, atol=1e-4):
            return words
    found, wanted = ([f"{x:.4f}" for x in row.tolist()] for row in (product, EXPECTED))
    return f"for π = (0.5, 0.3, 0.2) and v = (2, 0, −1) it gives {found}; by hand it is {wanted}"
