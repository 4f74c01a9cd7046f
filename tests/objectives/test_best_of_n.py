"""Best-of-n against simulation, its limits and the law of its KL."""

import pytest
import torch

from rlhflab.objectives.best_of_n import best_of_n_kl_bound, best_of_n_logps
from rlhflab.objectives.divergence import kl_from_logps


def table(answers=50, seed=0, ties=False):
    generator = torch.Generator().manual_seed(seed)
    logps = torch.randn(2, answers, dtype=torch.float64, generator=generator).log_softmax(-1)
    scores = torch.randn(2, answers, dtype=torch.float64, generator=generator)
    return logps, scores.round() if ties else scores


@pytest.mark.parametrize("ties", [False, True])
def test_it_is_what_drawing_n_and_keeping_the_best_gives(ties):
    logps, scores = table(ties=ties)
    n, size = 3, 200_000
    generator = torch.Generator().manual_seed(1)
    drawn = torch.multinomial(logps[0].exp(), n * size, replacement=True, generator=generator).view(size, n)
    best = drawn.gather(1, scores[0][drawn].argmax(1, keepdim=True))[:, 0]  # of equals the first drawn
    seen = torch.bincount(best, minlength=50).double() / size
    exact = best_of_n_logps(logps, scores, n)[0].exp()
    assert (seen - exact).abs().max() < 5 * (0.25 / size) ** 0.5
    assert float(exact.sum()) == pytest.approx(1)


def test_one_draw_is_the_reference_and_many_are_the_best_answer():
    logps, scores = table()
    torch.testing.assert_close(best_of_n_logps(logps, scores, 1), logps)
    many = best_of_n_logps(logps, scores, 1_000_000).exp()
    assert torch.allclose(
        many.gather(1, scores.argmax(1, keepdim=True)), torch.ones(2, 1, dtype=torch.float64)
    )


@pytest.mark.parametrize("n", [2, 8, 64])
def test_the_kl_is_at_most_its_law_and_reaches_it_with_many_small_answers(n):
    for ties in (False, True):
        logps, scores = table(ties=ties)
        assert kl_from_logps(best_of_n_logps(logps, scores, n), logps).max() <= best_of_n_kl_bound(n) + 1e-9
    fine = torch.full((1, 100_000), 1e-5, dtype=torch.float64).log()
    kl = kl_from_logps(best_of_n_logps(fine, torch.arange(100_000).double().view(1, -1), n), fine)
    assert float(kl) == pytest.approx(best_of_n_kl_bound(n), rel=1e-2)


def test_no_draw_is_refused():
    with pytest.raises(ValueError, match="n must be ≥ 1, got 0"):
        best_of_n_logps(*table(), 0)
