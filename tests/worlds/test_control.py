"""Control worlds: episodes that end and that are cut, exact state, and environments that cannot be used."""

import copy
import math
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Text, Tuple

from rlhflab.boundary import Fault
from rlhflab.remedies import require_gymnasium
from rlhflab.worlds.control import ControlWorld, EnvironmentFault
from rlhflab.worlds.snapshot import restore, snapshot


class Counter(gymnasium.Env):
    """Observes how often it was stepped; ends after `end` steps."""

    observation_space = Box(-1e6, 1e6, (1,))
    action_space = Discrete(2)

    def __init__(self, end=3, broken=None):
        self.end, self.broken = end, broken

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.array([0.0], np.float32), {}

    def step(self, action):
        self.count += 1
        observation, reward = float(self.count), 10.0 + self.count
        if self.broken is not None and self.count == 2:
            what, value = self.broken
            observation, reward = (value, reward) if what == "observations" else (observation, value)
        return np.array([observation], np.float32), reward, self.count >= self.end, False, {}


def limited(end, limit):
    return lambda: gymnasium.wrappers.TimeLimit(Counter(end), limit)


def walk(world, steps, seed=0):
    """Steps with random actions."""
    rng = np.random.default_rng(seed)
    taken = []
    for _ in range(steps):
        if world.discrete:
            actions = rng.integers(0, world.actions, world.envs)
        else:
            actions = rng.normal(size=(world.envs, world.actions)).astype(np.float32)
        taken.append(world.step(actions))
    return taken


def test_the_state_that_ends_an_episode_is_seen_and_the_next_step_only_begins_another():
    world = ControlWorld(limited(3, 9), 1)
    steps = walk(world, 5)
    assert [step.observations[0, 0] for step in steps] == [1, 2, 3, 0, 1]
    assert [bool(step.terminated[0]) for step in steps] == [False, False, True, False, False]
    assert not any(step.truncated[0] for step in steps)
    assert [bool(step.counts[0]) for step in steps] == [True, True, True, False, True]
    assert [step.rewards[0] for step in steps] == [11, 12, 13, 0, 11]
    assert world.take_finished() == [(36.0, 3)] and world.take_finished() == []


@pytest.mark.parametrize(("end", "terminated"), [(9, False), (3, True)])  # both at once: it has no future
def test_a_time_limit_cuts_an_episode_that_has_not_ended(end, terminated):
    world = ControlWorld(limited(end, 3), 2)
    last = walk(world, 3)[-1]
    assert last.terminated.tolist() == [terminated] * 2 and last.truncated.tolist() == [not terminated] * 2
    assert last.observations[:, 0].tolist() == [3, 3] and world.resetting.tolist() == [True, True]


def test_copies_are_gymnasiums_own_environments_with_starts_of_their_own():
    world = ControlWorld("CartPole-v1", 2, seed=3)
    assert (world.size, world.actions, world.discrete) == (4, 2, True)
    assert (world.time_limit, world.threshold) == (500, 475.0)
    assert not np.array_equal(*world.observations)
    single = gymnasium.make("CartPole-v1").unwrapped
    single.reset()
    single.state = world.observations[1].astype(float)  # all that there is to know of it, in single precision
    walk(world, 8)
    rng = np.random.default_rng(0)
    for _ in range(8):
        seen, *_ = single.step(int(rng.integers(0, 2, 2)[1]))
    assert world.observations[1] == pytest.approx(seen, rel=1e-4)
    assert not np.array_equal(ControlWorld("CartPole-v1", 2, seed=4).observations, world.observations)


def test_gymnasiums_vectorised_cartpole_is_the_same_physics():
    many, one = ControlWorld("CartPole-v1", 4, seed=1), gymnasium.make("CartPole-v1").unwrapped
    assert type(many._vector).__name__ == "CartPoleVectorEnv"
    one.reset()
    one.state = many.observations[2].astype(float)
    for t in range(9):
        after = many.step(np.array([0, 1, t % 2, 0]))
        alone, *_ = one.step(t % 2)
        assert after.observations[2] == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "envs"),
    [("CartPole-v1", 8), ("CartPole-v1", 2), ("Pendulum-v1", 3), ("Acrobot-v1", 2), ("MountainCarContinuous-v0", 2)],
)  # fmt: skip
def test_a_world_goes_on_exactly_where_its_state_was_taken(name, envs):
    world = ControlWorld(name, envs)
    walk(world, 230)
    world.take_finished()
    state = copy.deepcopy(world.state_dict())
    assert "copies" in state
    expected, episodes = walk(world, 300, seed=1), world.take_finished()
    other = ControlWorld(name, envs, seed=9)
    other.load_state_dict(state)
    again = walk(other, 300, seed=1)
    for one, two in zip(expected, again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert other.take_finished() == episodes and (episodes or name == "MountainCarContinuous-v0")


def test_an_environment_whose_state_cannot_be_told_begins_anew():
    def made():
        env = Counter(7)
        env.simulator = object()
        return env

    world = ControlWorld(made, 1)
    walk(world, 4)
    state = world.state_dict()
    assert "copies" not in state
    other = ControlWorld(made, 1)
    walk(other, 2)
    other.load_state_dict(state)
    assert other.observations[0, 0] == 0 and walk(other, 7)[-1].terminated[0]


def test_real_actions_span_the_allowed_range_and_are_clipped_to_it():
    class Echo(Counter):
        observation_space = Box(-9, 9, (2,))
        action_space = Box(np.array([-2, 0], np.float32), np.array([2, 1], np.float32))

        def reset(self, *, seed=None, options=None):
            return np.zeros(2, np.float32), super().reset(seed=seed)[1]

        def step(self, action):
            return action, *super().step(0)[1:]

    world = ControlWorld(Echo, 1)
    assert (world.discrete, world.actions) == (False, 2)
    for given, taken in (([0, 0], [0, 0.5]), ([-1, 1], [-2, 1]), ([0.5, -7], [1, 0])):
        assert world.step(np.array([given], np.float32)).observations[0].tolist() == taken


def test_discrete_observations_are_one_hot():
    world = ControlWorld("FrozenLake-v1", 2)
    assert world.size == 16 and world.observations.tolist() == [[1.0] + [0.0] * 15] * 2


@pytest.mark.parametrize("what", ["observations", "rewards"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_named_with_its_place(what, value):
    world = ControlWorld(lambda: Counter(9, (what, value)), 2)
    walk(world, 1)
    says = rf"^Counter returned {what} that are not finite: {value} for copy 0, 1 steps into its episode$"
    with pytest.raises(EnvironmentFault, match=says):
        walk(world, 1)


def test_large_numbers_are_numbers():
    assert walk(ControlWorld(lambda: Counter(9, ("observations", 3e38)), 2), 3)[1].observations[0, 0] > 2e38


def test_actions_that_are_no_numbers_are_the_policys_fault():
    with pytest.raises(
        EnvironmentFault, match=r"^Pendulum-v1 was given actions that are not finite: nan for copy 1"
    ):
        ControlWorld("Pendulum-v1", 2).step(np.array([[0.0], [math.nan]], np.float32))


class WithSpaces(Counter):
    def __init__(self, **spaces):
        super().__init__()
        vars(self).update(spaces)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        ("Mars-v0", r"unknown world 'Mars-v0'; use micro, reviews or an environment's id such as CartPole-v1 \(.*Mars"),
        ("CartPole", "unknown world 'CartPole'"),
        ("no such thing", "unknown world 'no such thing'"),
        (lambda: WithSpaces(action_space=MultiDiscrete([2, 2])), "WithSpaces has actions of kind MultiDiscrete"),
        (lambda: WithSpaces(action_space=Box(0, 1, (2, 2))), "WithSpaces has actions of kind Box"),
        (lambda: WithSpaces(observation_space=Dict()), "WithSpaces has observations of kind Dict; supported: Box"),
        (lambda: WithSpaces(observation_space=Tuple([Discrete(2)])), "WithSpaces has observations of kind Tuple"),
        (lambda: WithSpaces(observation_space=Text(3)), "WithSpaces has observations of kind Text"),
        (lambda: WithSpaces(observation_space=Box(0, 1, (0,))), r"WithSpaces has observations of kind Box\(0,\)"),
        (lambda: WithSpaces(observation_space=None), "cannot make an environment by <lambda>: TypeError: The space"),
        (lambda: 1 / 0, r"cannot make .* ZeroDivisionError: division by zero \(test_control.py, line \d+\)"),
        (lambda: None, "cannot make an environment by <lambda>: AttributeError"),
        (Counter(), "a world must be a gymnasium id or a function that makes one, got Counter"),
        ("no_such_module:My-v0", "world 'no_such_module:My-v0': ModuleNotFoundError: No module named"),
    ],
)  # fmt: skip
def test_environments_that_cannot_be_used_are_one_line(make, says):
    with pytest.raises(ValueError, match=f"^{says}") as caught:
        ControlWorld(make)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "value", "least"), [("envs", 0, 1), ("seed", -1, 0)])
def test_bad_numbers_are_named(name, value, least):
    with pytest.raises(ValueError, match=f"^{name} must be ≥ {least}, got {value}$"):
        ControlWorld("CartPole-v1", **{name: value})


def test_a_missing_or_old_gymnasium_comes_with_its_remedy(monkeypatch):
    monkeypatch.setattr(gymnasium, "__version__", "0.29.1")
    with pytest.raises(ValueError, match=r"need gymnasium ≥ 1.0, found 0.29.1: python -m pip install"):
        require_gymnasium()
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(
        ValueError, match=r"^control worlds need gymnasium: python -m pip install 'gymnasium>=1.0'$"
    ):
        ControlWorld("CartPole-v1")


class Script(Counter):
    """Returns what it is told to, from the second step on."""

    def __init__(self, space=None, first=None, **then):
        super().__init__(9)
        self.observation_space, self.first, self.then = space or Counter.observation_space, first, then

    def seen(self):
        return np.zeros(self.observation_space.shape, np.float32) if self.first is None else self.first

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        return self.then["reset"] if "reset" in self.then else (self.seen(), info)

    def step(self, action):
        _, reward, terminated, truncated, info = super().step(action)
        told = self.then if self.count == 2 else {}
        if "error" in told:
            raise told["error"]
        values = (
            told.get("seen", self.seen()),
            told.get("reward", reward),
            told.get("terminated", terminated),
        )
        return told.get("step", (*values, truncated, info))


STATES, PLACES, PIXELS = Discrete(3, start=5), Box(-1, 1, (2,), np.float32), Box(0, 255, (2,), np.uint8)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        # an index from another end of the table would be another state
        ({"space": Discrete(4), "first": 0, "seen": 4}, r"returned the observation 4, not in Discrete\(4\)"),
        ({"space": Discrete(4), "first": 0, "seen": -1}, r"returned the observation -1, not in Discrete\(4\)"),
        ({"space": Discrete(4), "first": 0, "seen": 10**30}, "returned the observation 10000"),
        ({"space": Discrete(4), "first": 0, "seen": 2.0}, r"returned the observation 2.0, not in Discrete"),
        ({"space": Discrete(4), "first": 0, "seen": np.array([2])}, r"returned the observation array\(\[2\]\)"),
        ({"space": STATES, "first": 5, "seen": 4}, r"returned the observation 4, not in Discrete\(3, start=5\)"),
        ({"space": STATES, "first": 5, "seen": np.int64(8)}, r"returned the observation .*8.*, not in Discrete"),
        ({"space": PLACES, "seen": np.zeros(3)}, r"returned an observation of shape \(3,\), not in Box\(-1.0, 1.0, \("),
        ({"space": PLACES, "seen": np.zeros((1, 2))}, r"returned an observation of shape \(1, 2\), not in Box"),
        ({"space": PLACES, "seen": [0.5, [1]]}, r"returned the observation \[0.5, \[1\]\], not in Box"),
        ({"space": PLACES, "seen": "ab"}, "returned the observation 'ab', not in Box"),
        ({"space": PIXELS, "first": [0, 0], "seen": [300, 0]}, r"returned the observation \[300, 0\], not in Box"),
        ({"space": PIXELS, "first": [0, 0], "seen": [0.5, 0]}, r"returned the observation \[0.5, 0\], not in Box"),
        ({"reward": "1.0"}, "returned the reward '1.0', not a number"),
        ({"reward": None}, "returned the reward None, not a number"),
        ({"reward": 1j}, "returned the reward 1j, not a number"),
        ({"reward": np.array([1.0, 2.0])}, r"returned the reward array\(\[1., 2.\]\), not a number"),
        ({"reward": 10**400}, r"returned the reward 1000\d+…, not a number"),
        ({"reward": 10**5000}, "returned the reward of type int, not a number"),
        ({"terminated": None}, "returned terminated = None, neither True nor False"),
        ({"terminated": "no"}, "returned terminated = 'no', neither True nor False"),
        ({"terminated": 2}, "returned terminated = 2, neither True nor False"),
        ({"step": (np.zeros(1), 1.0, False, {})}, r": step must return \(observation, reward, terminated, truncated"),
        ({"error": KeyError("my bug")}, r": step failed: KeyError: 'my bug' \(test_control.py, line \d+\)"),
        ({"error": SystemExit("bye")}, ": step failed: SystemExit: bye"),
    ],
)  # fmt: skip
def test_what_no_space_allows_is_refused_and_named(told, says):
    world = ControlWorld(lambda: gymnasium.wrappers.OrderEnforcing(Script(**told)), 2)
    walk(world, 1)
    with pytest.raises(Fault, match=f"^Script{' ' if says[0] == 'r' else ''}{says}") as caught:
        walk(world, 1)
    assert "\n" not in str(caught.value) and not isinstance(caught.value, EnvironmentFault)


@pytest.mark.parametrize(
    "first", [np.zeros(2, np.float32), 0.0]
)  # the first would be read as observation and info
def test_a_reset_of_the_old_kind_is_refused(first):
    space = Box(-1, 1, np.shape(first))
    with pytest.raises(Fault, match=r"^Script: reset must return a pair, observation and info, got "):
        ControlWorld(lambda: Script(space, reset=first))


@pytest.mark.parametrize(
    ("told", "column", "value"),
    [
        ({"space": STATES, "first": 5, "seen": np.int32(7)}, "observations", [0, 0, 1]),
        ({"space": Discrete(2), "first": 0, "seen": True}, "observations", [0, 1]),
        ({"space": Discrete(2, start=-1), "first": -1, "seen": np.array(0)}, "observations", [0, 1]),
        ({"space": PLACES, "seen": [0.5, 3]}, "observations", [0.5, 3]),  # outside the bounds, and as it is
        ({"space": PLACES, "seen": np.array([1, 2])}, "observations", [1, 2]),
        ({"space": PIXELS, "first": [0, 0], "seen": [7, 200]}, "observations", [7, 200]),
        ({"reward": np.float32(2.5)}, "rewards", 2.5),
        ({"reward": np.array([2.5])}, "rewards", 2.5),
        ({"reward": 3}, "rewards", 3),
        ({"terminated": np.bool_(True)}, "terminated", True),
        ({"terminated": 1}, "terminated", True),
    ],
)  # fmt: skip
def test_other_types_of_the_same_values_are_read(told, column, value):
    world = ControlWorld(lambda: Script(**told), 2)
    found = getattr(walk(world, 2)[-1], column)
    assert found.tolist() == [value, value]


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (np.array([0, 4, 0, 0]), r"returned the observations \[0 4 0 0\], not in Discrete\(4\)$"),
        (np.zeros(3, np.int64), r"returned observations of shape \(3,\), not \(4,\)$"),
        (KeyError("my bug"), r": step failed: KeyError: 'my bug' \(test_control.py, line \d+\)$"),
    ],
)
def test_a_vectorised_environment_of_ones_own_is_looked_at_too(seen, says):
    class Native(gymnasium.vector.VectorEnv):
        metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}
        single_observation_space, single_action_space = Discrete(4), Discrete(2)

        def __init__(self, num_envs):
            self.num_envs = num_envs

        def reset(self, *, seed=None, options=None):
            return np.zeros(4, np.int64), {}

        def step(self, actions):
            if isinstance(seen, KeyError):
                raise seen
            ends = np.zeros(4, bool)
            return seen, np.zeros(4), ends, ends, {}

    gymnasium.register("Native-v0", Counter, vector_entry_point=Native)
    try:
        with pytest.raises(Fault, match=f"^Native-v0 ?{says}"):
            walk(ControlWorld("Native-v0", 4), 1)
    finally:
        del gymnasium.registry["Native-v0"]


def test_copies_that_are_one_object_are_refused():
    one = Counter()
    with pytest.raises(ValueError, match=r"^Counter is the same object in all copies"):
        ControlWorld(lambda: one, 2)


def test_many_states_need_room_for_those_that_are_seen_only():
    assert (
        ControlWorld(lambda: Script(Discrete(10**6), 0), 2).observations.sum() == 2
    )  # a table would take 4 TB


def test_an_environment_of_ones_own_is_registered_by_its_module(tmp_path, monkeypatch):
    (tmp_path / "my_worlds.py").write_text(
        "import gymnasium\nfrom tests.worlds.test_control import Counter\n"
        "gymnasium.register('Mine-v0', lambda end=3: Counter(end), max_episode_steps=7)\n"
        "gymnasium.register('Broken-v0', lambda: 1 / 0)\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    world = ControlWorld("my_worlds:Mine-v0", 2)
    assert (world.name, world.time_limit) == ("my_worlds:Mine-v0", 7) and walk(world, 3)[-1].terminated.all()
    with pytest.raises(
        Fault, match=r"^cannot make world 'my_worlds:Broken-v0': ZeroDivisionError.*my_worlds.py, line 4"
    ):
        ControlWorld("my_worlds:Broken-v0")
    with pytest.raises(ValueError, match=r"^unknown world 'my_worlds:None-v0'"):
        ControlWorld("my_worlds:None-v0")


def test_the_state_of_another_environment_is_refused():
    state = ControlWorld(limited(3, 9), 2).state_dict()
    with pytest.raises(Fault, match=r"^Counter is not the environment that this state was taken of"):
        ControlWorld(Counter, 2).load_state_dict(state)


def test_a_restored_environment_does_not_write_into_its_snapshot():
    """What it changes in place is its own."""

    class Place(gymnasium.Env):
        def __init__(self):
            self.at, self.seen, self.speed = np.zeros(2), [1, (2.5, None)], np.float32(0.5)

    place = Place()
    state = snapshot(place)
    for _ in range(2):
        place.at, place.seen, place.speed = None, None, None
        restore(place, state)
        assert place.at.tolist() == [0, 0] and place.seen == [1, (2.5, None)]
        assert type(place.speed) is np.float32 and place.speed == 0.5
        place.at += 1
    place.at += 1
    assert state[0]["at"]["array"].tolist() == [0, 0]
    place.handle = object()
    assert snapshot(place) is None
