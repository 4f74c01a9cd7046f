"""REINFORCE, TRPO and PPO on a table of logits, against the same updates written out by hand."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical

from rlhflab.algorithms.ppo import PPO
from rlhflab.algorithms.reinforce import Reinforce
from rlhflab.algorithms.trpo import TRPO
from rlhflab.core.record import Evaluated
from rlhflab.settings.ppo import PPOControlSettings, PPOSettings
from rlhflab.settings.reinforce import ReinforceControlSettings
from rlhflab.settings.trpo import TRPOControlSettings
from rlhflab.tasks.rollout import Collected, Outputs, Rollout

SEED, STATES, ACTIONS, GAMMA = 8, 3, 4, 0.95  # with this seed a wide step is refused at first
LENGTHS = (3, 2, 3, 1, 3, 2)


class Table:
    """A policy with one logit for each state and action, and a value for each state, on one fixed rollout."""

    kind, backdrop = "language", None

    def __init__(self):
        draw = torch.Generator().manual_seed(SEED)

        def normal(*shape):
            return torch.randn(*shape, dtype=torch.float64, generator=draw)

        self.policy, self.value = nn.Module(), nn.Module()
        self.policy.table = nn.Parameter(normal(STATES, ACTIONS))
        self.value.table = nn.Parameter(normal(STATES))
        shape = len(LENGTHS), max(LENGTHS)
        mask = torch.arange(shape[1]) < torch.tensor(LENGTHS).unsqueeze(1)
        states = torch.randint(STATES, shape, generator=draw)
        actions = torch.randint(ACTIONS, shape, generator=draw)
        ended = mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
        logps = self.policy.table.detach().log_softmax(-1)[states, actions]
        self.rollout = Rollout(
            inputs=states, actions=actions, logps=(logps + 0.1 * normal(*shape)) * mask,
            rewards=2 * normal(*shape) * mask, values=(self.value.table.detach()[states]) * mask, dones=ended,
            mask=mask, groups=torch.tensor([0, 0, 1, 1, 1, 2]), last_values=torch.zeros(len(mask)).double(),
        )  # fmt: skip

    def policy_parameters(self):
        return [self.policy.table]

    def value_parameters(self):
        return [self.value.table]

    def collect(self, knobs):
        return Collected(self.rollout, {})

    def distribution(self, rollout, twice=False):
        return Categorical(logits=self.policy.table[rollout.inputs])

    def values(self, rollout):
        return self.value.table[rollout.inputs]

    def outputs(self, rollout):
        return Outputs(self.distribution(rollout), self.values(rollout))

    def judge(self, knobs):
        return Evaluated()

    def position(self):
        return {}

    def release(self):
        pass


class Adam:
    """Kingma & Ba's algorithm 1, with gradients scaled down to a norm before it."""

    def __init__(self, parameters, max_norm, eps=1e-8):
        self.parameters, self.max_norm, self.eps, self.t = parameters, max_norm, eps, 0
        self.m, self.v = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
        self.norms = []

    def step(self, loss, rate):
        gradients = torch.autograd.grad(loss, self.parameters)
        self.norms.append(math.sqrt(sum(float((g**2).sum()) for g in gradients)))
        self.t += 1
        for at, (p, g) in enumerate(zip(self.parameters, gradients, strict=True)):
            g = g * min(1.0, self.max_norm / (self.norms[-1] + 1e-6))
            self.m[at] = 0.9 * self.m[at] + 0.1 * g
            self.v[at] = 0.999 * self.v[at] + 0.001 * g**2
            m, v = self.m[at] / (1 - 0.9**self.t), self.v[at] / (1 - 0.999**self.t)
            p.data -= rate * m / (v.sqrt() + self.eps)


def estimates(rollout, gae_lambda):
    """Advantages as the sum Σ_k (γλ)^k·δ_{t+k}, and returns."""
    advantages = torch.zeros_like(rollout.rewards)
    for row, length in enumerate(LENGTHS):
        r, v = rollout.rewards[row], [*rollout.values[row, :length], 0.0]
        errors = [r[t] + GAMMA * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            advantages[row, t] = sum((GAMMA * gae_lambda) ** (k - t) * errors[k] for k in range(t, length))
    return advantages, advantages + rollout.values


def white(advantages, mask):
    chosen = advantages[mask]
    return (advantages - chosen.mean()) / ((chosen - chosen.mean()) ** 2).mean().sqrt()


def copies(task):
    return [p.detach().clone().requires_grad_() for p in (task.policy.table, task.value.table)]


def ppo_by_hand(task, config):
    """Tables after one iteration, and what its record should say of the updates."""
    table, value = copies(task)
    adam = Adam([table, value], config.max_grad_norm, config.adam_eps)
    advantages, returns = estimates(task.rollout, config.gae_lambda)
    if config.whiten_advantages:
        advantages = white(advantages, task.rollout.mask)
    order, found = torch.Generator().manual_seed(config.seed), []
    for _ in range(config.epochs):
        for rows in torch.randperm(len(LENGTHS), generator=order).chunk(config.minibatches):
            on, A, goal = task.rollout.rows(rows), advantages[rows], returns[rows]
            policy_loss = value_loss = entropy = clipped_steps = kl = 0.0
            for row, t in on.mask.nonzero().tolist():
                p = table[on.inputs[row, t]].softmax(0)
                ratio = p[on.actions[row, t]] / on.logps[row, t].exp()
                clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
                policy_loss = policy_loss - torch.min(ratio * A[row, t], clipped * A[row, t])
                outside = abs(float(ratio.detach()) - 1) > config.clip_range
                clipped_steps += outside and (ratio.detach() > 1) == (A[row, t] > 0)
                kl += float((ratio - 1 - ratio.log()).detach())
                entropy = entropy - (p * p.log()).sum()
                v, old = value[on.inputs[row, t]], on.values[row, t]
                error = (v - goal[row, t]) ** 2
                if config.value_clip is not None:
                    held = old + (v - old).clamp(-config.value_clip, config.value_clip)
                    error = torch.max(error, (held - goal[row, t]) ** 2)
                value_loss = value_loss + error / 2
            n = int(on.mask.sum())
            policy_loss, value_loss, entropy = policy_loss / n, value_loss / n, entropy / n
            adam.step(
                policy_loss + config.value_coef * value_loss - config.entropy_coef * entropy,
                config.learning_rate,
            )
            found.append(
                (float(policy_loss.detach()), float(value_loss.detach()), float(clipped_steps) / n, kl / n)
            )
    means = [sum(column) / len(found) for column in zip(*found, strict=True)]
    means += [sum(adam.norms) / len(found), found[-1][-1], len(found), explained(task.rollout, returns)]
    return table.detach(), value.detach(), means


def explained(rollout, returns):
    mask = rollout.mask
    errors = (returns - rollout.values)[mask]
    return float(1 - errors.var(correction=0) / returns[mask].var(correction=0))


PLAIN = {
    "minibatches": 2, "schedule": "constant", "max_grad_norm": 100.0, "adam_eps": 0.01, "value_coef": 0.5,
    "learning_rate": 0.1, "clip_range": 0.2, "gae_lambda": 0.8, "epochs": 3,
}  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"entropy_coef": 0.3}, {"value_coef": 0.0}, {"value_coef": 2.0}, {"value_clip": 0.05},
        {"whiten_advantages": False}, {"adam_eps": 1e-8}, {"max_grad_norm": 0.05}, {"minibatches": 3}, {"seed": 5},
        {"clip_range": 0.05}, {"gae_lambda": 0.2}, {"epochs": 1}, {"learning_rate": 0.02},
    ],
    ids=str,
)  # fmt: skip
def test_an_iteration_of_ppo_is_the_one_by_hand_and_every_setting_acts(settings):
    task = Table()
    config = PPOControlSettings(**{"gamma": GAMMA, **PLAIN, **settings})
    expected = ppo_by_hand(task, config)
    plain = ppo_by_hand(task, PPOControlSettings(gamma=GAMMA, **PLAIN))
    record = next(PPO(task, config))
    assert torch.allclose(task.policy.table, expected[0], rtol=1e-9, atol=0)
    assert torch.allclose(task.value.table, expected[1], rtol=1e-9, atol=0)
    names = (
        "loss/policy_avg", "loss/value_avg", "policy/clipfrac_avg", "policy/kl_old_k3", "grad_norm",
        "policy/kl_old_k3_last", "policy/updates", "val/explained_variance",
    )  # fmt: skip
    assert [record.scalars[name] for name in names] == pytest.approx(expected[2], rel=1e-6)
    assert record.scalars["learning_rate"] == config.learning_rate
    if settings:
        assert not all(torch.allclose(a, b, rtol=1e-3) for a, b in zip(plain[:2], expected[:2], strict=True))


def test_ppo_adapts_beta_by_the_share_of_the_horizon():
    def beta(kl):
        task = Table()
        task.collect = lambda knobs: Collected(task.rollout, {"objective/kl": kl})
        run = PPO(task, PPOSettings(**PLAIN, kl_target=2.0, kl_horizon=60, beta=0.5))
        next(run)
        return run.knobs.beta

    assert beta(2.2) == pytest.approx(0.5 * (1 + 0.1 * 6 / 60))
    assert beta(9.0) == pytest.approx(0.5 * (1 + 0.2 * 6 / 60))
    assert beta(0.0) == pytest.approx(0.5 * (1 - 0.2 * 6 / 60))


class Steps:
    """What TRPO should do with the table, by dense linear algebra; the Fisher matrix is that of the first `rows`."""

    def __init__(self, task, damping, gae_lambda, rows=6):
        on = self.on = task.rollout
        self.start, self.mask = task.policy.table.detach().clone(), on.mask
        self.old = self.start.softmax(-1)
        self.advantages = white(estimates(on, gae_lambda)[0], on.mask)
        n, size = int(on.mask.sum()), STATES * ACTIONS
        g, H = torch.zeros(size).double(), damping * torch.eye(size).double()
        for row, t in on.mask.nonzero().tolist():
            state, action = int(on.inputs[row, t]), int(on.actions[row, t])
            p, at = self.old[state], slice(state * ACTIONS, (state + 1) * ACTIONS)
            ratio = p[action] / on.logps[row, t].exp()
            g[at] += ratio * self.advantages[row, t] * (torch.eye(ACTIONS)[action] - p) / n
            if row < rows:
                H[at, at] += (torch.diag(p) - torch.outer(p, p)) / int(on.mask[:rows].sum())
        self.g, self.x = g, torch.linalg.solve(H, g)
        self.norm = float(self.x @ H @ self.x)

    def at(self, share, max_kl):
        """Table, gain and KL at a share of the full step."""
        step = share * math.sqrt(2 * max_kl / self.norm) * self.x
        table = self.start + step.view(STATES, ACTIONS)
        new, gain, kl = table.softmax(-1), 0.0, 0.0
        for row, t in self.mask.nonzero().tolist():
            state, action = int(self.on.inputs[row, t]), int(self.on.actions[row, t])
            ratios = [float(p[state, action] / self.on.logps[row, t].exp()) for p in (new, self.old)]
            gain += (ratios[0] - ratios[1]) * float(self.advantages[row, t])
            kl += float((self.old[state] * (self.old[state] / new[state]).log()).sum())
        n = int(self.mask.sum())
        return table, gain / n, kl / n, float(self.g @ step)


TRUST = {
    "gamma": GAMMA, "schedule": "constant", "cg_iterations": 60, "damping": 0.01, "fisher_share": 1.0,
    "max_grad_norm": 100.0, "minibatches": 4, "value_epochs": 4,
}  # fmt: skip


@pytest.mark.parametrize("preconditioned", [True, False])
@pytest.mark.parametrize("max_kl", [0.01, 0.3])
def test_an_iteration_of_trpo_is_the_one_by_hand(max_kl, preconditioned):
    task = Table()
    hand = Steps(task, TRUST["damping"], 0.8)
    value = copies(task)[1]
    on = {"max_kl": max_kl, "gae_lambda": 0.8, "preconditioned": preconditioned, "value_learning_rate": 0.1}
    config = TRPOControlSettings(**TRUST, **on)
    record = next(TRPO(task, config))
    shares = [0.8**k for k in range(config.line_search_tries)]
    taken = next(s for s in shares if hand.at(s, max_kl)[1] > 0 and hand.at(s, max_kl)[2] <= max_kl)
    assert (taken < 1) == (max_kl == 0.3)
    table, gain, kl, predicted = hand.at(taken, max_kl)
    assert torch.allclose(task.policy.table, table, rtol=1e-4)
    expected = {
        "trpo/share": taken, "trpo/gain": gain, "trpo/kl_old": kl, "trpo/predicted_gain": predicted,
        "trpo/predicted_kl_old": taken**2 * max_kl, "trpo/max_kl": max_kl, "grad_norm": float(hand.g.norm()),
    }  # fmt: skip
    assert {name: record.scalars[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert record.arrays["line_search/share"] == pytest.approx(shares[: shares.index(taken) + 1])
    assert record.arrays["line_search/kl"][-1] == record.scalars["trpo/kl_old"]
    assert record.arrays["line_search/gain"][-1] == record.scalars["trpo/gain"]

    adam, order, losses = Adam([value], 100.0), torch.Generator().manual_seed(0), []
    returns, mask = estimates(task.rollout, 0.8)[1], task.rollout.mask
    for _ in range(config.value_epochs):
        for rows in torch.randperm(len(LENGTHS), generator=order).chunk(config.minibatches):
            errors = (value[task.rollout.inputs[rows]] - returns[rows])[mask[rows]]
            loss = 0.5 * (errors**2).mean()
            losses.append(float(loss.detach()))
            adam.step(loss, 0.1)
    assert torch.allclose(task.value.table, value, rtol=1e-9)
    assert record.scalars["loss/value_avg"] == pytest.approx(sum(losses) / len(losses))
    assert record.scalars["val/explained_variance"] == pytest.approx(explained(task.rollout, returns))


def test_trpo_takes_a_refused_step_back():
    task = Table()
    before = task.policy.table.detach().clone()
    config = TRPOControlSettings(**TRUST, line_search_tries=1, max_kl=0.3, gae_lambda=0.8)
    record = next(TRPO(task, config))
    tried = Steps(Table(), TRUST["damping"], 0.8).at(1.0, 0.3)
    assert tried[2] > 0.3 and record.arrays["line_search/kl"] == pytest.approx((tried[2],), rel=1e-4)
    assert torch.equal(task.policy.table, before)
    names = "share", "gain", "kl_old", "predicted_gain", "predicted_kl_old"
    assert [record.scalars[f"trpo/{name}"] for name in names] == [0] * 5


@pytest.mark.parametrize(("share", "rows"), [(0.5, 3), (0.01, 1)])
def test_the_fisher_matrix_may_be_that_of_the_first_rows(share, rows):
    task, config = (
        Table(),
        TRPOControlSettings(**{**TRUST, "fisher_share": share}, max_kl=0.01, gae_lambda=0.8),
    )
    hand = Steps(task, TRUST["damping"], 0.8, rows)
    proposal = TRPO(task, config).propose(task.rollout, hand.advantages, 0.01)
    assert torch.allclose(proposal.step.view(STATES, ACTIONS), hand.at(1.0, 0.01)[0] - hand.start, rtol=1e-4)


def test_the_schedule_acts_on_the_learning_rate():
    linear = {"schedule": "linear", "warmup": 0, "steps": 4, "learning_rate": 0.1}
    for run in (
        PPO(Table(), PPOControlSettings(**{**PLAIN, **linear})),
        Reinforce(Table(), ReinforceControlSettings(**linear)),
    ):
        rates = [
            (record.scalars["learning_rate"], run._optimiser.adam.param_groups[0]["lr"]) for record in run
        ]
        assert rates == [pytest.approx((rate, rate)) for rate in (0.1, 0.075, 0.05, 0.025)]


def test_the_schedule_acts_on_trpos_radius():
    run = TRPO(Table(), TRPOControlSettings(**{**TRUST, "schedule": "linear"}, steps=4, max_kl=0.16))
    assert [record.scalars["trpo/max_kl"] for record in run] == pytest.approx([0.16, 0.09, 0.04, 0.01])


@pytest.mark.parametrize("to_go", [True, False])
def test_an_update_of_reinforce_is_the_one_by_hand(to_go):
    task = Table()
    on, (table, _) = task.rollout, copies(task)
    returns = estimates(dataclasses.replace(on, values=torch.zeros_like(on.values)), 1.0)[0]
    advantages = torch.zeros_like(returns)
    for row, t in on.mask.nonzero().tolist():
        at = t if to_go else 0
        others = [
            float(returns[other, at])
            for other in range(len(LENGTHS))
            if other != row and on.groups[other] == on.groups[row] and LENGTHS[other] > at
        ]
        if others:
            advantages[row, t] = returns[row, at] - sum(others) / len(others)
    logps = table.log_softmax(-1)[on.inputs, on.actions]
    adam = Adam([table], 0.5)
    loss = -(advantages * logps)[on.mask].mean()
    adam.step(loss, 0.1)
    constant = {"schedule": "constant", "max_grad_norm": 0.5, "learning_rate": 0.1}
    record = next(Reinforce(task, ReinforceControlSettings(gamma=GAMMA, to_go=to_go, **constant)))
    assert torch.allclose(task.policy.table, table, rtol=1e-9)
    spread = float(advantages[on.mask].std())
    expected = {"loss/policy_avg": float(loss.detach()), "grad_norm": adam.norms[0], "advantages/std": spread}
    assert {name: record.scalars[name] for name in expected} == pytest.approx(expected)
