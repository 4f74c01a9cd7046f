"""The check of PPO's clipped loss accepts right answers and names typical wrong ones."""

import pytest
import torch

from rlhflab.checks import ppo
from rlhflab.checks.ppo import check_clip_loss
from rlhflab.objectives.policy_gradient import ppo_clip_loss


def clip(ratio, e):
    return ratio.clamp(1 - e, 1 + e)


def right(logps, old, a, e):
    ratio = (logps - old).exp()
    return -torch.minimum(ratio * a, clip(ratio, e) * a)


def test_right_answers_pass(capsys):
    assert check_clip_loss(right)
    assert check_clip_loss(
        lambda lp, old, a, e: torch.max(-(lp - old).exp() * a, -clip((lp - old).exp(), e) * a)
    )
    assert capsys.readouterr().out.count("✓") == 2


def test_the_case_by_hand_is_what_the_package_computes():
    logps = (ppo.OLD_LOGPS + ppo.RATIOS.log()).requires_grad_()
    batch = (x.unsqueeze(0) for x in (logps, ppo.OLD_LOGPS, ppo.ADVANTAGES))
    loss, seen = ppo_clip_loss(*batch, torch.ones(1, 5, dtype=torch.bool), ppo.CLIP_RANGE)
    torch.testing.assert_close(loss, ppo.EXPECTED.mean())
    torch.testing.assert_close(torch.autograd.grad(5 * loss, logps)[0], ppo.SLOPES)
    assert seen.clipped[0].tolist() == [True, False, False, True, False]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda r, a, e: torch.minimum(r * a, clip(r, e) * a), "the minus is missing"),
        (lambda r, a, e: -torch.maximum(r * a, clip(r, e) * a), "max for min"),
        (lambda r, a, e: -torch.minimum(-r * a, -clip(r, e) * a), "the sign of the advantages"),
        (lambda r, a, e: -torch.minimum(r * a, clip(r.log(), e) * a), "the clip is on the log-ratio"),
        (lambda r, a, e: -torch.minimum(r * a, r.clamp(-e, e) * a), "the clip is to ± ε"),
        (lambda r, a, e: -torch.minimum(a / r, clip(1 / r, e) * a), "upside down"),
        (lambda r, a, e: -torch.minimum(r.log() * a, clip(r.log(), e) * a), "exp is missing"),
        (lambda r, a, e: -r * a, "the clip is missing"),
        (lambda r, a, e: -clip(r, e) * a, "the minimum is missing"),
        (lambda r, a, e: -torch.minimum(r * a, clip(r * a, e)), "the clip is on ratio·A"),
        (lambda r, a, e: -torch.minimum(r * a, clip(r, e) * a).detach(), "the ratio is detached"),
        (lambda r, a, e: -torch.minimum(r.detach() * a, clip(r, e) * a), "the gradient is not"),
        (lambda r, a, e: -torch.minimum(r * a, clip(r, e) * a).mean(), "one number"),
        (lambda r, a, e: None, "not written yet"),
        (lambda r, a, e: 0.3, "returned a float"),
        (lambda r, a, e: r.unsqueeze(0), "shape (1, 5)"),
        (lambda r, a, e: r * 7, "by hand it is"),
        (lambda r, a, e: r @ r @ a, "it raised RuntimeError"),
    ],
)
def test_wrong_answers_are_named(wrong, words, capsys):
    assert not check_clip_loss(lambda logps, old, a, e: wrong((logps - old).exp(), a, e))
    out = capsys.readouterr().out
    assert out.startswith("✗") and words in out
