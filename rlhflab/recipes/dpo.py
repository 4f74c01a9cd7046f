"""Direct preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rlhflab.core.settings import setting
from rlhflab.recipes.recipe import ENGINE, Loading, enough_pairs
from rlhflab.settings.common import BATCH_SIZE, LABEL_NOISE, WARMUP, tenth
from rlhflab.settings.dpo import DPOSettings

if TYPE_CHECKING:
    from rlhflab.algorithms.dpo import DPO as Training


@dataclass(frozen=True, kw_only=True)
class DPO(DPOSettings, Loading):
    """Train with direct preference optimisation."""

    algorithm: ClassVar[str] = "dpo"
    name: ClassVar[str] = "dpo"
    words: ClassVar[str] = "Train with direct preference optimisation."
    parallel: ClassVar[bool] = True

    reference: str = setting(
        "sft", "sft, or preferred: the pre-trained tiny model fine-tuned on the chosen answers first",
        one_of=("sft", "preferred"),
    )  # fmt: skip
    pairs: int | Literal["fresh"] = setting(
        2000, "Preference pairs to draw, or the most to read; fresh: new ones at every update",
        words="2000; real models: enough for three epochs", at_least=1, one_of=("fresh",),
    )  # fmt: skip
    label_noise: float = setting(0.0, LABEL_NOISE)
    batch_size: int = setting(32, BATCH_SIZE, words="32; fresh pairs: 256; real models: 8")
    warmup: int = setting(10, WARMUP, words="10; real models: a tenth of the updates, at most 10")
    engine: str = setting("lab", ENGINE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs == "fresh" and (
            self.world == "reviews" or self.of_texts or self.reference != "sft" or self.real
        ):
            raise ValueError("fresh pairs need the micro world and the SFT reference")
        if self.real and self.reference != "sft":
            raise ValueError(
                f"reference must be sft with a real model, which is its own reference, got {self.reference!r}"
            )

    def usual(self, name: str) -> Any:
        """The default of a setting given the others."""
        if name == "batch_size":
            return 8 if self.real else 256 if self.pairs == "fresh" else 32
        if name == "pairs" and self.real:
            return enough_pairs(self.steps, self.batch_size or 8)
        if name == "warmup" and self.real:
            return tenth(self.steps, 10)
        return super().usual(name)

    def _build(self) -> Training:
        from rlhflab.algorithms.dpo import DPO as OurDPO
        from rlhflab.data.pair_source import LongPairs
        from rlhflab.models.loading import load_policy, load_reference
        from rlhflab.recipes.texts import load_on_pairs, sample_evaluator

        self.check_processes()
        make = self.trained_by(OurDPO)
        if not self.real:
            return self._build_tiny(make)
        assert isinstance(self.pairs, int)
        real = load_on_pairs(self, load_policy, 2 * self.batch_size, self.pairs)
        pairs, tokens = real.pairs.pairs, real.pairs.tokens
        ref_policy = load_reference(real.model)
        source = LongPairs(pairs, tokens, ref_policy, self.batch_size, self.seed)
        samples = sample_evaluator(ref_policy, [pair.prompt for pair in pairs], real.encoder, self.seed)
        return make(real.model, source, real.recipe, samples, real.tokenizer, real.notes)

    def _build_tiny(self, make: Any) -> Training:
        import torch

        from rlhflab.data.pair_source import FixedPairs, FreshPairs, PairSource
        from rlhflab.models.devices import choose_device
        from rlhflab.models.loading import frozen_copy
        from rlhflab.recipes.reference import preferred_finetune, tiny_reference
        from rlhflab.recipes.worlds import evaluator_of, read_micro_pairs, view_from, world_named
        from rlhflab.worlds.micro import ReferencePoint

        target = choose_device(self.device, "tiny")
        given = read_micro_pairs(self.world, self.skip_bad, self.progress) if self.of_texts else None
        most = 0 if self.pairs == "fresh" else self.pairs
        data = None if given is None else list(given.pairs[:most])
        lab = world_named(self.world if data is None else "micro")
        notes = {} if given is None else {"read": given.note}
        start = tiny_reference(lab, progress=self.progress).to(target)
        generator = torch.Generator().manual_seed(self.seed)
        if self.reference == "preferred":
            chosen = data or view_from(lab, start).pair_texts(most, self.label_noise, generator)
            start = tiny_reference(lab, "pretrained", progress=self.progress).to(target)
            for _ in preferred_finetune(
                lab, start, [(pair.prompt, pair.chosen) for pair in chosen], self.seed
            ):
                pass
            data = chosen
        ref_policy = frozen_copy(start)
        view = view_from(lab, ref_policy)
        if self.pairs == "fresh":
            if not isinstance(view, ReferencePoint):
                raise ValueError("fresh pairs need a world whose answers are listed")
            source: PairSource = FreshPairs(view, self.label_noise, self.batch_size, self.seed, target)
        else:
            data = data or view.pair_texts(most, self.label_noise, generator)
            encoders = lab.encode_prompt, lab.encode_answer
            source = FixedPairs(data, *encoders, ref_policy, self.batch_size, self.seed)
        return make(start, source, self, evaluator_of(view, self.seed), notes=notes)
