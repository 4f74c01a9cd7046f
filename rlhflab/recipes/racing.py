"""The race: every method that turns the same preferences into a policy, side by side, judged after every lap.

DPO, preferred fine-tuning, and PPO and best-of-n with a reward model all see only the same labelled pairs. PPO, TRPO
and REINFORCE with the true reward see what no real training can: they show the cost of having only pairs.

In the micro world every standing is exact; in a world that cannot be enumerated it is an estimate with standard errors.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch

from rlhflab.algorithms.dpo import DPO
from rlhflab.algorithms.ppo import PPO
from rlhflab.algorithms.reinforce import Reinforce
from rlhflab.algorithms.reward_modelling import RewardModelling
from rlhflab.algorithms.room import counted
from rlhflab.algorithms.supervised import Supervised
from rlhflab.algorithms.trpo import TRPO
from rlhflab.core.algorithm import Algorithm
from rlhflab.core.knobs import Knobs
from rlhflab.core.record import Backdrop, Record
from rlhflab.data.pair_source import FixedPairs
from rlhflab.data.ranking_source import TextRankings
from rlhflab.data.sampled import SampledReference
from rlhflab.evaluation.race_judge import EstimatingRaceJudge, ExactRaceJudge, RaceJudge, Standing
from rlhflab.evaluation.reward_judge import reference_offsets
from rlhflab.models.loading import frozen_copy
from rlhflab.models.reward import reward_model_from
from rlhflab.recipes.reference import encode_texts
from rlhflab.settings.common import tenth
from rlhflab.settings.dpo import DPOSettings
from rlhflab.settings.ppo import PPOSettings
from rlhflab.settings.race import UPDATES, RaceSettings
from rlhflab.settings.reinforce import ReinforceSettings
from rlhflab.settings.reward import RewardSettings
from rlhflab.settings.supervised import SupervisedSettings
from rlhflab.settings.trpo import TRPOSettings
from rlhflab.tasks.language import LanguageTask, Prompts
from rlhflab.tasks.rewards import ModelReward, RewardFunction, TrueReward
from rlhflab.worlds.micro import ReferencePoint

CONTESTANTS = tuple(UPDATES)
DRAWS = (1, 2, 4, 8, 16)  # n of best-of-n
# Columns of a path, after its lap or its n.
COLUMNS = ("kl", "reward", "regret", "kl_se", "reward_se", "regret_se", "regret_at_least")


class Race:
    """An iterator of records: each `next()` is a tenth of the reward model's fitting, or one contestant's lap.

    A record's arrays hold every contestant's path so far: NAME/lap, NAME/kl, NAME/reward and NAME/regret (`best_of_n`
    has one point for each n); `frontier/kl` and `frontier/reward`; `optimum/kl` and `optimum/reward`, π* at the β in
    force. Estimates come with their standard errors, …_se. Its scalars hold the newest NAME/regret.

    Args:
        reference: the world seen from the SFT model.
        sft: that model, the start and reference of every contestant; it is not changed.
        config: the settings.
    """

    name = "race"
    engine = "lab"
    built_with: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        reference: ReferencePoint | SampledReference,
        sft: Any,
        config: RaceSettings | None = None,
    ) -> None:
        self.config = config or RaceSettings()
        self.knobs: Knobs = self.config.knobs()
        self.reference, self._world = reference, reference.world
        self._ref_policy = frozen_copy(sft)
        self.judge: RaceJudge = (
            ExactRaceJudge(reference)
            if isinstance(reference, ReferencePoint)
            else EstimatingRaceJudge(reference, self.config.seed)
        )
        self.backdrop: Backdrop | None = self.judge.backdrop
        self.contestants: dict[str, Any] = {}
        self.reward_model: Any = None
        self._fitting: RewardModelling | None = None
        self._paths: dict[str, list[tuple[float, ...]]] = {}  # at, then COLUMNS
        racing = [name for name in CONTESTANTS if self.config.updates_of(name)]
        self._plan = ["reward_model"] * 10 + racing * self.config.laps
        self.steps, self.step = len(self._plan), 0

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        """Make the next step of the plan; the first call draws the data, the last fitting builds the contestants."""
        if self.step >= self.steps:
            raise StopIteration
        return counted(self, self._advance)

    def release(self) -> None:
        """Contestants release what their own failed updates leave."""

    @property
    def halfway(self) -> bool:
        """Whether a failed step is to be repeated: it continues where it was, keeping what has already run."""
        return True

    def rewind(self) -> bool:
        """After a failed step, return everything to its last complete update; False if one algorithm cannot."""
        algorithms = [self._fitting, *self.contestants.values()]
        return all(algorithm.rewind() for algorithm in algorithms if algorithm is not None)

    def _advance(self) -> Record:
        self.step += 1
        knobs = self.knobs.snapshot()
        if self._fitting is None:
            self._draw(knobs)
        assert self._fitting is not None
        turn = self._plan[self.step - 1]
        scalars: dict[str, float] = {}
        if turn == "reward_model":
            scalars = self._fit(-(-self.config.reward_updates * self.step // 10))
            if self._plan[self.step : self.step + 1] != ["reward_model"]:
                self._line_up(knobs)
        else:
            lap = 1 + (self.step - 11) // len(self.contestants)
            self._run(turn, lap, knobs["beta"])
        if self.step == 10 or turn != "reward_model":
            self._judge(turn, knobs["beta"])
        for name, path in self._paths.items():
            if name != "best_of_n":
                scalars[f"{name}/regret"] = path[-1][3]
        return Record(self.step, scalars, knobs, arrays=self._arrays(knobs["beta"]))

    # ---- before the start --------------------------------------------------------------------------------------

    def _draw(self, knobs: Mapping[str, float]) -> None:
        self._drawn_with = {name: knobs[name] for name in ("pairs", "label_noise")}
        generator = torch.Generator().manual_seed(self.config.seed)
        self.pairs = self.reference.pair_texts(int(knobs["pairs"]), knobs["label_noise"], generator)
        world, seed = self._world, self.config.seed
        device = self._ref_policy.device
        rankings = TextRankings(self.pairs, world.encode_prompt, world.encode_answer, device, seed)
        self._fitting = RewardModelling(
            reward_model_from(self._ref_policy), rankings,
            RewardSettings(
                steps=self.config.reward_updates, held_out=0, seed=seed, pairs=int(knobs["pairs"])
            ),
        )  # fmt: skip
        self.reward_model = self._fitting.reward_model

    def _fit(self, until: int) -> dict[str, float]:
        assert self._fitting is not None
        record = None
        while self._fitting.step < min(until, self._fitting.steps):
            record = next(self._fitting)
        return {} if record is None else {"reward_model/loss": record.scalars["loss"]}

    def _line_up(self, knobs: Mapping[str, float]) -> None:
        """Build all contestants from the same start and the same pairs."""
        world, config, seed, beta = self._world, self.config, self.config.seed, knobs["beta"]
        self.reward_model.requires_grad_(False)
        offsets = reference_offsets(world, self._ref_policy, self.reward_model, seed)
        learned, true = ModelReward(self.reward_model, offsets), TrueReward(world)
        builders = {
            "dpo": lambda policy, steps: DPO(
                policy,
                FixedPairs(self.pairs, world.encode_prompt, world.encode_answer, self._ref_policy, 32, seed),
                DPOSettings(steps=steps, beta=beta),
            ),
            "preferred": lambda policy, steps: Supervised(
                policy, encode_texts(world, [(pair.prompt, pair.chosen) for pair in self.pairs]),
                SupervisedSettings(steps=steps, seed=seed, learning_rate=1e-3),
            ),
            "ppo_learned": lambda policy, steps: self._ppo(policy, steps, learned, beta),
            "ppo": lambda policy, steps: self._ppo(policy, steps, true, beta),
            "trpo": lambda policy, steps: TRPO(
                self._task(policy, true, "own"), TRPOSettings(steps=steps, seed=seed, beta=beta)
            ),
            "reinforce": lambda policy, steps: Reinforce(
                self._task(policy, true, "none"),
                ReinforceSettings(
                    steps=steps, warmup=tenth(steps, 20), seed=seed, beta=beta, learning_rate=3e-3
                ),
            ),
        }  # fmt: skip
        for name in CONTESTANTS:
            steps = config.updates_of(name)
            if steps:
                policy = copy.deepcopy(self._ref_policy).requires_grad_(True)
                self.contestants[name] = builders[name](policy, steps)
                self._paths[name] = []

    def _ppo(self, policy: Any, steps: int, reward: RewardFunction, beta: float) -> PPO:
        config = PPOSettings(steps=steps, warmup=tenth(steps, 20), seed=self.config.seed, beta=beta)
        return PPO(self._task(policy, reward, "shared"), config)

    def _task(self, policy: Any, reward: RewardFunction, value: str) -> LanguageTask:
        world, config = self._world, self.config
        return LanguageTask(
            policy,
            self._ref_policy,
            Prompts(world.prompt_ids, world.stop_ids, world.max_tokens),
            reward,
            config.batch_size,
            config.seed,
            value,
        )

    # ---- the race ----------------------------------------------------------------------------------------------

    def _run(self, name: str, lap: int, beta: float) -> None:
        algorithm: Algorithm = self.contestants[name]
        if "beta" in algorithm.knobs.specs:
            algorithm.knobs.beta = beta
        until = -(-algorithm.steps * lap // self.config.laps)
        while algorithm.step < until:
            next(algorithm)

    def _judge(self, turn: str, beta: float) -> None:
        """Add a point to the path of the contestant that ran; at the start all of them are at π_ref."""
        if turn != "reward_model":
            algorithm = self.contestants[turn]
            lap = len(self._paths[turn]) / self.config.laps
            self._add(turn, lap, self.judge.policy(algorithm.policy, beta))
            return
        start = self.judge.policy(self._ref_policy, beta)  # estimates its reward too
        for name in self.contestants:
            self._add(name, 0.0, start)
        self._paths["best_of_n"] = []
        for n, standing in zip(DRAWS, self.judge.best_of_n(self.reward_model, DRAWS, beta), strict=True):
            self._add("best_of_n", float(n), standing)

    def _add(self, name: str, at: float, standing: Standing) -> None:
        self._paths[name].append((at, *(standing[column] for column in COLUMNS if column in standing)))

    def _arrays(self, beta: float) -> dict[str, tuple[float, ...]]:
        arrays: dict[str, tuple[float, ...]] = {}
        backdrop = self.backdrop
        if backdrop is not None:
            best = backdrop.at(beta) if backdrop.knows(beta) else None
            stands = [point[1] for path in self._paths.values() for point in path]
            far = 1.2 * max([best.kl if best else 0.0, *stands])
            errors = backdrop.reward_se or (0.0,) * len(backdrop.kl)
            points = sorted(zip(backdrop.kl, backdrop.reward, errors, strict=True))
            near = [(0.0, backdrop.ref_reward, 0.0), *(point for point in points if point[0] <= far)]
            names = ("frontier/kl", "frontier/reward", "frontier/reward_se")[: 3 if backdrop.reward_se else 2]
            arrays |= dict(zip(names, zip(*near, strict=True), strict=False))
            if best:
                arrays |= {"optimum/kl": (best.kl,), "optimum/reward": (best.reward,)}
        for name, path in self._paths.items():
            columns = zip(("lap", *COLUMNS), zip(*path, strict=True), strict=False)
            arrays |= {f"{name}/{column}": values for column, values in columns}
        return arrays

    def results(self) -> dict[str, Standing]:
        """Contestant → its standing now at the knobs' β; `best_of_n` with the n of least regret."""
        beta = self.knobs.snapshot()["beta"]
        found = {name: self.judge.policy(run.policy, beta) for name, run in self.contestants.items()}
        if self.reward_model is not None and self.contestants:
            tried = self.judge.best_of_n(self.reward_model, DRAWS, beta)
            found["best_of_n"] = max(tried, key=lambda standing: standing["reward"] - beta * standing["kl"])
        return found

    # ---- state -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The contestants' states, the paths so far, the data's knobs and the position in the plan."""
        state: dict[str, Any] = {
            "step": self.step,
            "knobs": self.knobs.snapshot(),
            "paths": {name: [list(point) for point in path] for name, path in self._paths.items()},
            "contestants": {name: algorithm.state_dict() for name, algorithm in self.contestants.items()},
        }
        if self._fitting is not None:
            state |= {"fitting": self._fitting.state_dict(), "drawn": self._drawn_with}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state` was taken."""
        if "fitting" in state:
            self._draw(state["drawn"])
            assert self._fitting is not None
            self._fitting.load_state_dict(state["fitting"])
            if state["contestants"]:
                self._line_up(state["knobs"])
        for name, inner in state["contestants"].items():
            self.contestants[name].load_state_dict(inner)
        self._paths = {name: [tuple(point) for point in path] for name, path in state["paths"].items()}
        for name, value in state["knobs"].items():
            setattr(self.knobs, name, value)
        self.step = int(state["step"])
