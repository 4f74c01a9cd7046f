"""The record of one update of any algorithm: frozen plain data.

Live boards, reports, trackers and replay see only records, so a record holds only floats, integers and strings:
no tensor, no model, no reference to the algorithm that made it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

KL_FROM_SAMPLES = ("kl_rb", "kl_k3")
"""Names of estimates of KL(π‖π_ref) from samples of π, the newest first; k3 is too low far from π_ref."""


def judgement(
    exact: Mapping[str, float] | None, estimated: Mapping[str, float] | None = None
) -> dict[str, float]:
    """An evaluation under one set of names: the exact one if there is one, else the estimate.

    KL(π‖π_ref) is always "kl" and its standard error "kl_se", however it was estimated; kl_k3, found in older runs,
    has no reliable standard error.

    >>> judgement(None, {"kl_rb": 0.5, "kl_rb_se": 0.01, "reward": 1.5})
    {'kl': 0.5, 'kl_se': 0.01, 'reward': 1.5}
    >>> judgement({"kl": 0.5}, {"kl_rb": 0.6}), judgement(None)
    ({'kl': 0.5}, {})
    """
    if exact or not estimated:
        return dict(exact or {})
    chosen = next((name for name in KL_FROM_SAMPLES if name in estimated), "kl")
    found = {}
    for name, value in estimated.items():
        if name.removesuffix("_se") not in ("kl", *KL_FROM_SAMPLES):
            found[name] = value
        elif name == chosen:
            found["kl"] = value
        elif name == f"{chosen}_se" and chosen != "kl_k3":
            found["kl_se"] = value
    return found


def known_regret(found: Mapping[str, float]) -> tuple[float, str]:
    """The regret J* − J from an exact or estimated evaluation, or a lower bound, and its name for an axis.

    >>> known_regret({"regret": 0.12, "optimum": 0.5})
    (0.12, 'regret')
    >>> known_regret({"regret_at_least": 0.5, "optimum_at_least": 2.25})
    (0.5, 'regret, at least')
    >>> known_regret({"ref_reward": -0.25})
    (nan, 'regret, not known')
    """
    if "regret" in found:
        return found["regret"], "regret"
    if "regret_at_least" in found:
        return found["regret_at_least"], "regret, at least"
    return math.nan, "regret, not known"


def regret_in_words(found: Mapping[str, float]) -> str:
    """The same in words: a number with its error, a lower bound, or that there are too few samples to tell.

    >>> regret_in_words({"regret": 0.12, "optimum": 0.5, "ref_reward": -0.25})
    'regret 0.120 of 0.750 at the start'
    >>> regret_in_words({"regret_at_least": 0.5, "optimum_at_least": 2.25})
    'regret at least 0.500, as J* is at least 2.250'
    >>> regret_in_words({"ref_reward": -0.25})
    'regret not known: too few samples of the reference to tell'
    """
    regret, name = known_regret(found)
    if math.isnan(regret):
        return "regret not known: too few samples of the reference to tell"
    if name != "regret":
        return f"regret at least {regret:.3f}, as J* is at least {found['optimum_at_least']:.3f}"
    error = f" ± {found['regret_se']:.3f}" if "regret_se" in found else ""
    start = f" of {found['optimum'] - found['ref_reward']:.3f} at the start" if "optimum" in found else ""
    return f"regret {regret:.3f}{error}{start}"


@dataclass(frozen=True)
class Pairs:
    """The preference pairs of one batch and the policy's rewards for them; all tuples have the same length.

    Attributes:
        ids: position of each pair in its data set, or a serial number for freshly sampled pairs.
        prompts, chosen, rejected: the texts (untrusted: escape them before display).
        chosen_rewards, rejected_rewards: implicit rewards r̂ = β·log(π_θ/π_ref), in nats × β; β included.
        weights: DPO gradient weights σ(r̂_l − r̂_w) in (0, 1).
        flipped: True if the label is known to contradict the better answer, None if unknown.
    """

    ids: tuple[int, ...]
    prompts: tuple[str, ...]
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    chosen_rewards: tuple[float, ...]
    rejected_rewards: tuple[float, ...]
    weights: tuple[float, ...]
    flipped: tuple[bool | None, ...]


@dataclass(frozen=True)
class Sample:
    """One prompt with the reference's answer and the policy's answer now (texts untrusted).

    Attributes:
        prompt: the prompt.
        before, after: an answer of π_ref and one of π_θ.
        reward_before, reward_after: their true rewards if the world knows them, else None.
    """

    prompt: str
    before: str
    after: str
    reward_before: float | None = None
    reward_after: float | None = None


class Place(NamedTuple):
    """A policy's position in the reward–KL plane: KL(π‖π_ref) in nats per answer, E[r], and their standard errors."""

    kl: float
    reward: float
    kl_se: float = 0.0
    reward_se: float = 0.0


@dataclass(frozen=True)
class Record:
    """One update.

    Attributes:
        step: 1 for the first update.
        scalars: metric name → value; TRL's names where TRL has one (`rewards/margins`, `logps/chosen`, …).
        knobs: the knob values in force during this update.
        pairs: the batch's preference pairs, if the algorithm has any.
        samples: sample answers, on the steps that drew some.
        exact: the enumerable world's exact evaluation, on the steps that made one.
        estimated: an evaluation from samples, on the steps that made one; NAME_se is the standard error of NAME.
        arrays: named columns of numbers, for histograms and scatter plots, on the steps that made some.
    """

    step: int
    scalars: Mapping[str, float]
    knobs: Mapping[str, float]
    pairs: Pairs | None = None
    samples: tuple[Sample, ...] = ()
    exact: Mapping[str, float] | None = None
    estimated: Mapping[str, float] | None = None
    arrays: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def judged(self) -> dict[str, float]:
        """This step's evaluation, exact or estimated, under the names of `judgement`; empty if there was none."""
        return judgement(self.exact, self.estimated)

    @property
    def judged_exactly(self) -> bool:
        """Whether `judged` is exact."""
        return bool(self.exact)

    @property
    def place(self) -> Place | None:
        """The position in the reward–KL plane: exact, or estimated with its errors; None if unknown.

        An importance-sampling estimate of KL is used only if `optimum_trusted` says it is reliable; an estimate from
        samples of the policy itself (KL_FROM_SAMPLES) is always used.
        """
        found = self.judged
        if not {"kl", "reward"} <= found.keys():
            return None
        by_weights = not self.judged_exactly and not any(
            name in (self.estimated or ()) for name in KL_FROM_SAMPLES
        )
        if by_weights and not found["optimum_trusted"]:
            return None
        return Place(found["kl"], found["reward"], found.get("kl_se", 0.0), found.get("reward_se", 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and lists, ready for json.dumps; empty parts are left out."""
        data: dict[str, Any] = {"step": self.step, "scalars": dict(self.scalars), "knobs": dict(self.knobs)}
        if self.pairs is not None:
            data["pairs"] = {name: list(column) for name, column in vars(self.pairs).items()}
        if self.samples:
            data["samples"] = [asdict(sample) for sample in self.samples]
        for name, block in (("exact", self.exact), ("estimated", self.estimated)):
            if block is not None:
                data[name] = dict(block)
        if self.arrays:
            data["arrays"] = {name: list(column) for name, column in self.arrays.items()}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """Inverse of `to_dict`."""
        pairs = data.get("pairs")
        return cls(
            step=int(data["step"]),
            scalars=dict(data["scalars"]),
            knobs=dict(data["knobs"]),
            pairs=None if pairs is None else Pairs(**{name: tuple(column) for name, column in pairs.items()}),
            samples=tuple(Sample(**sample) for sample in data.get("samples", ())),
            exact=dict(data["exact"]) if data.get("exact") is not None else None,
            estimated=dict(data["estimated"]) if data.get("estimated") is not None else None,
            arrays={name: tuple(column) for name, column in data.get("arrays", {}).items()},
        )


class Optimum(NamedTuple):
    """The optimal policy π* at one β: E[r], KL(π*‖π_ref) in nats per answer, J* = reward − β·kl."""

    reward: float
    kl: float
    objective: float


@dataclass(frozen=True)
class Backdrop:
    """The truth drawn behind the curves of a run: the reward–KL frontier, traced by β.

    In an enumerable world it is exact; elsewhere it is estimated, has standard errors, and ends at the smallest β at
    which the estimate is reliable. All tuples have the same length; entry i belongs to the optimal policy π* at
    `beta[i]` (ascending).

    Attributes:
        beta: KL strength.
        kl: KL(π*‖π_ref), nats per answer, mean over prompts; decreases in β.
        reward: E[r] under π*, mean over prompts; decreases in β.
        objective: J* = reward − β·kl.
        ref_reward: E[r] under π_ref, the frontier's left end (kl = 0).
        reward_se: standard errors of the curve's height, the reward at a given KL; empty if the values are exact.
    """

    beta: tuple[float, ...]
    kl: tuple[float, ...]
    reward: tuple[float, ...]
    objective: tuple[float, ...]
    ref_reward: float
    reward_se: tuple[float, ...] = ()

    def knows(self, beta: float) -> bool:
        """Whether the optimum at `beta` is known: always if the frontier is exact, else only for the β it covers."""
        return beta > 0 and (not self.reward_se or self.beta[0] <= beta)

    def at(self, beta: float) -> Optimum:
        """Return the optimum at `beta` > 0, interpolated linearly in log β; constant beyond the ends."""
        right = bisect_left(self.beta, beta)
        left, right = max(0, right - 1), min(right, len(self.beta) - 1)
        fraction = 0.0
        if left < right:
            fraction = math.log(beta / self.beta[left]) / math.log(self.beta[right] / self.beta[left])
        columns = (self.reward, self.kl, self.objective)
        return Optimum(*(column[left] + fraction * (column[right] - column[left]) for column in columns))

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and a float, ready for json.dumps."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Backdrop:
        """Inverse of `to_dict`."""
        names = ("beta", "kl", "reward", "objective", "reward_se")
        curves = {name: tuple(data.get(name, ())) for name in names}
        return cls(**curves, ref_reward=float(data["ref_reward"]))


Arrays = Mapping[str, tuple[float, ...]]


class Evaluated(NamedTuple):
    """What an evaluator found.

    Attributes:
        exact: an exact evaluation, if the world can be enumerated; for a reward model, that of π*_φ.
        estimated: an evaluation from samples; NAME_se is the standard error of NAME.
        samples: answers before training and now.
        arrays: data columns for plots.
    """

    exact: Mapping[str, float] | None = None
    estimated: Mapping[str, float] | None = None
    samples: tuple[Sample, ...] = ()
    arrays: Arrays = {}


class Evaluator(Protocol):
    """Judges a policy or a reward model, or shows samples, every `evaluate_every` updates."""

    backdrop: Backdrop | None

    def __call__(self, model: Any, beta: float, /) -> Evaluated: ...
