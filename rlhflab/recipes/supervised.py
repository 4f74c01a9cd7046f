"""Maximum likelihood: pre-training and supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rlhflab.core.settings import Setting, knob, setting
from rlhflab.recipes.recipe import ENGINE, WORLDS, Language, Loading
from rlhflab.settings.common import BATCH_SIZE, EVALUATE_EVERY, LEARNING_RATE, REAL_RATE, STEPS
from rlhflab.settings.supervised import SupervisedSettings

if TYPE_CHECKING:
    from rlhflab.algorithms.supervised import Supervised
    from rlhflab.core.record import Evaluator

HELD_OUT = 512  # texts
TEXTS = Setting(help="Texts to draw from the grammar, or the most to read", at_least=1)
P_NOISE = Setting(
    help="Fraction of the drawn texts with an error: a word missing, doubled or wrong", at_least=0, at_most=1
)


@dataclass(frozen=True, kw_only=True)
class Pretrain(SupervisedSettings, Language):
    """Step 0 of the course: starting from random weights, the tiny model learns the language from unedited text.

    Its evaluations, exact or estimated, compare it with those random weights.
    """

    algorithm: ClassVar[str] = "pretrain"
    name: ClassVar[str] = "pretrain"
    words: ClassVar[str] = "Pre-train the tiny model on unedited text."

    texts: int = setting(20_000, TEXTS)
    p_noise: float = setting(0.3, P_NOISE)
    learning_rate: float = knob(3e-3, LEARNING_RATE, worlds={"reviews": 5e-3})
    steps: int = setting(400, STEPS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of_texts:
            raise ValueError(
                f"pre-training needs a built-in world: {' or '.join(WORLDS)}, got {self.world!r}"
            )

    def _build(self) -> Supervised:
        from rlhflab.algorithms.supervised import Supervised
        from rlhflab.models.devices import choose_device
        from rlhflab.models.tiny import new_tiny_model
        from rlhflab.recipes.reference import encode_texts, reference_config
        from rlhflab.recipes.worlds import world_named

        self.check_processes()
        lab = world_named(self.world)
        model = new_tiny_model(lab.tokenizer, reference_config(lab).model, self.seed)
        model = model.to(choose_device(self.device, "tiny"))
        data = encode_texts(lab, lab.corpus(self.texts, self.seed, self.p_noise))
        make = self.training or Supervised
        return make(model, data, self, _evaluator(lab, model, self.seed, self.p_noise))


@dataclass(frozen=True, kw_only=True)
class SFT(SupervisedSettings, Loading):
    """Step 1 of the course: supervised fine-tuning of the pre-trained model on good text.

    Good text is clean text from the grammar, or the chosen answers of preference pairs. Its evaluations, exact or
    estimated, compare it with the pre-trained model.
    """

    algorithm: ClassVar[str] = "sft"
    name: ClassVar[str] = "sft"
    words: ClassVar[str] = "Fine-tune a model on clean text, or on the chosen answers of a file."

    texts: int = setting(10_000, TEXTS)
    p_noise: float = setting(0.0, P_NOISE)
    learning_rate: float = knob(
        1e-3, LEARNING_RATE, real=None, worlds={"reviews": 2e-3}, words=f"0.001; reviews: 0.002; {REAL_RATE}"
    )
    steps: int = setting(200, STEPS)
    batch_size: int = setting(128, BATCH_SIZE, real=8)
    evaluate_every: int = setting(20, EVALUATE_EVERY)
    engine: str = setting("lab", ENGINE)

    def _build(self) -> Supervised:
        from rlhflab.algorithms.supervised import Supervised
        from rlhflab.models.loading import load_policy
        from rlhflab.models.logps import join_answers
        from rlhflab.recipes.texts import load_on_pairs, sample_evaluator

        self.check_processes()
        make = self.trained_by(Supervised)
        if not self.real:
            return self._build_tiny(make)
        real = load_on_pairs(self, load_policy, self.batch_size, self.texts)
        pairs, tokens = real.pairs.pairs, real.pairs.tokens
        data = join_answers(tokens.prompts, tokens.chosen)
        samples = sample_evaluator(real.model, [pair.prompt for pair in pairs], real.encoder, self.seed)
        return make(real.model, data, real.recipe, samples, real.tokenizer, real.notes)

    def _build_tiny(self, make: Any) -> Supervised:
        from rlhflab.models.devices import choose_device
        from rlhflab.recipes.reference import encode_texts, tiny_reference
        from rlhflab.recipes.worlds import read_micro_pairs, world_named

        built_in, notes = not self.of_texts, {}
        target, lab = choose_device(self.device, "tiny"), world_named(self.world if built_in else "micro")
        policy = tiny_reference(lab, "pretrained", progress=self.progress).to(target)
        if built_in:
            data = encode_texts(lab, lab.corpus(self.texts, self.seed + 1, self.p_noise))
        else:
            read = read_micro_pairs(self.world, self.skip_bad, self.progress)
            notes["read"] = read.note
            data = encode_texts(lab, [(pair.prompt, pair.chosen) for pair in read.pairs[: self.texts]])
        evaluator = _evaluator(lab, policy, self.seed, self.p_noise if built_in else None)
        return make(policy, data, self, evaluator, notes=notes)


def _evaluator(world: Any, model: Any, seed: int, p_noise: float | None) -> Evaluator:
    """The evaluator for a world; the texts' language is known if they are drawn from the grammar with `p_noise`."""
    from rlhflab.evaluation.evaluators import HeldOutEvaluator, LanguageEvaluator
    from rlhflab.models.loading import frozen_copy
    from rlhflab.recipes.reference import encode_texts
    from rlhflab.recipes.worlds import evaluator_of, view_from
    from rlhflab.worlds.micro import ReferencePoint

    view = view_from(world, frozen_copy(model))
    if p_noise is None:
        return evaluator_of(view, seed)
    if not hasattr(world, "language") and world.enumerable:
        return evaluator_of(view, seed)
    if isinstance(view, ReferencePoint):
        return LanguageEvaluator(view, seed, p_noise)
    return HeldOutEvaluator(view, seed, encode_texts(world, world.corpus(HELD_OUT, seed + 2, p_noise)))
