"""How often the truth lies within two standard errors of every estimate that is shown with some: `make calibration`.

    python -m tests.calibration [--repetitions 400]

The estimates are those of the package, made again and again from samples whose truth is known:

- the micro world, all of whose answers are listed;
- the reviews world as a finite one: some 60,000 answers of π_ref and of a policy at KL 5, each weighed by
  π_ref over the mixture that drew it, so that the rare good answers are there too. What a policy earns is compared with
  a hundred times as many of its answers as an evaluation takes;
- episodes of CartPole, held-out texts, trajectories on the grid: 40 to 100 times as many as are shown.

An estimate may be left out (J* of a small β is), and is then judged where it is shown. A bound must hold as often.
Prints a line for each and exits with 1 where the truth lay within less than 90 %.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhflab import recipes
from rlhflab.data.sampled import Drawn, draw_answers, drawn_logps, joined
from rlhflab.evaluation.evaluators import BACKDROP_BETAS, estimated_backdrop, per_token, standing
from rlhflab.evaluation.reward_judge import model_standing
from rlhflab.explore.grid import ENDS, STEP_REWARD, TRAJECTORIES, GridExplorable
from rlhflab.models.logps import Compared, compare_policies, frozen_sequence_logps
from rlhflab.objectives.best_of_n import best_of_n_logps
from rlhflab.objectives.importance import average, best_of_n_estimate, mean_estimate
from rlhflab.recipes.reference import encode_texts, tiny_reference
from rlhflab.recipes.supervised import HELD_OUT
from rlhflab.recipes.worlds import world_named
from rlhflab.tasks.control import play
from rlhflab.worlds.control import ControlWorld
from rlhflab.worlds.micro import MicroWorld, ReferencePoint

WANTED = 0.9
SAMPLES, REF_SAMPLES, JUDGE_SAMPLES, BEST_OF = 512, 1000, 400, 250  # what the evaluators take
BETAS = (3.0, 1.5, 1.0, 0.5, 0.3, 0.15)
RARE = 10  # repetitions that show an estimate, below which nothing is said of it

Found = Mapping[str, float]


class Answers(NamedTuple):
    """A policy's answers, all of them equally likely, and what they earn: all [prompts, answers]."""

    rewards: Tensor
    compared: Compared

    def some(self, count: int, generator: torch.Generator) -> Answers:
        """Draw `count` a prompt, with replacement."""
        at = torch.randint(self.rewards.shape[1], (len(self.rewards), count), generator=generator)
        return Answers(
            self.rewards.gather(1, at), Compared(*(table.gather(1, at) for table in self.compared))
        )


class World(NamedTuple):
    """A world as two tables, log π_ref and r of every answer, [prompts, answers], and policies' answers."""

    name: str
    ref_logps: Tensor
    rewards: Tensor
    policies: Mapping[str, Answers]

    def ref_answers(self, count: int, generator: torch.Generator) -> Tensor:
        """Positions of `count` answers of π_ref a prompt: [prompts, count]."""
        cdf = self.ref_logps.exp().cumsum(1)
        heights = torch.rand(len(cdf), count, dtype=torch.float64, generator=generator) * cdf[:, -1:]
        return torch.searchsorted(cdf, heights).clamp_(max=cdf.shape[1] - 1)

    def optimum(self, beta: float) -> float:
        """J*."""
        return beta * float((self.ref_logps + self.rewards / beta).logsumexp(1).mean())


def policies_of(name: str, beta: float) -> dict[str, Any]:
    """PPO's policy with the true reward, near the reference and where its KL from it first is 5."""
    run, found = recipes.PPO(world=name, beta=beta, evaluate_every=10**9, progress=False).build(), {}
    for record in run:
        kl = record.scalars["objective/kl"]
        if kl > 0.02 and "near" not in found:
            found["near"] = copy.deepcopy(run.policy)
        if kl >= 5:
            break
    return {**found, "KL 5": run.policy}


def answers_of(world: Any, policy: Any, ref_policy: Any, count: int) -> tuple[Drawn, Answers]:
    prompts = torch.arange(len(world.prompts)).repeat_interleave(count)
    drawn = draw_answers(world, policy, prompts, torch.Generator().manual_seed(7))
    compared = compare_policies(policy, ref_policy, joined(world, drawn))
    tables = Compared(*(table.view(-1, count) for table in compared))
    return drawn, Answers(world.answer_rewards(*drawn).view(-1, count), tables)


def micro() -> World:
    world: MicroWorld = world_named("micro")
    ref_policy = tiny_reference(world)
    reference = ReferencePoint(world, ref_policy)
    policies = {
        where: answers_of(world, policy, ref_policy, 6000)[1]
        for where, policy in policies_of("micro", 0.1).items()
    }
    return World("micro", reference.logps, reference.rewards, policies)


def reviews() -> World:
    world = world_named("reviews")
    ref_policy = tiny_reference(world)
    trained = policies_of("reviews", 0.3)
    policies = {where: answers_of(world, policy, ref_policy, 2900)[1] for where, policy in trained.items()}
    drawn, own = answers_of(world, ref_policy, ref_policy, 1500)
    own_logps, far = drawn_logps(world, trained["KL 5"], drawn).view_as(own.rewards), policies["KL 5"]
    ref_logps = torch.cat([own.compared.ref_logps, far.compared.ref_logps], 1)
    logps = torch.cat([own_logps, far.compared.logps], 1)
    share = own.rewards.shape[1] / ref_logps.shape[1]
    mixture = torch.logaddexp(ref_logps + math.log(share), logps + math.log1p(-share))
    rewards = torch.cat([own.rewards, far.rewards], 1)
    return World("reviews", (ref_logps - mixture).log_softmax(1), rewards, policies)


class Covered:
    """Counts how often a truth lay within two standard errors, and how often an estimate was shown at all."""

    def __init__(self, repetitions: int) -> None:
        self.repetitions, self.failed = repetitions, 0

    def count(self, where: str, truth: Mapping[str, float], draw: Callable[[torch.Generator], Found]) -> None:
        """Repeat `draw`, whose NAME_se are errors and NAME_at_least bounds; every one of them needs a truth."""
        hits: defaultdict[str, list[bool]] = defaultdict(list)
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.repetitions):
            found = draw(generator)
            for name in found:
                value, true = name.removesuffix("_se"), truth.get(name.removesuffix("_at_least"))
                if value != name:
                    hits[value].append(abs(found[value] - truth[value]) <= 2 * found[name] + 1e-9)
                elif name.endswith("_at_least"):
                    hits[name].append(found[name] <= true + 1e-9)
        for name, held in hits.items():
            share = sum(held) / len(held)
            low = share < WANTED and len(held) >= RARE
            self.failed += low
            shown = "" if len(held) == self.repetitions else f"   shown {len(held) / self.repetitions:.0%}"
            print(f"{'LOW ' if low else '    '}{where:28} {name:20} {share:6.1%}{shown}", flush=True)


def policies(world: World, covered: Covered) -> None:
    """What an evaluation says of a policy and of J*."""
    for where, answers in world.policies.items():
        for beta in BETAS:
            reward, kl = float(answers.rewards.mean()), float(answers.compared.kl.mean())
            optimum, objective = world.optimum(beta), reward - beta * kl
            truth = {
                "reward": reward, "kl_rb": kl, "objective": objective, "optimum": optimum, "log_z": optimum / beta,
                "regret": optimum - objective,
                "ref_reward": float((world.ref_logps.exp() * world.rewards).sum(1).mean()),
            }  # fmt: skip

            def draw(generator: torch.Generator, answers: Answers = answers, beta: float = beta) -> Found:
                some = answers.some(-(-SAMPLES // len(world.rewards)), generator)
                ref_rewards = world.rewards.gather(1, world.ref_answers(REF_SAMPLES, generator))
                return standing(*some, ref_rewards, beta)

            covered.count(f"{world.name}, {where}, β = {beta:g}", truth, draw)


def frontier(world: World, covered: Covered) -> None:
    """The frontier's height at a few KLs: min_β (J* + β·KL)."""
    optima = [(beta, world.optimum(beta)) for beta in BACKDROP_BETAS.tolist()]
    kls = (0.1, 0.2, 0.4, 0.8)
    truth = {f"height at KL {kl:g}": min(best + beta * kl for beta, best in optima) for kl in kls}

    def draw(generator: torch.Generator) -> Found:
        at = world.ref_answers(REF_SAMPLES, generator)
        backdrop, found = estimated_backdrop(world.rewards.gather(1, at)), {}
        assert backdrop is not None
        for kl in kls:
            columns = zip(backdrop.beta, backdrop.objective, backdrop.reward_se, strict=True)
            height, beta, error = min((best + beta * kl, beta, error) for beta, best, error in columns)
            if beta > backdrop.beta[0]:
                found |= {f"height at KL {kl:g}": height, f"height at KL {kl:g}_se": error}
        return found

    covered.count(f"{world.name}, frontier", truth, draw)


def reward_models(world: World, covered: Covered) -> None:
    """π*_φ and best-of-n, for scores that are nearly r and for worse ones."""
    noise = torch.randn(world.rewards.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for quality, scores in (
        ("good", 0.8 * world.rewards + 0.3 * noise),
        ("bad", 0.5 * world.rewards + 0.7 * noise),
    ):
        for beta in BETAS:
            led = (world.ref_logps + scores / beta).softmax(1)
            truth = {"reward": float((led * world.rewards).sum(1).mean())}

            def judge(generator: torch.Generator, scores: Tensor = scores, beta: float = beta) -> Found:
                at = world.ref_answers(JUDGE_SAMPLES, generator)
                return model_standing(world.rewards.gather(1, at), scores.gather(1, at), beta)

            covered.count(f"{world.name}, {quality} model, β = {beta:g}", truth, judge)
        tables = {n: best_of_n_logps(world.ref_logps, scores, n).exp() for n in (1, 2, 4, 8, 16)}
        truth = {f"best of {n}": float((table * world.rewards).sum(1).mean()) for n, table in tables.items()}

        def best(
            generator: torch.Generator, scores: Tensor = scores, draws: tuple[int, ...] = tuple(tables)
        ) -> Found:
            at = world.ref_answers(BEST_OF, generator)
            found: dict[str, float] = {}
            for n in draws:
                estimate = average(best_of_n_estimate(world.rewards.gather(1, at), scores.gather(1, at), n))
                found |= {f"best of {n}": float(estimate.value), f"best of {n}_se": float(estimate.se)}
            return found

        covered.count(f"{world.name}, {quality} model", truth, best)


def texts(covered: Covered) -> None:
    """The loss on held-out texts."""
    world = world_named("reviews")
    batch = encode_texts(world, world.corpus(40 * HELD_OUT, 99, 0.3))
    for stage in ("pretrained", "sft"):
        losses = -frozen_sequence_logps(tiny_reference(world, stage), batch).double()
        tokens = batch.mask.sum(1).double()

        def draw(generator: torch.Generator, losses: Tensor = losses, tokens: Tensor = tokens) -> Found:
            at = torch.randint(len(losses), (HELD_OUT,), generator=generator)
            found = per_token(losses[at], tokens[at])
            return {"cross_entropy": float(found.value), "cross_entropy_se": float(found.se)}

        covered.count(f"held-out texts, {stage}", {"cross_entropy": float(losses.sum() / tokens.sum())}, draw)


def episodes(covered: Covered) -> None:
    """Returns of CartPole, 20 episodes an evaluation, of an untrained policy and of one on its way."""
    run = recipes.PPOControl(world="CartPole-v1").build()
    for updates in (0, 5):
        for _ in range(updates):
            next(run)
        played = play(run.policy, ControlWorld("CartPole-v1", 1000), seed=1).episodes()
        totals = torch.tensor([episode.total for episode in played], dtype=torch.float64)

        def draw(generator: torch.Generator, totals: Tensor = totals) -> Found:
            at = torch.randint(len(totals), (20,), generator=generator)
            found = mean_estimate(totals[at])
            return {"return": float(found.value), "return_se": float(found.se)}

        covered.count(f"CartPole, {updates} updates", {"return": float(totals.mean())}, draw)


def trajectory_returns(world: GridExplorable, step: Tensor, generator: torch.Generator) -> Tensor:
    """Returns of as many trajectories as the grid shows, for P(s'|s) [cells, cells]."""
    cells = "".join(world.data["rows"])
    earns = torch.tensor([ENDS.get(cell, STEP_REWARD) for cell in cells], dtype=torch.float64)
    over = torch.tensor([cell != "." for cell in cells])
    at, total = torch.full((TRAJECTORIES,), world.start), torch.zeros(TRAJECTORIES, dtype=torch.float64)
    while not over[at].all():
        after = torch.multinomial(step[at], 1, generator=generator)[:, 0]
        total += torch.where(over[at], 0.0, earns[after])
        at = torch.where(over[at], at, after)
    return total


def grid(covered: Covered) -> None:
    """The mean return of the grid's trajectories, for the settings at which it opens and for a careful policy."""
    for epsilon in (0.2, 0.0):
        world = GridExplorable(epsilon=epsilon)
        policy, values = world.exact()
        step = torch.einsum("sa,sat->st", policy, world._moves())

        def draw(generator: torch.Generator, world: GridExplorable = world, step: Tensor = step) -> Found:
            found = mean_estimate(trajectory_returns(world, step, generator))
            return {"return": float(found.value), "return_se": float(found.se)}

        covered.count(f"grid, ε = {epsilon:g}", {"return": float(values[world.start])}, draw)


def worlds() -> Iterator[World]:
    yield micro()
    yield reviews()


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--repetitions", type=int, default=400)
    covered, began = Covered(options.parse_args().repetitions), time.monotonic()
    for small in (grid, texts, episodes):
        small(covered)
    for world in worlds():
        for judge in (policies, frontier, reward_models):
            judge(world, covered)
        print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(covered.failed > 0)


if __name__ == "__main__":
    main()
