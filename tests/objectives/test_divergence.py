"""Divergences: exact ones against torch.distributions, estimators against the exact ones."""

import pytest
import torch

from rlhflab.objectives.divergence import categorical_kl, kl_from_logps, kl_k1, kl_k2, kl_k3


@pytest.fixture
def two():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 5, 40, generator=generator, dtype=torch.float64).log_softmax(-1)


def test_exact_kl_agrees_with_torch_distributions_in_argument_order(two):
    p, q = two
    peer = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=p), torch.distributions.Categorical(logits=q)
    )
    torch.testing.assert_close(kl_from_logps(p, q), peer)
    torch.testing.assert_close(categorical_kl(p + 3, q - 7), peer)
    assert not torch.allclose(kl_from_logps(q, p), peer)


def test_zero_probability_costs_nothing():
    p = torch.tensor([0.0, -torch.inf])
    assert kl_from_logps(p, torch.tensor([0.5, 0.5]).log()).item() == pytest.approx(0.6931472)


def test_k1_and_k3_are_unbiased_and_k2_and_k3_never_negative(two):
    p, q = two[0][0], two[1][0]
    exact = kl_from_logps(p, q)
    weights = p.exp()  # the expectation over samples of p, taken exactly
    torch.testing.assert_close((weights * kl_k1(p, q)).sum(), exact)
    torch.testing.assert_close((weights * kl_k3(p, q)).sum(), exact)
    assert (kl_k2(p, q) >= 0).all() and (kl_k3(p, q) >= 0).all() and (kl_k1(p, q) < 0).any()
    near = (p + 0.05 * (q - p)).log_softmax(0)
    spread = [(weights * (k(p, near) - kl_from_logps(p, near)).square()).sum() for k in (kl_k1, kl_k3)]
    assert spread[1] < spread[0] / 10


def test_the_estimators_by_hand():
    p, q = torch.tensor([0.5, 0.25]).log(), torch.tensor([0.25, 0.5]).log()
    log2 = 0.6931472
    assert kl_k1(p, q).tolist() == pytest.approx([log2, -log2])
    assert kl_k2(p, q).tolist() == pytest.approx([log2**2 / 2] * 2)
    assert kl_k3(p, q).tolist() == pytest.approx([0.5 - 1 + log2, 2 - 1 - log2])
