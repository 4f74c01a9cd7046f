"""The check of PPO's clipped loss accepts right answers and names typical wrong ones."""

import pytest
import torch

from rlhflab.checks.ppo import EXERCISE, cases, check_clip_loss
from rlhflab.objectives.policy_gradient import ppo_clip_loss


def clip(ratio, e):
    return ratio.clamp(1 - e, 1 + e)


def right(logps, old, a, e):
    ratio = (logps - old).exp()
    return -torch.minimum(ratio * a, clip(ratio, e) * a)


def in_place(logps, old, a, e):
    ratio = logps.sub_(old).exp_()
    clipped = ratio.clone().clamp_(1 - e, 1 + e)
    return -torch.min(ratio * a, clipped.mul_(a))


def by_cases(logps, old, a, *, clip_range):
    ratio = torch.exp(logps - old)
    held = ((a > 0) & (ratio > 1 + clip_range)) | ((a < 0) & (ratio < 1 - clip_range))
    return -torch.where(held, (1 + clip_range * a.sign()) * a, ratio * a)


def token_by_token(logps, old, a, e):
    losses = torch.zeros(len(a), dtype=torch.float64)
    for t in range(len(a)):
        ratio = (logps[t] - old[t]).exp()
        losses[t] = -min(ratio * a[t], clip(ratio, e) * a[t])
    return losses


@pytest.mark.parametrize(
    "answer",
    [
        right,
        lambda lp, old, a, e: torch.max(-(lp - old).exp() * a, -clip((lp - old).exp(), e) * a),
        lambda lp, old, a, e: -torch.stack([(lp - old).exp() * a, clip((lp - old).exp(), e) * a]).amin(0).squeeze(),
        in_place,
        by_cases,
        token_by_token,
    ],
)  # fmt: skip
def test_right_answers_pass(answer, capsys):
    assert check_clip_loss(answer) and check_clip_loss(answer)
    assert capsys.readouterr().out.count("✓") == 2


def test_the_case_by_hand_is_what_the_package_computes():
    assert EXERCISE.values(EXERCISE.right)[0].tolist() == pytest.approx([-2.4, 3.0, -1.0, 1.6, -1.1])
    logps, old, advantages, clip_range = cases()[0].args
    logps.requires_grad_()
    batch = (x.unsqueeze(0) for x in (logps, old, advantages))
    loss, seen = ppo_clip_loss(*batch, torch.ones(1, 5, dtype=torch.bool), clip_range)
    assert (5 * loss).item() == pytest.approx(-2.4 + 3.0 - 1.0 + 1.6 - 1.1)
    slopes = torch.autograd.grad(5 * loss, logps)[0]
    assert slopes.tolist() == pytest.approx([0.0, 3.0, -1.0, 0.0, -1.1])
    assert seen.clipped[0].tolist() == [True, False, False, True, False]


def test_no_ratio_is_at_the_edge_of_the_clip_where_the_slope_is_a_matter_of_style():
    for (logps, old, _, e), *_ in cases():
        assert (((logps - old).exp() - 1).abs() - e).abs().min() > 1e-3


def test_random_ratios_lie_on_both_sides_of_the_clip_and_within_it():
    for (logps, old, _, e), *_ in cases()[2:]:
        ratios = (logps - old).exp()
        assert ratios.max() > 1 + e and ratios.min() < 1 - e
    assert any((((logps - old).exp() - 1).abs() < e).any() for (logps, old, _, e), *_ in cases()[1:])


def over_written(ratio, a, e):
    objective = ratio * a
    return -torch.minimum(objective, ratio.clamp_(1 - e, 1 + e) * a)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda r, a, e: torch.minimum(r * a, clip(r, e) * a), "the minus is missing"),
        (lambda r, a, e: -torch.maximum(r * a, clip(r, e) * a), "max for min"),
        (lambda r, a, e: -torch.minimum(-r * a, -clip(r, e) * a), "the sign of the advantages"),
        (lambda r, a, e: -torch.minimum(r * a, clip(r.log(), e) * a), "the clip is on the log-ratio: take"),
        (lambda r, a, e: -torch.minimum(r * a, r.clamp(-e, e) * a), "the clip is to ± ε"),
        (lambda r, a, e: -torch.minimum(a / r, clip(1 / r, e) * a), "upside down"),
        (lambda r, a, e: -torch.minimum(r.log() * a, clip(r.log(), e) * a), "exp is missing"),
        (lambda r, a, e: -r * a, "the clip is missing"),
        (lambda r, a, e: -clip(r, e) * a, "the minimum is missing"),
        (lambda r, a, e: -torch.minimum(r * a, clip(r * a, e)), "the clip is on ratio·A"),
        (lambda r, a, e: -torch.minimum(r * a, r.clamp(max=1 + e) * a), "the clip has no lower end"),
        (lambda r, a, e: -torch.minimum(r * a, r.clamp(min=1 - e) * a), "the clip has no upper end"),
        (lambda r, a, e: -torch.minimum(r * a, clip(r, 0.2) * a), "whatever clip_range is"),
        (lambda r, a, e: -torch.minimum(r * a, r.log().clamp(-e, e).exp() * a), "the clip is on the log-ratio, to ± ε"),
        (lambda r, a, e: -torch.minimum(r, clip(r, e)) * a, "the minimum is over ratios"),
        (lambda r, a, e: -torch.minimum(r * (a - a.mean()), clip(r, e) * (a - a.mean())), "by hand it is"),
        (lambda r, a, e: -torch.minimum(r * (a / 3), clip(r, e) * (a / 3)), "by hand it is"),
        (lambda r, a, e: -torch.minimum(r * a, clip(r, e) * a).detach(), "no gradient reaches logps: it was detached"),
        (lambda r, a, e: over_written(r, a, e), "overwritten in place"),
        (lambda r, a, e: -torch.minimum(r.detach() * a, clip(r, e) * a), "the gradient is not"),
        (lambda r, a, e: -torch.minimum(r * a, clip(r, e) * a).mean(), "one number"),
        (lambda r, a, e: None, "not written yet"),
        (lambda r, a, e: 0.3, "returned a float"),
        (lambda r, a, e: r.unsqueeze(0), "shape (1, 5)"),
        (lambda r, a, e: r * 7, "by hand it is"),
        (lambda r, a, e: r @ r @ a, "it raised RuntimeError"),
    ],
)  # fmt: skip
def test_wrong_answers_are_named(wrong, words, capsys):
    assert not check_clip_loss(lambda logps, old, a, e: wrong((logps - old).exp(), a, e))
    out = capsys.readouterr().out
    assert out.startswith("✗") and words in out


def of_whole_batch(logps, old, a, e):
    return right(logps, old, (a - a.mean()) / (a.std(correction=int(len(a) > 1)) + 1e-8), e)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda lp, old, a, e: right((lp / old).log(), 0 * old, a, e), "the ratio is of log-probabilities"),
        (of_whole_batch, "the advantages are normalised"),
    ],
)
def test_wrong_answers_that_see_the_log_probabilities_are_named(wrong, words, capsys):
    assert not check_clip_loss(wrong)
    assert words in capsys.readouterr().out
