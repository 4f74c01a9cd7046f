"""What all recipes have in common: the world, the model and how it is loaded. No torch until one is built."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rlhflab.core.recipe import Recipe
from rlhflab.core.settings import Setting, setting

if TYPE_CHECKING:
    from rlhflab.models.loading import LoadSettings

WORLDS = ("micro", "reviews")
"""The worlds of language."""

MOST_PAIRS = 2000
EPOCHS = 3
ENGINES = ("lab", "trl")
ENGINE = Setting(
    help="lab: our own loop; trl: TRL's trainer on the same batches, never in float16", one_of=ENGINES
)


def is_text_source(world: str) -> bool:
    """Whether a world's name means real texts: a file or folder of data, or owner/name of a data set on the hub.

    gymnasium's names may have a slash too, but end with a version: "ALE/Pong-v5". A name that ends like a file but does
    not exist is not a data set either.
    """
    from rlhflab.data.rows import is_folder_of_data

    if Path(world).is_file() or is_folder_of_data(world):
        return True
    named = re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?(@[\w.\[\]:%-]+)?", world) and not world.startswith(".")
    return bool(named) and re.search(r"(-v\d+|\.(jsonl?|csv|parquet|gz))$", world) is None


def enough_pairs(steps: int, batch_size: int) -> int:
    """The number of pairs for about EPOCHS epochs in a run, from 16 to MOST_PAIRS."""
    return min(MOST_PAIRS, max(16, steps * batch_size // EPOCHS))


def named(world: Any) -> str:
    """The name of a world."""
    return world if isinstance(world, str) else str(world.name)


@dataclass(frozen=True, kw_only=True)
class BuiltIn(Recipe):
    """Base class of the package's recipes; `_build` puts the training together."""

    algorithm: ClassVar[str] = ""
    training: ClassVar[Any] = None
    """The class to build instead of the package's own, such as a subclass with another loss."""
    parallel: ClassVar[bool] = False
    """Whether several processes can train it together; see `rlhflab.processes`."""

    device: str = setting("auto", "auto, cpu, cuda or mps; auto: see `rlhflab doctor`")
    progress: bool = setting(True, "Show progress bars while models are built", option=False)

    def build(self) -> Any:
        """Return the training, ready to iterate.

        Raises:
            ValueError: a setting names something that cannot be used, in one line.
            OutOfMemory: the training does not fit.
        """
        from rlhflab.algorithms.room import fitted

        return fitted(self._build, self.name.replace("-", " "), self.config())

    def _build(self) -> Any:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Language(BuiltIn):
    """A training of a language model, on a world or on real texts."""

    world: Any = setting(
        "micro", "micro, reviews, or texts: a file (JSONL, JSON, CSV, Parquet, Arrow), a folder, a hub data set",
        path=True, label="data",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.world, str) and not hasattr(self.world, "answer_rewards"):
            raise ValueError(
                f"a world is a name or an object such as OwnWorld, got {type(self.world).__name__}"
            )
        if self.of_texts and not is_text_source(self.world):
            raise ValueError(
                f"unknown world {self.world!r}; use {', '.join(WORLDS)}, an existing file of preference pairs, or "
                "owner/name on the hub"
            )
        if self.real and not self.of_texts:
            raise ValueError(
                f"the {named(self.world)} world needs --model tiny; other models need --world with a file or data set "
                "of their texts"
            )

    @property
    def of_texts(self) -> bool:
        """Whether the world names real texts: not a built-in world, and not an object."""
        return isinstance(self.world, str) and self.world not in WORLDS

    def config(self) -> dict[str, Any]:
        """As for every recipe; a custom world by its name."""
        return {**super().config(), "world": named(self.world)}

    def check_processes(self) -> None:
        """Raise ValueError if a batch has fewer rows than there are processes."""
        from rlhflab import processes

        processes.require_rows(getattr(self, "batch_size", 1))


REAL_ONLY = ("four_bit", "lora", "gradient_checkpointing", "trust_remote_code")


@dataclass(frozen=True, kw_only=True)
class Loading(Language):
    """The model, and how a real one is loaded; see `models.loading.LoadSettings`."""

    model: str = setting("tiny", "tiny, a folder, or a Hugging Face id", path=True, label="model")
    four_bit: bool = setting(False, "Real models: weights in 4 bits (NF4), with --lora only")
    lora: bool = setting(False, "Real models: train adapters instead of the weights")
    lora_rank: int = setting(16, "Rank of the adapters, usually 8–64", at_least=1, at_most=1024)
    lora_targets: str = setting("", "Comma list of layers that get adapters; nothing: all linear layers")
    max_length: int = setting(512, "Tokens of prompt and answer; longer ones are left out", at_least=2)
    gradient_checkpointing: bool = setting(
        False, "Real models: less memory for activations, about a third more time"
    )
    dtype: str = setting("auto", "Real models with --lora: auto, float32, bfloat16 or float16")
    trust_remote_code: bool = setting(
        False, "Run code that comes with a model; only if you trust its authors"
    )
    skip_bad: bool = setting(False, "Skip bad rows of the data, and count them")

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {name: getattr(self, name) for name in REAL_ONLY}
        for name, on in {**given, "dtype": self.dtype != "auto"}.items():
            if on and not self.real:
                raise ValueError(f"{name} needs a real model: give --model a folder or a hub id")

    def trained_by(self, ours: type[Any]) -> Any:
        """The class that trains: a variant's own, or that of the engine for the package's class `ours`.

        Raises:
            ValueError: a variant with TRL's engine, an unknown engine, or TRL is missing, in one line.
        """
        from rlhflab.engines.choice import engine_class

        engine = getattr(self, "engine", "lab")
        if self.training is None:
            return engine_class(engine, ours)
        if engine != "lab":
            raise ValueError(f"engine must be lab with a training of its own, got {engine!r}")
        return self.training

    def loading(self, rows: int, twice: float = 0.0, dtype: str | None = None) -> LoadSettings:
        """How a real model is loaded.

        Args:
            rows: answers in a forward pass with gradient, over all processes.
            twice: fraction of them whose graph is differentiated twice.
            dtype: overrides the setting.
        """
        from rlhflab import processes
        from rlhflab.models.loading import LoadSettings

        targets = tuple(name.strip() for name in self.lora_targets.split(",") if name.strip())
        return LoadSettings(
            four_bit=self.four_bit, lora=self.lora, lora_rank=self.lora_rank, lora_targets=targets,
            max_length=self.max_length, gradient_checkpointing=self.gradient_checkpointing, dtype=dtype or self.dtype,
            trust_remote_code=self.trust_remote_code, rows=processes.largest_share(rows), device=self.device,
            seed=getattr(self, "seed", 0), answer_tokens=getattr(self, "max_new_tokens", 0), twice=twice,
        )  # fmt: skip
