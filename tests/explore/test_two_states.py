"""The problem of two states: simulation, autograd, the trust region, and what does not depend on how θ is chosen."""

from __future__ import annotations

import pytest
import torch

from rlhflab.explore.two_states import (
    GAMMA,
    PARAMETERS,
    PAY,
    START,
    evaluate,
    logits_of,
    mean_kl,
    surrogate_gain,
    theta_of,
    trpo_step,
)

LOGITS = torch.tensor([[1.5, -1.5], [0.0, 0.0], [-2.0, 3.0], [4.0, -4.0]], dtype=torch.float64)


def test_objective_and_visits_are_those_of_a_power_series() -> None:
    for logits in LOGITS:
        stay = logits.sigmoid()
        transition = torch.stack([torch.stack([stay[0], 1 - stay[0]]), torch.stack([1 - stay[1], stay[1]])])
        here, reward, visits = torch.tensor(START, dtype=torch.float64), 0.0, torch.zeros(2).double()
        for t in range(400):
            reward += (1 - GAMMA) * GAMMA**t * float(here @ (stay * torch.tensor(PAY)))
            visits += (1 - GAMMA) * GAMMA**t * here
            here = here @ transition
        found = evaluate(logits)
        assert float(found.objective) == pytest.approx(reward, abs=1e-12)
        torch.testing.assert_close(found.visits, visits)
    torch.testing.assert_close(
        evaluate(LOGITS).objective, torch.stack([evaluate(z).objective for z in LOGITS])
    )


def test_the_gradient_is_visits_times_p_times_preference() -> None:
    for logits in LOGITS:
        z = logits.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(evaluate(z).objective, z)
        found, stay = evaluate(logits), logits.sigmoid()
        torch.testing.assert_close(gradient, found.visits * stay * (1 - stay) * found.preference)
        new = logits.clone().requires_grad_()
        (of_surrogate,) = torch.autograd.grad(surrogate_gain(logits, new), new)
        torch.testing.assert_close(of_surrogate, gradient)


def test_the_step_lies_on_the_ellipse_and_no_other_point_of_it_gains_more() -> None:
    torch.manual_seed(0)
    for parameters in PARAMETERS:
        theta = theta_of(LOGITS[0], parameters)
        step = trpo_step(theta, 0.01, parameters)
        moved = theta.clone().requires_grad_()
        hessian = torch.autograd.functional.hessian(
            lambda x, p=parameters: mean_kl(LOGITS[0], logits_of(x, p)), moved
        )
        full = step.scale * step.natural
        for x in (full, step.plain):
            assert float(x @ hessian @ x) / 2 == pytest.approx(0.01)
        torch.testing.assert_close(hessian @ step.natural, step.gradient)
        others = torch.randn(200, 2, dtype=torch.float64)
        others *= (0.02 / torch.einsum("ni,ij,nj->n", others, hessian, others)).sqrt().unsqueeze(1)
        assert (others @ step.gradient).max() <= step.gradient @ full + 1e-12
        assert float(step.gradient @ full) == pytest.approx(2 * 0.01 / step.scale)  # g·x = 2δλ


@pytest.mark.parametrize("max_kl", [0.001, 0.05, 0.5])
def test_the_natural_step_is_one_policy_however_it_is_written_and_the_plain_one_is_not(max_kl: float) -> None:
    ends, plain = [], []
    for parameters in PARAMETERS:
        theta = theta_of(LOGITS[0], parameters)
        step = trpo_step(theta, max_kl, parameters)
        ends.append(logits_of(step.theta, parameters))
        plain.append(logits_of(theta + step.plain, parameters))
        torch.testing.assert_close(logits_of(step.natural, parameters), evaluate(LOGITS[0]).preference)
        assert step.trials[-1].accepted and step.trials[-1].kl <= max_kl
        assert float(mean_kl(LOGITS[0], ends[-1])) == pytest.approx(step.trials[-1].kl)
    torch.testing.assert_close(ends[0], ends[1])
    torch.testing.assert_close(ends[0], ends[2])
    assert (plain[0] - plain[1]).abs().max() > 0.01


def test_bad_values_are_named() -> None:
    with pytest.raises(ValueError, match="parameters must be one of separate, stretched, mixed, got 'odd'"):
        theta_of(LOGITS[0], "odd")
    with pytest.raises(ValueError, match="max_kl must be a finite number > 0, got 0"):
        trpo_step(LOGITS[0], 0)
