"""The rollout player: its returns in Python and in the page, its errors."""

from __future__ import annotations

import pytest
import torch

from rlhflab.explore.rollout import CARTPOLE, RolloutPlayer
from tests.node import needs_node, run_module


def player(steps: int = 30, size: int = 4, actions: int = 2, **rest: object) -> RolloutPlayer:
    generator = torch.Generator().manual_seed(0)
    return RolloutPlayer(
        torch.randn(steps + 1, size, generator=generator),
        torch.randint(actions, (steps,), generator=generator),
        torch.rand(steps, generator=generator),
        torch.rand(steps, actions, generator=generator).softmax(-1),
        **rest,  # type: ignore[arg-type]
    )


def test_returns_are_sums_of_what_is_still_to_come() -> None:
    view = player(gamma=0.9)
    rewards = view.data["rewards"]
    by_hand = [sum(0.9**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))]
    assert view.returns().tolist() == pytest.approx(by_hand)


def test_cartpole_is_known_by_its_four_numbers() -> None:
    assert player().data["cartpole"] and player().data["names"] == list(CARTPOLE)
    other = player(size=3, actions=3)
    assert not other.data["cartpole"] and other.data["actionNames"] == ["0", "1", "2"]
    assert not player(names=("a", "b", "c", "d")).data["cartpole"]
    assert len(other.figure().data) == 4
    named = player(size=1, names=("<b>x</b>",)).figure()
    assert named.data[0].name == "&lt;b&gt;x&lt;/b&gt;"


def test_what_does_not_fit_together_is_one_line() -> None:
    states, one = torch.zeros(3, 4), torch.zeros(2)
    with pytest.raises(ValueError, match=r"for 2 rewards 3 states, 2 actions and 2 rows .* got 3, 2 and 5"):
        RolloutPlayer(states, one.long(), one, torch.zeros(5, 2))
    with pytest.raises(ValueError, match="1 to 1000 steps, got 0"):
        RolloutPlayer(states[:1], one[:0].long(), one[:0], torch.zeros(0, 2))
    with pytest.raises(ValueError, match="4 names and 2 action names are needed, got 1 and 2"):
        RolloutPlayer(states, one.long(), one, torch.zeros(2, 2), names=("a",))
    with pytest.raises(ValueError, match=r"actions must be whole numbers from 0 to 1, got 0 to 2"):
        RolloutPlayer(states, torch.tensor([2, 0]), one, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="rewards must be finite"):
        RolloutPlayer(states, one.long(), one / 0, torch.zeros(2, 2))
    view = player(steps=5)
    view.time = 5
    with pytest.raises(ValueError, match="time must be from 0 to 5, got 6"):
        view.time = 6


@needs_node
def test_the_page_and_python_have_the_same_returns(tmp_path_factory: pytest.TempPathFactory) -> None:
    view = player(gamma=0.93)
    script = "result = { returns: m.returnsToGo(sent.rewards, 0.93), worth: m.horizonOf(0.98) };"
    page = run_module(RolloutPlayer, script, view.data, tmp_path_factory.mktemp("js"))
    assert page["returns"] == pytest.approx(view.returns().tolist())
    assert page["worth"] == pytest.approx(50)
