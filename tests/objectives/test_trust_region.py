"""Conjugate gradient and Fisher-vector products against dense linear algebra; the step against its bound."""

import pytest
import torch
from torch import nn

from rlhflab.objectives.divergence import categorical_kl
from rlhflab.objectives.trust_region import (
    FisherVectorProduct,
    GradientPreconditioner,
    backtrack,
    conjugate_gradient,
    flatten,
    step_scale,
)


def matrix(n=12, seed=0):
    square = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return square @ square.T + 0.1 * torch.eye(n, dtype=torch.float64)


def test_conjugate_gradient_solves_as_dense_linear_algebra_does():
    H = matrix()
    b = torch.randn(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = conjugate_gradient(lambda v: H @ v, b, iterations=60, tolerance=1e-12)
    assert torch.allclose(found.x, torch.linalg.solve(H, b), atol=1e-8)
    true_residual = float((b - H @ found.x).norm() / b.norm())
    assert found.residuals[0] == 1 and found.residuals[-1] < 1e-11 and true_residual < 1e-10


def test_recorded_residuals_are_the_true_ones():
    H = matrix()
    b = torch.ones(12, dtype=torch.float64)
    for iterations in (1, 3, 6):
        found = conjugate_gradient(lambda v: H @ v, b, iterations=iterations, tolerance=0.0)
        assert len(found.residuals) == iterations + 1
        assert found.residuals[-1] == pytest.approx(float((b - H @ found.x).norm() / b.norm()), rel=1e-9)


def test_preconditioning_leaves_the_solution_and_spares_products():
    H = torch.diag(torch.logspace(-3, 1, 12, dtype=torch.float64)) + 1e-4 * matrix()
    b = torch.randn(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    solution = torch.linalg.solve(H, b)
    found = conjugate_gradient(lambda v: H @ v, b, 60, tolerance=1e-12, preconditioner=H.diagonal())
    assert torch.allclose(found.x, solution, rtol=1e-8)
    true_residual = float((b - H @ found.x).norm() / b.norm())
    assert found.residuals[-1] == pytest.approx(true_residual, abs=1e-11)

    def error(preconditioner):
        gap = conjugate_gradient(lambda v: H @ v, b, 4, preconditioner=preconditioner).x - solution
        return float(gap @ H @ gap)

    assert error(H.diagonal()) < 1e-2 * error(None)
    same = conjugate_gradient(lambda v: H @ v, b, 4, preconditioner=torch.full_like(b, 3.0))
    assert torch.allclose(same.x, conjugate_gradient(lambda v: H @ v, b, 4).x, rtol=1e-9)


def test_squared_gradients_tell_the_diagonal():
    noise = torch.Generator().manual_seed(0)
    spread = torch.logspace(-1, 1, 5)
    guess = GradientPreconditioner(decay=0.99, power=1.0, floor=0.0)
    for _ in range(2000):
        diagonal = guess(spread.sqrt() * torch.randn(5, generator=noise))
    assert diagonal == pytest.approx(spread / spread.mean(), rel=0.4)  # its effective sample is 200
    none = GradientPreconditioner()(torch.zeros(3))
    assert (none == none[0]).all() and none[0] > 0


def test_the_preconditioner_by_hand():
    guess = GradientPreconditioner()
    # a mean of (1, 9) is 5: the first is 0.9·5 + 0.1·(1, 9) = (4.6, 5.4), the second 0.9·that + 0.1·(36, 0)
    for gradient, squares in (([1.0, -3.0], [4.6, 5.4]), ([6.0, 0.0], [7.74, 4.86])):
        diagonal = guess(torch.tensor(gradient))
        assert guess.squares.tolist() == pytest.approx(squares)
        mean = sum(squares) / 2
        assert diagonal.tolist() == pytest.approx([((s / mean + 0.01) / 1.01) ** 0.75 for s in squares])


def test_conjugate_gradient_stops_at_its_tolerance():
    H, b = matrix(), torch.ones(12, dtype=torch.float64)
    whole = conjugate_gradient(lambda v: H @ v, b, iterations=60, tolerance=0.0).residuals
    found = conjugate_gradient(lambda v: H @ v, b, iterations=60, tolerance=0.1).residuals
    assert 2 < len(found) < 12 and found == whole[: len(found)]
    assert found[-1] < 0.1 <= min(found[:-1])
    exact = conjugate_gradient(lambda v: 2 * v, torch.tensor([3.0, 4.0]))  # by default too
    assert exact.x.tolist() == [1.5, 2.0] and exact.residuals == (1.0, 0.0)
    assert len(conjugate_gradient(lambda v: H @ v, b).residuals) == 1 + 10


def test_conjugate_gradient_stops_where_the_matrix_is_not_positive_definite():
    b = torch.tensor([3.0, 1.0])
    for product in (lambda v: -v, torch.zeros_like, lambda v: v * torch.nan):
        found = conjugate_gradient(product, b)
        assert found.x.tolist() == [0, 0] and found.residuals == (1.0,)
    bent = torch.tensor([1.0, -2.0])  # curvature 7 along b, then negative
    found = conjugate_gradient(lambda v: bent * v, b)
    assert len(found.residuals) == 2 and found.x.tolist() == pytest.approx([30 / 7, 10 / 7])


def test_no_gradient_no_step():
    found = conjugate_gradient(lambda v: v, torch.zeros(3))
    assert found.residuals == (0.0,) and (found.x == 0).all()
    assert step_scale(found.x, found.x, 0.01) == 0


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def test_fisher_vector_products_are_those_of_the_dense_hessian_of_the_kl():
    net = network()
    states = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameters = list(net.parameters())
    old = net(states).detach()
    product = FisherVectorProduct(categorical_kl(old, net(states)).mean(), parameters, damping=0.0)

    def kl_at(flat):
        parts = flat.split([p.numel() for p in parameters])
        values = {n: x.view_as(p) for (n, p), x in zip(net.named_parameters(), parts, strict=True)}
        return categorical_kl(old, torch.func.functional_call(net, values, (states,))).mean()

    hessian = torch.autograd.functional.hessian(kl_at, flatten(parameters).detach())
    columns = torch.stack([product(row) for row in torch.eye(len(hessian), dtype=torch.float64)])
    assert torch.allclose(columns, hessian, atol=1e-10)
    damped = FisherVectorProduct(categorical_kl(old, net(states)).mean(), parameters, damping=0.3)
    vector = torch.arange(len(hessian), dtype=torch.float64)
    assert torch.allclose(damped(vector), hessian @ vector + 0.3 * vector)


def test_the_fisher_matrix_is_also_the_mean_outer_product_of_scores():
    """H = E_a[∇log π · ∇log πᵀ] (identity), by enumeration of the three actions."""
    net = network()
    states = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    parameters = list(net.parameters())
    product = FisherVectorProduct(categorical_kl(net(states).detach(), net(states)).mean(), parameters, 0.0)
    fisher = 0
    for state in states:
        for action in range(3):
            logp = net(state).log_softmax(-1)[action]
            score = flatten(torch.autograd.grad(logp, parameters)).detach()
            fisher = fisher + logp.detach().exp() * torch.outer(score, score) / len(states)
    columns = torch.stack([product(row) for row in torch.eye(len(fisher), dtype=torch.float64)])
    assert torch.allclose(columns, fisher, atol=1e-10)


def test_parameters_outside_the_policy_get_zeros():
    net, other = network(), nn.Linear(2, 1).double()
    parameters = [*net.parameters(), *other.parameters()]
    states = torch.randn(4, 3, dtype=torch.float64)
    product = FisherVectorProduct(categorical_kl(net(states).detach(), net(states)).mean(), parameters, 0.0)
    assert (product(torch.ones(sum(p.numel() for p in parameters), dtype=torch.float64))[-3:] == 0).all()


def test_the_scaled_step_lies_on_the_border_of_the_quadratic_region():
    H, g = matrix(), torch.ones(12, dtype=torch.float64)
    x = torch.linalg.solve(H, g)
    step = step_scale(x, H @ x, 0.02) * x
    assert 0.5 * float(step @ H @ step) == pytest.approx(0.02)
    # and no other step of that size gains more
    others = torch.randn(200, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    others *= (0.04 / ((others @ H) * others).sum(1)).sqrt().unsqueeze(1)
    assert float((others @ g).max()) <= float(step @ g)


def test_the_line_search_stops_at_the_first_share_with_gain_and_small_kl():
    tried = []

    def attempt(share):
        tried.append(share)
        return share * (1 - 1.5 * share), 0.08 * share**2

    trials = backtrack(attempt, max_kl=0.01, factor=0.5)
    assert tried == [1.0, 0.5, 0.25]
    assert [trial.accepted for trial in trials] == [False, False, True]
    assert all(not trial.accepted for trial in backtrack(lambda share: (-1.0, 0.0), 0.01, tries=4))
    for gain, kl, accepted in ((0.0, 0.0, False), (1e-9, 0.01, True), (1.0, 0.0101, False)):
        assert backtrack(lambda share, at=(gain, kl): at, 0.01, tries=1)[0].accepted == accepted
    shares = [trial.share for trial in backtrack(lambda share: (0.0, 0.0), 0.01)]
    assert shares == pytest.approx([0.8**number for number in range(10)])
    assert not backtrack(lambda share: (1.0, float("nan")), 0.01, tries=2)[-1].accepted


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="max_kl must be a finite number > 0, got 0"):
        step_scale(torch.ones(2), torch.ones(2), 0)
    with pytest.raises(ValueError, match=r"factor must be in \(0, 1\), got 1"):
        backtrack(lambda share: (0.0, 0.0), 0.1, factor=1)
