"""The probes: their values are those of their best policy, and every named mistake is recognised."""

import gymnasium
import numpy as np
import pytest
import torch

from rlhflab.worlds.probes import PROBES, verdict

GAMMA = 0.5


def policy_of(probe, right=0.97):
    def probabilities(seen):
        first = [probe.best.get(round(float(x)), 0) == 0 for x in seen]
        return torch.tensor([[right, 1 - right] if zero else [1 - right, right] for zero in first])

    return probabilities


def value_of(values):
    return lambda seen: torch.tensor([values[round(float(x))] for x in seen])


@pytest.mark.parametrize("name", PROBES)
def test_values_are_the_discounted_returns_of_the_best_policy(name):
    probe, env = PROBES[name], gymnasium.make(name).unwrapped
    found = {}
    for episode in range(20):
        seen, _ = env.reset(seed=episode)
        trail, over = [], False
        while not over and len(trail) < 60:  # Endless without its limit: γ^60 is nothing
            action = probe.best.get(float(seen[0]), 0)
            after, reward, over, *_ = env.step(action)
            trail.append((float(seen[0]), reward))
            seen = after
        value = 0.0
        for observation, reward in reversed(trail):
            value = reward + GAMMA * value
            found.setdefault(observation, []).append(value)
    last = {observation: values[-1] for observation, values in found.items()}  # the first state of an episode
    assert last == pytest.approx(probe.values(GAMMA))


def test_only_endless_is_cut_by_its_time_limit():
    for name in PROBES:
        env = gymnasium.make(name)
        env.reset(seed=0)
        over = False
        while not over:
            _, _, terminated, truncated, _ = env.step(np.int64(0))
            over = terminated or truncated
        assert truncated == (name == "rlhflab/Endless-v0")


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
def test_the_right_answer_passes_with_and_without_a_value_function(probe):
    assert verdict(probe, GAMMA, policy_of(probe), value_of(probe.values(GAMMA))) == ""
    assert verdict(probe, GAMMA, policy_of(probe)) == ""


MISTAKES = [  # what a wrong implementation learns at γ = ½, by hand
    ("Constant", {0: 0.0}, "V has not moved"),
    ("Constant", {0: 2.0}, "the value of the next episode is added"),  # V = 1 + V/2
    ("Observed", {-1: 0.0, 1: 0.0}, "V is the same everywhere"),
    ("Observed", {-1: 1.0, 1: -1.0}, "V has the wrong sign"),
    ("Delayed", {0: 1.0, 1: 1.0}, "nothing is discounted"),
    ("Delayed", {0: 0.25, 1: 1.0}, "the future is discounted twice"),
    ("Delayed", {0: 0.0, 1: 1.0}, "nothing flows back from the next state"),
    ("Endless", {0: (1 + 1.5 + 1.75 + 1.875 + 1.9375) / 5}, "a time limit is treated as a termination"),
]


@pytest.mark.parametrize(("name", "values", "says"), MISTAKES)
def test_every_named_mistake_is_recognised(name, values, says):
    probe = PROBES[f"rlhflab/{name}-v0"]
    assert verdict(probe, GAMMA, policy_of(probe), value_of(values)).startswith(f"{name}: {says}")


def test_there_are_no_other_mistakes_with_a_name():
    assert sum(len(probe.mistakes(GAMMA)) for probe in PROBES.values()) == len(MISTAKES)


def test_other_mistakes_show_what_was_found_and_what_is_tested():
    probe = PROBES["rlhflab/Delayed-v0"]
    says = verdict(probe, GAMMA, policy_of(probe), value_of({0: 3.0, 1: 1.0}))
    assert says.startswith("Delayed: V is 3.00 at 0, 1.00 at 1 but should be 0.50 at 0, 1.00 at 1; it tests ")


@pytest.mark.parametrize("name", ["rlhflab/Acted-v0", "rlhflab/Both-v0"])
def test_an_undecided_policy_and_a_wrong_one_are_told_apart(name):
    probe = PROBES[name]
    low = value_of(dict.fromkeys(probe.values(GAMMA), 0.0))  # V of a coin: the policy is the one to blame
    assert "the right action has probability 0.50" in verdict(probe, GAMMA, policy_of(probe, 0.5), low)
    assert "wrong sign" in verdict(probe, GAMMA, policy_of(probe, 0.02), low)
