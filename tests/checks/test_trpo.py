"""The check of the Fisher-vector product accepts right answers and names typical wrong ones."""

import pytest
import torch
from torch.autograd import grad

from rlhflab.checks import trpo
from rlhflab.checks.trpo import check_fisher_product
from rlhflab.objectives.trust_region import FisherVectorProduct


def right(kl, theta, vector):
    (gradient,) = grad(kl, theta, create_graph=True)
    return grad(gradient @ vector, theta, retain_graph=True)[0]


def test_right_answers_pass(capsys):
    assert check_fisher_product(right)
    assert check_fisher_product(
        lambda kl, theta, v: grad(
            grad(kl, theta, create_graph=True)[0], theta, grad_outputs=v, retain_graph=True
        )[0]
    )
    assert check_fisher_product(lambda kl, theta, v: FisherVectorProduct(kl, [theta], damping=0.0)(v))
    assert check_fisher_product(lambda kl, theta, v: right(kl, theta, v).double())
    assert capsys.readouterr().out.count("✓") == 4


def test_the_case_by_hand_is_diag_minus_outer():
    p = trpo.PROBABILITIES
    torch.testing.assert_close((p.diag() - torch.outer(p, p)) @ trpo.VECTOR, trpo.EXPECTED)


def first(kl, theta):
    return grad(kl, theta, create_graph=True)[0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda kl, t, v: grad(kl, t, retain_graph=True)[0], "that is 0, as ∇KL is"),
        (lambda kl, t, v: grad(kl, t, retain_graph=True)[0] * v, "that is 0, as ∇KL is"),
        (lambda kl, t, v: grad(first(kl, t).sum(), t, retain_graph=True)[0], "that is 0, as ∇KL is"),
        (lambda kl, t, v: grad(grad(kl, t)[0] @ v, t)[0], "create_graph=True"),
        (lambda kl, t, v: grad(first(kl, t) @ v, t)[0], "retain_graph=True"),
        (lambda kl, t, v: grad(first(kl, t) @ v, t, retain_graph=True), "returned a tuple"),
        (lambda kl, t, v: first(kl, t) @ v, "one number"),
        (lambda kl, t, v: -right(kl, t, v), "the sign"),
        (lambda kl, t, v: right(kl, t, v) / 2, "half of it"),
        (lambda kl, t, v: right(kl, t, right(kl, t, v)), "H was applied twice"),
        (lambda kl, t, v: v, "nothing was differentiated"),
        (lambda kl, t, v: right(kl, t, v).unsqueeze(0), "shape (1, 3)"),
        (lambda kl, t, v: right(kl, t, v) + 0.1 * v, "by hand it is"),
        (lambda kl, t, v: right(kl, t, v) if v[1] == 0 else v, "which moves no policy"),
        (lambda kl, t, v: None, "not written yet"),
        (lambda kl, t, v: 0.3, "returned a float"),
        (lambda kl, t, v: v @ torch.ones(2), "it raised RuntimeError"),
    ],
)
def test_wrong_answers_are_named(wrong, words, capsys):
    assert not check_fisher_product(wrong)
    out = capsys.readouterr().out
    assert out.startswith("✗") and words in out
