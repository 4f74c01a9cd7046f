"""REINFORCE, PPO and TRPO on control problems: probes, closed forms, time limits, the KL bound, exact resume."""

import copy
import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from rlhflab import recipes
from rlhflab.boundary import Fault
from rlhflab.core.algorithm import TrainingDiverged
from rlhflab.objectives.advantages import discounted_returns, gae, leave_one_out_to_go
from rlhflab.objectives.divergence import categorical_kl
from rlhflab.objectives.policy_gradient import masked_mean, reinforce_loss
from rlhflab.runs.checkpoint import read_checkpoint, write_checkpoint
from rlhflab.tasks import control as control_task
from rlhflab.tasks.control import ControlTask, act, play
from rlhflab.worlds.control import ControlWorld
from rlhflab.worlds.probes import PROBES, verdict

BUILD = {"reinforce": recipes.ReinforceControl, "ppo": recipes.PPOControl, "trpo": recipes.TRPOControl}
SMALL = {
    "reinforce": {"envs": 4},
    "ppo": {"envs": 4, "horizon": 24, "minibatches": 2, "epochs": 2},
    "trpo": {"envs": 4, "horizon": 24},
}
ON_PROBES = {
    "reinforce": {"steps": 60, "envs": 16, "learning_rate": 3e-2},
    "ppo": {"steps": 50, "envs": 8, "horizon": 16, "learning_rate": 1e-2},
    "trpo": {"steps": 40, "envs": 8, "horizon": 16, "max_kl": 0.05},
}


def short_cartpole():
    """Some of its episodes end and some are cut."""
    return gymnasium.make("CartPole-v1", max_episode_steps=20)


class Aim(gymnasium.Env):
    """One step with a real action a: reward −(a − goal)²."""

    observation_space, action_space = Box(-1, 1, (1,)), Box(-np.inf, np.inf, (1,))
    goal = 0.4

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), -float((action[0] - self.goal) ** 2), True, False, {}


def made_to_aim():
    return gymnasium.wrappers.TimeLimit(Aim(), 2)


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("name", BUILD)
def test_every_algorithm_gives_the_known_answer_of_every_probe(name, probe):
    run = BUILD[name](world=probe, gamma=0.5, evaluate_every=1000, **ON_PROBES[name]).build()
    for _ in run:
        pass
    value = run.task.value
    learnt = None if value is None else lambda seen: value(seen).squeeze(-1)
    assert verdict(PROBES[probe], 0.5, lambda seen: run.policy(seen).probs, learnt) == ""


@pytest.mark.parametrize("name", BUILD)
def test_real_actions_are_aimed(name):
    slow = {"learning_rate": 1e-2} if name == "reinforce" else {}
    run = BUILD[name](world=made_to_aim, gamma=0.5, **{**ON_PROBES[name], **slow, "steps": 80}).build()
    for _ in run:
        pass
    mean = run.policy(torch.zeros(1, 1)).mean.item()
    assert mean == pytest.approx(Aim.goal, abs=0.12)
    assert float(run.policy.log_std.exp().detach()) < 0.8  # it began at 1; a narrower aim earns more


def test_the_policy_gradient_of_a_two_armed_bandit_is_its_closed_form():
    """Acted pays ±1 at observation 0, where only the last biases act: ∂J/∂b_k = π_k·(r_k − J)."""
    task = ControlTask("rlhflab/Acted-v0", 400, 1, seed=0, value=False)
    bias = task.policy.net.biases[-1]
    with torch.no_grad():
        bias.copy_(torch.tensor([0.8, 0.0]))
    share = bias.detach().softmax(0)
    rewards = torch.tensor([-1.0, 1.0])
    exact = share * (rewards - share @ rewards)
    found = []
    for _ in range(30):
        rollout = task.collect({}).rollout
        returns = discounted_returns(rollout.rewards, rollout.dones)
        advantages = leave_one_out_to_go(returns, rollout.groups, rollout.mask)
        logps = task.distribution(rollout).log_prob(rollout.actions)
        found.append(-torch.autograd.grad(reinforce_loss(logps, advantages, rollout.mask), bias)[0])
    estimates = torch.stack(found)
    error = estimates.std(0) / len(estimates) ** 0.5
    assert ((estimates.mean(0) - exact).abs() < 4 * error).all() and float(error.max()) < 0.05 * float(
        exact.max()
    )


def test_the_baseline_to_go_is_the_mean_of_the_others_that_are_under_way():
    returns = torch.tensor([[6.0, 3.0, 1.0], [4.0, 2.0, 0.0], [2.0, 9.0, 9.0]])
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    expected = [[6 - 3.0, 3 - 2.0, 0.0], [4 - 4.0, 2 - 3.0, 0.0], [2 - 5.0, 0.0, 0.0]]
    assert leave_one_out_to_go(returns, torch.zeros(3), mask).tolist() == expected
    assert leave_one_out_to_go(returns, torch.tensor([0, 1, 0]), mask)[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.9, 0.8), (0.97, 1.0), (0.9, 0.0)])
def test_gae_of_a_rollout_with_ends_and_cuts_is_that_of_a_loop_written_by_hand(gamma, gae_lambda):
    task = ControlTask(short_cartpole, 3, 40, seed=2)
    taken, step = [], task.world.step
    task.world.step = lambda actions: taken.append(step(actions)) or taken[-1]
    task.collect({})  # so that the second begins amid episodes
    taken.clear()
    rollout = task.collect({}).rollout
    found = gae(rollout.rewards, rollout.values, rollout.dones, gamma, gae_lambda, rollout.last_values)

    with torch.no_grad():
        after = task.value(torch.from_numpy(np.stack([s.observations for s in taken]))).squeeze(-1)
    ends = {"terminated": 0, "truncated": 0}
    for copy_ in range(3):
        carried = 0.0
        for t in reversed(range(40)):
            s = taken[t]
            if not s.counts[copy_]:
                carried = 0.0
                continue
            following = 0.0 if s.terminated[copy_] else float(after[t, copy_])
            if s.terminated[copy_] or s.truncated[copy_]:
                carried = 0.0
                ends["terminated" if s.terminated[copy_] else "truncated"] += 1
            error = float(s.rewards[copy_]) + gamma * following - float(rollout.values[copy_, t])
            carried = error + gamma * gae_lambda * carried
            assert bool(rollout.mask[copy_, t])
            assert float(found[copy_, t]) == pytest.approx(carried, abs=1e-5)
    assert min(ends.values()) >= 2
    assert int(rollout.mask.sum()) == sum(int(s.counts.sum()) for s in taken) < 120


def test_a_rollout_holds_what_the_policy_did_and_saw():
    task = ControlTask("CartPole-v1", 4, 30, seed=0)
    collected = task.collect({})
    rollout = collected.rollout
    assert rollout.inputs.shape == (4, 30, 4) and rollout.actions.shape == (4, 30)
    with torch.no_grad():
        outputs = task.outputs(rollout)
        assert torch.equal(outputs.distribution.log_prob(rollout.actions), rollout.logps)
        assert torch.allclose(outputs.values, rollout.values)
    assert (rollout.rewards[rollout.mask] == 1).all()
    assert collected.scalars["env_steps"] == int(rollout.mask.sum())
    assert set(rollout.actions.flatten().tolist()) == {0, 1}
    assert torch.equal(rollout.rows(torch.tensor([2, 0])).inputs, rollout.inputs[[2, 0]])


def test_without_a_value_function_a_row_is_one_whole_episode():
    task = ControlTask(short_cartpole, 6, 1, seed=0, value=False)
    for _ in range(2):
        collected = task.collect({})
        rollout = collected.rollout
        lengths = rollout.mask.sum(1)
        assert rollout.mask[:, 0].all() and 9 <= int(lengths.max()) <= 20
        assert (rollout.rewards.sum(1) == lengths).all() and (rollout.dones.sum(1) == 1).all()
        assert collected.scalars["episode/return"] == pytest.approx(float(lengths.double().mean()))
        assert (rollout.inputs[:, 0].abs() <= 0.05).all()  # CartPole begins there
    assert collected.scalars["episode/length_100"] != collected.scalars["episode/length"]


@pytest.mark.parametrize("max_kl", [0.003, 0.1])
def test_trpo_keeps_its_bound_on_cartpole(max_kl):
    run = recipes.TRPOControl(max_kl=max_kl, **SMALL["trpo"], steps=8).build()
    task, collect, kept = run.task, run.task.collect, []
    task.collect = lambda knobs: kept.append(collect(knobs)) or kept[-1]
    taken = 0
    for _ in range(8):
        before = copy.deepcopy(run.policy)
        record = next(run)
        rollout = kept[-1].rollout
        with torch.no_grad():
            old, new = before(rollout.inputs).logits, run.policy(rollout.inputs).logits
        kl = float(masked_mean(categorical_kl(old, new), rollout.mask))
        assert (
            0 <= kl <= record.scalars["trpo/max_kl"] * (1 + 1e-4) and record.scalars["trpo/max_kl"] <= max_kl
        )
        assert record.scalars["trpo/kl_old"] == pytest.approx(kl, rel=1e-3, abs=1e-6)
        taken += record.scalars["trpo/share"] > 0
    assert taken >= 6


@pytest.mark.parametrize("world", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("name", BUILD)
def test_a_stopped_run_continues_bit_for_bit_from_its_file(name, world, tmp_path):
    settings = {**SMALL[name], "steps": 6, "evaluate_every": 4}
    recipe = BUILD[name](world=world, seed=1, **settings)
    whole = list(recipe.build())
    assert whole == list(recipe.build())
    assert whole != list(recipe.but(seed=2).build())
    stopped = recipe.build()
    for _ in range(3):
        next(stopped)
    write_checkpoint(tmp_path / "state", stopped.state_dict(), 3)
    fresh = recipe.build()
    fresh.load_state_dict(read_checkpoint(tmp_path / "state")[1])
    assert list(fresh) == whole[3:]


@pytest.mark.parametrize("name", BUILD)
def test_cartpole_is_learnt(name):
    run = BUILD[name](steps={"reinforce": 20, "ppo": 25, "trpo": 25}[name], evaluate_every=1000).build()
    records = list(run)
    assert records[0].estimated["return"] < 40 and records[-1].estimated["return"] > 150
    assert records[-1].estimated["solved"] == 475.0


def test_the_ratios_that_are_clipped_are_told_apart():
    few = {**SMALL["ppo"], "epochs": 10, "minibatches": 1}
    for clip_range in (0.05, 10.0):
        record = next(recipes.PPOControl(clip_range=clip_range, learning_rate=1e-2, **few).build())
        ratio, clipped = record.arrays["ratio"], record.arrays["ratio_clipped"]
        assert set(clipped) <= set(ratio) and len(ratio) == record.scalars["env_steps"]
        assert all(abs(r - 1) > clip_range for r in clipped)
        beyond = sum(abs(r - 1) > clip_range for r in ratio)
        assert (len(clipped), beyond) == (0, 0) if clip_range == 10 else 0 < len(clipped) <= beyond


def test_gamma_is_a_knob_and_beta_is_none():
    run = recipes.PPOControl(**SMALL["ppo"], gamma=0.9).build()
    assert set(next(run).knobs) == {"learning_rate", "clip_range", "gae_lambda", "epochs", "gamma"}
    run.knobs.gamma = 0.5
    assert run.gamma(next(run).knobs) == 0.5
    with pytest.raises(ValueError, match=r"gamma must be a number ≥ 0 and ≤ 1, got 1.5"):
        run.knobs.gamma = 1.5
    with pytest.raises(ValueError, match="unknown knob beta"):
        run.knobs.beta = 1.0
    assert run.name == "ppo-control"


def test_gamma_changes_what_is_learnt_from_the_same_rollout():
    values = {}
    for gamma in (0.5, 0.99):
        run = recipes.PPOControl(**SMALL["ppo"], gamma=gamma, steps=1).build()
        values[gamma] = next(run).scalars["loss/value_avg"]
    assert values[0.99] > 1.5 * values[0.5]  # returns are larger where the future counts


def test_an_evaluation_is_of_fresh_episodes_and_leaves_the_training_alone():
    run = recipes.PPOControl(**SMALL["ppo"]).build()
    next(run)
    before = copy.deepcopy(run.task.position())
    first, again = run.task.judge({}), run.task.judge({})
    assert first == again and first.estimated["return"] == first.estimated["length"] > 5
    after = run.task.position()
    assert torch.equal(before["generator"], after["generator"])
    assert torch.equal(before["world"]["observations"], after["world"]["observations"])
    episodes = play(run.policy, ControlWorld("CartPole-v1", 20, 0), 0).episodes()
    world = ControlWorld("CartPole-v1", 20, 0)
    world.reset(3)
    drawn = act(run.policy, world, torch.Generator().manual_seed(3), 500, one_episode=True)
    assert torch.equal(play(run.policy, ControlWorld("CartPole-v1", 20, 0), 3).actions, drawn.actions)
    mean = sum(episode.total for episode in episodes) / 20
    assert first.estimated["return"] == pytest.approx(mean)
    spread = sum((episode.total - mean) ** 2 for episode in episodes) / 19
    assert first.estimated["return_se"] == pytest.approx(math.sqrt(spread / 20))
    single = ControlTask("CartPole-v1", envs=2, horizon=8, seed=0, episodes=1).judge({}).estimated
    assert (
        single["return"] > 5 and not {"return_se", "length_se"} & single.keys()
    )  # one episode shows no spread


@pytest.mark.parametrize("world", ["CartPole-v1", "Pendulum-v1"])
def test_steps_taken_in_parts_are_those_taken_at_once(world, monkeypatch):
    policy, judged = ControlTask(world, 1, 8, seed=0).policy, ControlWorld(world, 3, 0)
    whole = play(policy, judged, 7)
    monkeypatch.setattr(control_task, "ROOM", 3 * 5 * 20)
    parts, act = [], control_task._act
    monkeypatch.setattr(control_task, "_act", lambda *given: parts.append(given) or act(*given))
    again = play(policy, judged, 7)
    assert len(parts) > 1
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_a_time_limit_that_is_never_met_costs_no_memory(name, monkeypatch):
    made, empty = [], np.empty
    monkeypatch.setattr(
        np, "empty", lambda shape, **kind: made.append(np.prod(shape)) or empty(shape, **kind)
    )
    long = BUILD[name](
        world=lambda: gymnasium.make("CartPole-v1", max_episode_steps=10**9), evaluate_every=1, **SMALL[name]
    )
    run = long.build()
    assert next(run).estimated["length"] > 5
    assert max(made) < 10**6


@pytest.mark.parametrize("name", BUILD)
def test_an_environment_that_fails_in_the_training_is_no_divergence(name):
    class Breaks(Aim):
        def step(self, action):
            raise KeyError("my bug")

    run = BUILD[name](world=lambda: gymnasium.wrappers.TimeLimit(Breaks(), 2), **SMALL[name]).build()
    with pytest.raises(
        Fault, match=r"^Breaks: step failed: KeyError: 'my bug' \(test_control.py, line \d+\)$"
    ):
        next(run)
    assert run.step == 0


@pytest.mark.parametrize("name", BUILD)
def test_an_environment_that_returns_nan_ends_the_run_with_one_line(name):
    class Broken(Aim):
        def step(self, action):
            return np.full(1, math.nan, np.float32), 0.0, True, False, {}

    run = BUILD[name](world=lambda: gymnasium.wrappers.TimeLimit(Broken(), 2), **SMALL[name]).build()
    with pytest.raises(
        TrainingDiverged, match=r"^Broken returned observations that are not finite: nan for copy 0"
    ):
        next(run)


def test_weights_that_are_no_numbers_are_not_the_environments_fault():
    run = recipes.PPOControl(world="Pendulum-v1", **SMALL["ppo"]).build()
    with torch.no_grad():
        run.policy.net.biases[-1].fill_(math.nan)
    with pytest.raises(TrainingDiverged, match="Pendulum-v1 was given actions that are not finite"):
        next(run)
    run = recipes.PPOControl(**SMALL["ppo"]).build()
    with torch.no_grad():
        run.policy.net.biases[-1].fill_(math.nan)
    with pytest.raises(TrainingDiverged, match="policy/entropy_avg became NaN or infinite at step 1"):
        next(run)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("trpo", {"max_kl": 0.0}, "max_kl must be a number > 0, got 0.0"),
        ("trpo", {"max_kl": -0.01}, "max_kl must be a number > 0, got -0.01"),
        ("ppo", {"clip_range": 0.0}, "clip_range must be a number > 0 and ≤ 10, got 0.0"),
        ("ppo", {"clip_range": -0.2}, "clip_range must be a number > 0 and ≤ 10, got -0.2"),
        ("ppo", {"minibatches": 5}, "minibatches must be ≤ envs = 4, got 5"),
        ("ppo", {"horizon": 0}, "horizon must be a whole number ≥ 1, got 0"),
        ("ppo", {"envs": 0, "minibatches": 1}, "envs must be a whole number ≥ 1, got 0"),
        ("ppo", {"steps": 0}, "steps must be a whole number ≥ 1, got 0"),
        ("reinforce", {"gamma": 2.0}, "gamma must be a number ≥ 0 and ≤ 1, got 2.0"),
        (
            "reinforce",
            {"world": "Mars-v0"},
            "unknown world 'Mars-v0'; use micro, reviews or an environment's id",
        ),
        ("reinforce", {"world": Aim}, "REINFORCE needs whole episodes, and Aim has no time limit"),
    ],
)
def test_bad_settings_are_one_line(name, settings, says):
    with pytest.raises(ValueError, match=f"^{says}") as caught:
        BUILD[name](**settings).build()
    assert "\n" not in str(caught.value)
