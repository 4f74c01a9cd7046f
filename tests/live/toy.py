"""A pretend DPO: the records' shapes and β's influence are right, the numbers are made up. No torch."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from typing import Any

from rlhflab.core.knobs import Knob, Knobs
from rlhflab.core.record import Backdrop, Pairs, Record, Sample

PROMPTS = (
    "the plot seemed",
    "the acting was",
    "the ending felt",
    "this film is",
    "the music was",
    "the story seemed",
)
GOOD = (
    "very good",
    "not bad",
    "really great and clever",
    "good but long",
    "clever and moving",
    "not bad at all",
)
BAD = ("not very good", "really dull", "bad and long", "not great", "slow but dull", "very bad")


class ToyKnobs(Knobs):
    specs = {
        "beta": Knob(
            default=0.3, low=0.03, high=10.0, label="β", help="Strength of the KL term: small lets go."
        ),
        "learning_rate": Knob(
            default=5e-4, low=1e-5, high=1e-2, at_most=1.0, label="learning rate", help="Step size of AdamW."
        ),
    }


def frontier(kl: float) -> float:
    return 2.2 * (1 - math.exp(-0.9 * math.sqrt(2 * kl))) - 0.3


def optimum(beta: float) -> tuple[float, float]:
    """KL and reward of the pretend π*: where the frontier's slope is β."""
    low, high = 1e-6, 30.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        slope = (frontier(middle * 1.001) - frontier(middle)) / (middle * 0.001)
        low, high = (middle, high) if slope > beta else (low, middle)
    return low, frontier(low)


def toy_backdrop(points: int = 60) -> Backdrop:
    betas = tuple(0.02 * (20 / 0.02) ** (i / (points - 1)) for i in range(points))
    best = [optimum(beta) for beta in betas]
    return Backdrop(
        beta=betas,
        kl=tuple(kl for kl, _ in best),
        reward=tuple(reward for _, reward in best),
        objective=tuple(reward - beta * kl for beta, (kl, reward) in zip(betas, best, strict=True)),
        ref_reward=frontier(0.0),
    )


class ToyDPO:
    """An Algorithm with fake but plausible numbers; `fail_at` raises there, `pause` sleeps so many seconds a step."""

    name = "dpo"

    def __init__(
        self,
        steps: int = 1500,
        seed: int = 0,
        pause: float = 1 / 150,
        fail_at: int | None = None,
        exact: bool = True,
        hostile: bool = False,
        **knobs: float,
    ) -> None:
        self.steps = steps
        self.step = 0
        self.knobs = ToyKnobs(**knobs)
        self.backdrop: Backdrop | None = toy_backdrop() if exact else None
        self._random = random.Random(seed)
        self._kl = 0.0
        self._margin = 0.0
        self._pause = pause
        self._fail_at = fail_at
        self._hostile = hostile

    def rewind(self) -> bool:
        return True  # it fails before it has drawn anything

    def __iter__(self) -> ToyDPO:
        return self

    def __next__(self) -> Record:
        if self.step >= self.steps:
            raise StopIteration
        if self.step + 1 == self._fail_at:
            raise RuntimeError(f"the loss became NaN at step <b>{self._fail_at}</b>")
        if self._pause:
            time.sleep(self._pause)
        self.step += 1
        rng, knobs = self._random, self.knobs.snapshot()
        beta = knobs["beta"]
        best_kl, best_reward = optimum(beta)
        speed = min(0.2, 0.008 * (knobs["learning_rate"] / 5e-4))
        self._kl += speed * (best_kl - self._kl) + 0.004 * rng.gauss(0, 1) * math.sqrt(self._kl + 1e-3)
        self._kl = max(0.0, self._kl)
        self._margin += speed * (1.8 - self._margin)
        pairs = self._pairs(beta)
        chosen, rejected = pairs.chosen_rewards, pairs.rejected_rewards
        margins = [a - b for a, b in zip(chosen, rejected, strict=True)]
        scalars = {
            "loss": _mean([math.log1p(math.exp(-m)) for m in margins]),
            "rewards/chosen": _mean(chosen),
            "rewards/rejected": _mean(rejected),
            "rewards/margins": _mean(margins),
            "rewards/accuracies": _mean([float(m > 0) for m in margins]),
            "rewards/chosen_std": _std(chosen),
            "rewards/rejected_std": _std(rejected),
            "logps/chosen": -7.0 + _mean(chosen) / beta,
            "logps/rejected": -9.0 + _mean(rejected) / beta,
            "grad_norm": 0.5 + 0.2 * rng.random(),
            "learning_rate": knobs["learning_rate"],
        }
        samples: tuple[Sample, ...] = ()
        exact = None
        if self.step % 5 == 1 and self.backdrop is not None:
            top = frontier(self._kl)
            reward = self.backdrop.ref_reward + 0.86 * (top - self.backdrop.ref_reward)
            objective, best = reward - beta * self._kl, best_reward - beta * best_kl
            exact = {
                "reward": reward,
                "ref_reward": self.backdrop.ref_reward,
                "kl": self._kl,
                "objective": objective,
                "optimum": best,
                "regret": best - objective,
                "frontier_reward": top,
                "efficiency": 0.86,
            }
        if self.step % 50 == 1:
            samples = tuple(
                Sample(p, rng.choice(BAD), rng.choice(GOOD), -1 + rng.random(), 1 + rng.random())
                for p in PROMPTS[:4]
            )
        return Record(self.step, scalars, knobs, pairs, samples, exact)

    def _pairs(self, beta: float, n: int = 32) -> Pairs:
        rng = self._random
        ids = tuple(rng.randrange(2000) for _ in range(n))
        flipped = tuple(i % 10 == 0 for i in ids)
        centre = [self._margin * (-0.7 if flip else 1) for flip in flipped]
        chosen = tuple(
            0.35 * m - 0.25 * self._margin + rng.gauss(0, 0.05 + 0.3 * self._margin) for m in centre
        )
        rejected = tuple(
            -0.65 * m - 0.25 * self._margin + rng.gauss(0, 0.05 + 0.3 * self._margin) for m in centre
        )
        good, bad = [GOOD[i % len(GOOD)] for i in ids], [BAD[i % len(BAD)] for i in ids]
        if self._hostile:
            good = [
                f"<img src=x onerror=window.hacked=1><script>window.hacked=1</script> {text}" for text in good
            ]
        swap = list(zip(good, bad, flipped, strict=True))
        return Pairs(
            ids=ids,
            prompts=tuple(PROMPTS[i % len(PROMPTS)] for i in ids),
            chosen=tuple(b if flip else g for g, b, flip in swap),
            rejected=tuple(g if flip else b for g, b, flip in swap),
            chosen_rewards=chosen,
            rejected_rewards=rejected,
            weights=tuple(1 / (1 + math.exp(c - r)) for c, r in zip(chosen, rejected, strict=True)),
            flipped=flipped,
        )

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]


def _mean(values: list[float] | tuple[float, ...]) -> float:
    return sum(values) / len(values)


def _std(values: tuple[float, ...]) -> float:
    mean = _mean(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
