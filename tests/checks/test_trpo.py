"""The check of the Fisher-vector product accepts right answers and names typical wrong ones."""

import pytest
import torch
from torch.autograd import grad

from rlhflab.checks.trpo import EXERCISE, cases, check_fisher_product
from rlhflab.objectives.trust_region import FisherVectorProduct


def right(kl, theta, vector):
    (gradient,) = grad(kl, theta, create_graph=True)
    return grad(gradient @ vector, theta, retain_graph=True)[0]


def by_backward(kl, theta, vector):
    theta.grad = None
    kl.backward(create_graph=True, inputs=[theta])
    slope, theta.grad = theta.grad @ vector, None
    slope.backward(retain_graph=True, inputs=[theta])
    return theta.grad.double()


def row_by_row(kl, theta, vector):
    (gradient,) = grad(kl, theta, create_graph=True)
    rows = torch.stack([grad(slope, theta, retain_graph=True)[0] for slope in gradient])
    return torch.einsum("ij,j->i", rows, vector)


def with_grad_outputs(kl, theta, v):
    return grad(grad(kl, theta, create_graph=True), theta, grad_outputs=(v,), retain_graph=True)[0]


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize(
    "answer",
    [
        right,
        with_grad_outputs,
        lambda kl, theta, v: FisherVectorProduct(kl, [theta], damping=0.0)(v),
        lambda kl, theta, v: right(kl, theta, v.mul_(2)).div_(2),
        by_backward,
        row_by_row,
    ],
)
def test_right_answers_pass(answer, capsys):
    assert check_fisher_product(answer) and check_fisher_product(answer)
    assert capsys.readouterr().out.count("✓") == 2


def test_the_case_by_hand_is_diag_minus_outer():
    p = cases()[0].args[1].detach().softmax(0)
    assert ((p.diag() - torch.outer(p, p)) @ torch.tensor([2.0, 0.0, -1.0])).tolist() == pytest.approx(
        [0.6, -0.24, -0.36]
    )
    assert EXERCISE.values(EXERCISE.right)[0].tolist() == pytest.approx([0.6, -0.24, -0.36])


def first(kl, theta):
    return grad(kl, theta, create_graph=True)[0]


def of_a_softmax(kl, theta, v):
    """Right where θ are the logits, whatever `kl` is."""
    p = theta.softmax(0)
    return p * v - p * (p @ v)


def added_up(kl, theta, v):
    """θ's gradient is not emptied before it is used once more."""
    (gradient,) = grad(kl, theta, create_graph=True)
    (gradient @ v).backward(retain_graph=True, inputs=[theta])
    return theta.grad.clone()


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
        (of_a_softmax, "two states, rlhflab.checks.trpo.cases()[2] it gives"),
        (added_up, "asked again"),
        (lambda kl, t, v: grad(first(kl, t).sum(), t, retain_graph=True)[0] * v, "the sum of H's rows"),
        (lambda kl, t, v: right(kl, t, v) + v, "the damping is added later"),
        (lambda kl, t, v: 2 * right(kl, t, v), "twice as much"),
        (lambda kl, t, v: None, "not written yet"),
        (lambda kl, t, v: 0.3, "returned a float"),
        (lambda kl, t, v: v @ torch.ones(2), "it raised RuntimeError"),
    ],
)  # fmt: skip
def test_wrong_answers_are_named(wrong, words, capsys):
    assert not check_fisher_product(wrong)
    out = capsys.readouterr().out
    assert out.startswith("✗") and words in out
