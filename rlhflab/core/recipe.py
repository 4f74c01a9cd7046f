"""A recipe: all settings of a training, and the code that builds it.

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
        algorithm: its name on the command line and in config.json; by default the class name in lower case.
            A variant of another recipe with its own `training` also gets its own name.
        name: the name that selects its panels: usually the same, but ppo-control for PPO on a control problem.
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
            ValueError: a setting names something that cannot be used, in one line.
            OutOfMemory: the training does not fit.
        """
        raise NotImplementedError(f"{type(self).__name__} has no build()")

    def config(self) -> dict[str, Any]:
        """The contents of config.json: the algorithm's name as `algorithm`, and every setting."""
        return {"algorithm": self.algorithm, **{each.name: getattr(self, each.name) for each in fields(self)}}

    @property
    def title(self) -> str:
        """What is trained, in a few words: "DPO · gpt2 · pairs.jsonl"."""
        where = [self.config().get(name) for name in ("model", "world")]
        short = [Path(text.split("@")[0]).name for text in where if isinstance(text, str)]
        return " · ".join([TITLES.get(self.algorithm, self.algorithm.upper()), *short])
