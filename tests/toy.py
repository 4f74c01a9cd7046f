"""A toy algorithm with everything a run must keep: weights, tied ones too, an optimiser, random state, fresh pairs.

And recipes of it, found by name as `rlhflab.recipes` has the real ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rlhflab.core.algorithm import TrainingDiverged
from rlhflab.core.knobs import Knob, Knobs
from rlhflab.core.recipe import Recipe
from rlhflab.core.record import Backdrop, Pairs, Record, Sample
from rlhflab.core.settings import knob, setting

BACKDROP = Backdrop(
    beta=(0.1, 1.0, 10.0),
    kl=(4.0, 1.0, 0.1),
    reward=(3.0, 2.0, 1.1),
    objective=(2.6, 1.0, 0.1),
    ref_reward=1.0,
)


BETA = Knob(1.0, 0.01, 10.0)


class ToyKnobs(Knobs):
    specs = {"beta": BETA, "learning_rate": Knob(0.01, 1e-5, 1.0)}


class Toy:
    """Follows the algorithm contract; every number in a record depends on all of its state."""

    name = "dpo"
    backdrop = BACKDROP

    def __init__(self, steps=10, beta=1.0, seed=0, diverge_at=0, pause=0.0):
        self.knobs = ToyKnobs(beta=beta)
        self.steps, self.step, self.diverge_at, self.pause = steps, 0, diverge_at, pause
        self.weight = torch.nn.Parameter(torch.zeros(3, 2))
        self.tied = self.weight
        self.adam = torch.optim.Adam([self.weight])
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self):
        return self

    def __next__(self):
        if self.step == self.steps:
            raise StopIteration
        time.sleep(self.pause)
        knobs = self.knobs.snapshot()
        if self.step + 1 == self.diverge_at:
            raise TrainingDiverged(f"loss is nan at step {self.step + 1} with {self.knobs}")
        noise = torch.rand(3, 2, generator=self.generator)
        loss = ((self.weight - noise) ** 2).mean() * knobs["beta"]
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.step += 1
        ids = (2 * self.step, 2 * self.step + 1, 0)
        numbers = tuple(self.weight.detach()[:, 0].tolist())
        pairs = Pairs(
            ids=ids,
            prompts=tuple(f"prompt {i}" for i in ids),
            chosen=tuple(f"good {i}\n" for i in ids),
            rejected=tuple(f"bad {i}" for i in ids),
            chosen_rewards=numbers,
            rejected_rewards=tuple(-number for number in numbers),
            weights=tuple(torch.sigmoid(self.weight.detach()[:, 1]).tolist()),
            flipped=tuple(bool(i % 2) for i in ids),
        )
        kl = 0.01 * self.step
        exact = {
            "reward": 1 + kl, "ref_reward": 1.0, "kl": kl, "objective": 1.0, "optimum": 2.0, "regret": 1.0,
            "frontier_reward": 1 + 2 * kl, "efficiency": 0.5,
        }  # fmt: skip
        return Record(
            step=self.step,
            scalars={
                "loss": loss.item(),
                "rewards/chosen": numbers[0],
                "rewards/rejected": -numbers[0],
                "grad_norm": math.inf,
            },
            knobs=knobs,
            pairs=pairs,
            samples=(Sample("the plot", "was", "is", None, 1.5),) if self.step % 5 == 0 else (),
            exact=exact if self.step % 2 == 0 else None,
        )

    def rewind(self):
        return True  # it fails before it has drawn anything

    def state_dict(self):
        return {
            "weight": self.weight,
            "tied": self.tied,
            "adam": self.adam.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "knobs": self.knobs.snapshot(),
            "odd": {"none": None, "flag": True, "nan": math.nan, "pair": (1, [2.5, "x"])},
        }

    def load_state_dict(self, state):
        with torch.no_grad():
            self.weight.copy_(state["weight"])
        self.adam.load_state_dict(state["adam"])
        self.generator.set_state(state["generator"])
        self.step = state["step"]
        for name, value in state["knobs"].items():
            setattr(self.knobs, name, value)
        self.odd = state["odd"]


@dataclass(frozen=True, kw_only=True)
class Plain(Recipe):
    """A toy of few settings, that refuses to be built too long."""

    steps: int = setting(10, "Updates to make", at_least=1)
    beta: float = knob(1.0, BETA)
    seed: int = setting(0, "The same seed gives the same run", at_least=0)

    def build(self) -> Toy:
        if self.steps > 50:
            raise ValueError(f"steps must be ≤ 50, got {self.steps}")
        return Toy(self.steps, self.beta, self.seed)


@dataclass(frozen=True, kw_only=True)
class ToyRecipe(Plain):
    """One with a few more."""

    algorithm = name = "toy"

    diverge_at: int = setting(0, "The update that is not a number; 0: none")
    progress: bool = setting(True, "Show bars", option=False)

    def build(self) -> Toy:
        return Toy(self.steps, self.beta, self.seed, self.diverge_at)


TOYS = {"toy": ToyRecipe, "plain": Plain}


def recipe_class(name: str, world: str | None = None) -> type[Plain]:
    """The toys' recipes by name, as `rlhflab.recipes.recipe_class` has the real ones."""
    return TOYS[name]


def from_config(config: Mapping[str, Any]) -> Plain:
    """As `rlhflab.recipes.from_config`."""
    settings = dict(config)
    return TOYS[settings.pop("algorithm")](**settings)


def train_without_end(folder: str) -> None:
    """Run until killed, a checkpoint every 7 steps, each one announced on stdout."""
    from rlhflab.runs.store import Run

    toy = Toy(steps=10**9)
    run = Run.create(folder, {"steps": 10**9}, toy.backdrop)
    for record in toy:
        run.append(record)
        if record.step % 7 == 0:
            run.save_checkpoint(toy)
            print(record.step, flush=True)
