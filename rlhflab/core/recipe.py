"""A recipe: the settings of a whole training, and what builds it.

    @dataclass(frozen=True, kw_only=True)
    class Mine(Recipe):
        steps: int = setting(100, "Updates to make", at_least=1)

        def build(self):
            return MyAlgorithm(self)                 # an iterator of records

Boards, runs, sweeps and the command line take any recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from rlhflab.core.algorithm import Algorithm
from rlhflab.core.settings import Settings

TITLES = {
    "sft": "SFT",
    "pretrain": "Pre-training",
    "reward": "Reward model",
    "reinforce": "REINFORCE",
    "race": "Race",
}


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """Base class; a subclass declares its settings and builds its algorithm.

    Attributes:
        algorithm: the name that the command line and a run's config.json have; by default the class's, in lower case.
            A variant of another recipe, with a `training` of its own, has a name of its own too.
        name: that of the algorithm's panels: the same, but ppo-control for PPO on a control problem.
        words: what it does, in one sentence.
    """

    algorithm: ClassVar[str] = ""
    name: ClassVar[str] = ""
    words: ClassVar[str] = ""

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        own = vars(cls)
        if "algorithm" not in own and own.keys() & {"build", "_build", "training"}:
            cls.algorithm = cls.__name__.lower()
        if "name" not in own and "algorithm" in vars(cls) and not ("training" in own and cls.name):
            cls.name = cls.algorithm

    def build(self) -> Algorithm:
        """Return the training, ready to iterate.

        Raises:
            ValueError: what is named cannot be used, in one line.
            OutOfMemory: what is built does not fit.
        """
        raise NotImplementedError(f"{type(self).__name__} has no build()")

    def config(self) -> dict[str, Any]:
        """The algorithm's name as `algorithm`, and every setting: what config.json keeps."""
        return {"algorithm": self.algorithm, **{each.name: getattr(self, each.name) for each in fields(self)}}

    @property
    def title(self) -> str:
        """What is trained, in a few words: "DPO · gpt2 · pairs.jsonl"."""
        where = [self.config().get(name) for name in ("model", "world")]
        short = [Path(text.split("@")[0]).name for text in where if isinstance(text, str)]
        return " · ".join([TITLES.get(self.algorithm, self.algorithm.upper()), *short])
