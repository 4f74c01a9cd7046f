"""Reward modelling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from rlhflab.core.settings import Setting, knob, setting
from rlhflab.recipes.recipe import ENGINE, Loading, enough_pairs
from rlhflab.settings.common import BATCH_SIZE, LEARNING_RATE, PAIRS, REAL_RATE, WARMUP, tenth
from rlhflab.settings.reward import RewardSettings

if TYPE_CHECKING:
    from rlhflab.algorithms.reward_modelling import RewardModelling

HELD_OUT = 64  # pairs of real texts; each test on them costs as much as a few updates
BLIND = Setting(
    help="What a reward model cannot see (micro: film, negation, strength, conjunction), or its annotators (reviews: "
    "hype, …)",
    label="blind to",
)


def blindness_of(world: str) -> tuple[str, ...]:
    """Allowed values of `blind` in a built-in world; none for a file."""
    from rlhflab.worlds.grammar import BLINDNESS
    from rlhflab.worlds.reviews_grammar import FEATURES

    return {"micro": tuple(BLINDNESS), "reviews": FEATURES}.get(world, ())


@dataclass(frozen=True, kw_only=True)
class Reward(RewardSettings, Loading):
    """Fit a reward model to preferences."""

    algorithm: ClassVar[str] = "reward"
    name: ClassVar[str] = "reward"
    words: ClassVar[str] = "Fit a reward model to preferences."
    parallel: ClassVar[bool] = True

    learning_rate: float = knob(1e-3, LEARNING_RATE, real=None, words=f"0.001; {REAL_RATE}")
    pairs: int = knob(2000, PAIRS, words="2000; real models: enough for three epochs")
    ranked: int = setting(
        2, "Answers per ranking; two make a pair, more need a built-in world", at_least=2, at_most=16,
        label="ranked together",
    )  # fmt: skip
    blind: str = setting("", BLIND)
    batch_size: int = setting(64, BATCH_SIZE, real=8)
    warmup: int = setting(10, WARMUP, words="10; real models: a tenth of the updates, at most 10")
    engine: str = setting("lab", ENGINE)
    evaluate: bool = setting(True, "Evaluate the policy that is optimal for the model", option=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of_texts and (self.blind or self.ranked != 2):
            raise ValueError("blind and ranked need the micro or the reviews world")
        features = blindness_of(self.world) if isinstance(self.world, str) else ()
        if self.blind and self.blind not in features:
            raise ValueError(f"blind must be one of {', '.join(features)} or nothing, got {self.blind!r}")

    def usual(self, name: str) -> Any:
        """The default of a setting given the others."""
        if name == "pairs" and self.real:
            return enough_pairs(self.steps, self.batch_size or 8)
        if name == "warmup" and self.real:
            return tenth(self.steps, 10)
        return super().usual(name)

    def _build(self) -> RewardModelling:
        from rlhflab.algorithms.reward_modelling import RewardModelling
        from rlhflab.engines.versions import require_pairs

        self.check_processes()
        make = self.trained_by(RewardModelling)
        if self.engine == "trl":
            require_pairs(self.ranked)
        return self._build_real(make) if self.real else self._build_tiny(make)

    def _build_real(self, make: Any) -> RewardModelling:
        from rlhflab.data.ranking_source import LongRankings
        from rlhflab.models.loading import load_reward_model
        from rlhflab.recipes.texts import load_on_pairs

        real = load_on_pairs(self, load_reward_model, 2 * self.batch_size, self.pairs, HELD_OUT)
        config = replace(real.recipe, held_out=real.pairs.held_out, test_every=self.evaluate_every)
        source = LongRankings(real.pairs.pairs, real.pairs.tokens, real.model, self.seed)
        return make(real.model, source, config, None, real.tokenizer, real.notes)

    def _build_tiny(self, make: Any) -> RewardModelling:
        from rlhflab.data.ranking_source import RankingSource, TextRankings, WorldRankings
        from rlhflab.models.devices import choose_device
        from rlhflab.models.reward import reward_model_from
        from rlhflab.recipes.reference import tiny_reference
        from rlhflab.recipes.worlds import read_micro_pairs, view_from, world_named

        lab = world_named("micro" if self.of_texts else self.world)
        target = choose_device(self.device, "tiny")
        policy = tiny_reference(lab, progress=self.progress).to(target)
        reward_model, held_out, judge, notes = reward_model_from(policy), self.held_out, None, {}
        if not self.of_texts:
            annotators = self._blinded(lab, reward_model)
            pool = self.pairs + held_out
            rankings: RankingSource = WorldRankings(lab, policy, pool, self.ranked, self.seed, annotators)
            judge = _judge(view_from(lab, policy), self.seed) if self.evaluate else None
        else:
            data = read_micro_pairs(self.world, self.skip_bad, self.progress)
            notes["read"], some = data.note, list(data.pairs[: self.pairs + held_out])
            held_out = min(held_out, len(some) // 10)
            rankings = TextRankings(some, lab.encode_prompt, lab.encode_answer, target, self.seed)
        return make(reward_model, rankings, replace(self, held_out=held_out), judge, notes=notes)

    def _blinded(self, lab: Any, reward_model: Any) -> Any:
        """Blind the model in the micro world, or return blind annotators in the larger one."""
        from rlhflab.models.reward import blindfold
        from rlhflab.worlds.grammar import BLINDNESS
        from rlhflab.worlds.reviews import ReviewsWorld

        if self.blind and self.world == "reviews":
            return ReviewsWorld(blind_to=[self.blind])
        if self.blind:
            ids = lab.tokenizer.convert_tokens_to_ids
            blindfold(reward_model, {ids(word): ids(seen) for word, seen in BLINDNESS[self.blind].items()})
        return lab


def _judge(view: Any, seed: int) -> Any:
    from rlhflab.evaluation.reward_judge import ExactRewardJudge, SampledRewardJudge
    from rlhflab.worlds.micro import ReferencePoint

    return (
        ExactRewardJudge(view, seed) if isinstance(view, ReferencePoint) else SampledRewardJudge(view, seed)
    )
