"""Policy and value function for control: quick sampling follows the distribution that the algorithms see."""

import copy

import pytest
import torch

from rlhflab.models.control import ControlPolicy, value_function


def drawn(policy, observation, count=40_000):
    noise = policy.noise(1, count, torch.Generator().manual_seed(0))[0]
    with torch.no_grad():
        return policy.draw(observation.expand(count, -1), noise)


def test_discrete_actions_follow_the_softmax():
    policy, seen = ControlPolicy(3, 4, True, seed=1), torch.tensor([[0.3, -1.0, 2.0]])
    with torch.no_grad():
        policy.net.weights[-1].mul_(400.0)
    share = policy(seen).probs[0].detach()
    assert share.min() < 0.1 and share.max() > 0.4
    counts = drawn(policy, seen).bincount(minlength=4) / 40_000
    assert (counts - share).abs().max() < 4 * 0.5 / 200


def test_real_actions_follow_the_gaussian():
    policy, seen = ControlPolicy(3, 2, False, seed=1, std=0.5), torch.tensor([[0.3, -1.0, 2.0]])
    with torch.no_grad():
        policy.net.biases[-1].copy_(torch.tensor([1.0, -2.0]))
    distribution, actions = policy(seen), drawn(policy, seen)
    assert distribution.batch_shape == (1,) and distribution.event_shape == (2,)
    assert (actions.mean(0) - distribution.mean[0]).abs().max() < 4 * 0.5 / 200
    assert actions.std(0).tolist() == pytest.approx([0.5, 0.5], rel=0.02)


def test_a_policy_starts_near_the_middle_and_the_seed_decides_its_weights():
    one, same, other = (ControlPolicy(4, 3, True, seed=seed) for seed in (5, 5, 6))
    seen = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    assert (one(seen).probs - 1 / 3).abs().max() < 0.02
    assert torch.equal(one.net.weights[0], same.net.weights[0])
    assert not torch.equal(one.net.weights[0], other.net.weights[0])
    hidden = one.net.weights[1].detach()
    assert torch.allclose(hidden @ hidden.T, 2 * torch.eye(64), atol=1e-4)  # orthogonal, gain √2
    assert value_function(4)(seen).shape == (20, 1)


def test_a_copy_and_loaded_weights_act_by_themselves():
    policy, seen = ControlPolicy(4, 2, True), torch.ones(1, 4)
    twin = copy.deepcopy(policy)
    with torch.no_grad():
        twin.net.biases[-1].add_(torch.tensor([1.0, 0.0]))
    assert not torch.equal(twin(seen).probs, policy(seen).probs)
    policy.load_state_dict(twin.state_dict())
    assert torch.equal(twin(seen).probs, policy(seen).probs)
