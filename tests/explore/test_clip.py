"""The explorable of PPO's clip: its page against Python, the ratio that runs away, its errors."""

from __future__ import annotations

import pytest
import torch

from rlhflab.checks import ppo
from rlhflab.explore.clip import EPOCHS, GOAL, KINDS, ClipExplorable
from tests.node import needs_node, run_module

LOGPS, OLD_LOGPS, ADVANTAGES, CLIP_RANGE = ppo.cases()[0].args
RATIOS = (LOGPS - OLD_LOGPS).exp()
OBJECTIVES, LIVE = (2.4, -3.0, 1.0, -1.6, 1.1), [False, True, True, False, True]  # by hand
SCRIPT = """
result = {
  one: sent.ratios.map((rho, i) => [
    m.objective("min", rho, sent.advantages[i], 0.2), m.isLive("min", rho, sent.advantages[i], 0.2),
    m.objective("alone", rho, sent.advantages[i], 0.2), m.isLive("alone", rho, sent.advantages[i], 0.2),
    m.objective("none", rho, sent.advantages[i], 0.2),
  ]),
  paths: sent.views.map(({ actions, luck, noise, goal, epochs, ...settings }) => {
    const batch = { actions, advantages: m.advantagesOf(actions, luck, noise, goal) };
    return sent.kinds.map((kind) => m.ascent(kind, batch, settings, epochs).map(
      (p) => [p.mean, p.std, p.largest, p.size, p.kl, p.promised, m.gainOf(p, goal)]));
  }),
};
"""


@needs_node
def test_the_page_and_python_agree(tmp_path_factory: pytest.TempPathFactory) -> None:
    views = [ClipExplorable(), ClipExplorable(clip_range=0.35, learning_rate=0.1, noise=1.0, batch=6)]
    sent = {
        "ratios": RATIOS.tolist(),
        "advantages": ADVANTAGES.tolist(),
        "kinds": list(KINDS),
        "views": [
            {
                "actions": view.data["actions"][view.batch - 1],
                "luck": view.data["luck"][view.batch - 1],
                "goal": GOAL,
                "epochs": EPOCHS,
                **{name: getattr(view, name) for name in ("noise", "clip_range", "learning_rate")},
            }
            for view in views
        ],
    }
    page = run_module(ClipExplorable, SCRIPT, sent, tmp_path_factory.mktemp("js"))
    assert [one[0] for one in page["one"]] == pytest.approx(OBJECTIVES, abs=1e-6)
    assert [one[1] for one in page["one"]] == LIVE
    assert CLIP_RANGE == 0.2
    held = RATIOS.clamp(0.8, 1.2)
    assert [one[2] for one in page["one"]] == pytest.approx((held * ADVANTAGES).tolist(), abs=1e-6)
    assert [one[3] for one in page["one"]] == [False, False, False, False, True]
    assert [one[4] for one in page["one"]] == pytest.approx((RATIOS * ADVANTAGES).tolist(), abs=1e-6)
    for view, paths in zip(views, page["paths"], strict=True):
        for kind, path in zip(KINDS, paths, strict=True):
            wanted = torch.stack(view.ascent(kind), 1)
            found = torch.tensor(path, dtype=torch.float64)
            torch.testing.assert_close(found[:31], wanted[:31], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found[:, 6], wanted[:, 6], rtol=0, atol=0.02)


def test_the_true_gain_and_the_kl_are_those_of_many_actions() -> None:
    path = ClipExplorable().ascent("none")
    old = torch.distributions.Normal(0.0, 1.0)
    a = torch.linspace(-9, 9, 200_001, dtype=torch.float64)
    for epoch in (10, 30):
        new = torch.distributions.Normal(path.mean[epoch], path.std[epoch])
        reward, p, q = -((a - GOAL) ** 2) / 2, new.log_prob(a), old.log_prob(a)
        gain = torch.trapezoid((p.exp() - q.exp()) * reward, a)
        assert float(path.gained[epoch]) == pytest.approx(float(gain), abs=1e-6)
        kl = torch.trapezoid(q.exp() * (q - p), a)
        assert float(path.kl[epoch]) == pytest.approx(float(kl), rel=1e-4)


def test_what_the_page_opens_with() -> None:
    view = ClipExplorable()
    names = ("ratio", "advantage", "clip_range", "objective", "epoch", "learning_rate", "noise", "batch")
    assert [getattr(view, name) for name in names] == [1.0, 1.0, 0.2, "min", 0, 0.05, 2.0, 3]


@pytest.mark.parametrize("batch", range(1, 9))
def test_without_the_clip_the_ratio_runs_away_in_every_batch(batch: int) -> None:
    view = ClipExplorable(batch=batch)
    held, free = view.ascent("min"), view.ascent("none")
    assert held.largest[0] == free.largest[0] == 1 and held.kl.max() < 0.3 and held.largest.max() < 2
    assert free.kl[-1] > 10 and free.largest[-1] > 5 and free.size[-1] < 6 < 18 < held.size.min()
    assert free.promised[-1] - free.gained[-1] > 0.9 > (held.promised - held.gained).abs().max()


def test_bad_values_are_one_line_and_there_is_a_still_picture() -> None:
    view = ClipExplorable()
    for name, value, says in (
        ("objective", "max", "objective must be one of min, alone, none, got 'max'"),
        ("epoch", 101, "epoch must be from 0 to 100, got 101"),
        ("batch", 0, "batch must be from 1 to 8, got 0"),
        ("clip_range", 0.0, "clip_range must be a number from 0.05 to 0.9, got 0.0"),
        ("ratio", "much", "ratio must be a number from 0 to 2, got 'much'"),
    ):
        with pytest.raises(ValueError, match=says):
            setattr(view, name, value)
    assert len(view.figure().data) == 9
