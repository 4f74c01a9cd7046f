"""The grid of a sweep: algorithms × β × seeds × further settings, and its cells."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from rlhflab.core.recipe import Recipe
from rlhflab.files import written_beside
from rlhflab.seeds import require_seed

AXES = ("algorithms", "betas", "seeds")
Make = Callable[[Any, dict[str, Any]], Recipe]
RecipeClass = Callable[[str, str | None], type[Any]]  # names of algorithm and world → recipe


class Cell(NamedTuple):
    """One run of a sweep.

    Attributes:
        name: its folder's name, such as `dpo-beta0.3-pairs200-seed0`.
        algorithm, beta, seed: its place on the axes; no beta if the algorithm has none in its world.
        swept: its values of the further settings that are swept.
        recipe: what it trains.
    """

    name: str
    algorithm: str
    beta: float | None
    seed: int
    swept: dict[str, Any]
    recipe: Recipe


@dataclass(frozen=True)
class Grid:
    """What a sweep varies.

    Attributes:
        algorithms: names that `recipes.recipe_class` knows.
        betas: KL strengths > 0.
        seeds: whole numbers ≥ 0.
        settings: further settings of the recipes, name → values: a single value applies to all cells, several are
            swept. A setting that only some of the algorithms have is applied to those.

    Raises:
        ValueError: an empty axis, a repeated value, or one that is not allowed.
    """

    algorithms: Sequence[str]
    betas: Sequence[float] = (1.0,)
    seeds: Sequence[int] = (0,)
    settings: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in [*((axis, getattr(self, axis)) for axis in AXES), *self.settings.items()]:
            if not values:
                raise ValueError(f"{name} must have at least one value")
            twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
            if twice is not None:
                raise ValueError(f"{name} has {twice!r} twice")
        for beta in self.betas:
            if not (math.isfinite(beta) and beta > 0):
                raise ValueError(f"beta must be a number > 0, got {beta!r}")
        for seed in self.seeds:
            require_seed(seed)
        for name, axis in (("algorithm", "algorithms"), ("beta", "betas"), ("seed", "seeds")):
            if name in self.settings:
                raise ValueError(f"{name} is not a further setting; give it as the grid's {axis}")

    def cells(
        self, recipe_class: RecipeClass, make: Make = lambda found, given: found(**given)
    ) -> list[Cell]:
        """Return all cells; those of the first seed come first, so that an early look covers the whole grid.

        Args:
            recipe_class: names of algorithm and world → the recipe's class, which declares the settings.
            make: that class and a cell's values → its recipe.

        Raises:
            ValueError: an unknown algorithm, a setting that none of the algorithms has, or a value that is not allowed.
        """
        worlds = self.settings.get("world", (None,))
        known = {(name, world): recipe_class(name, world) for name, world in product(self.algorithms, worlds)}
        for setting in self.settings:
            if not any(setting in found.declared() for found in known.values()):
                raise ValueError(f"no setting {setting} in {', '.join(self.algorithms)}")
        cells = []
        for seed, beta, ((name, world), found) in product(self.seeds, self.betas, known.items()):
            declared = found.declared()
            if "beta" not in declared and beta != self.betas[0]:
                continue
            own = {setting: values for setting, values in self.settings.items() if setting in declared}
            if world is not None:
                own["world"] = [world]
            quiet = {"progress": False} if "progress" in declared else {}  # the sweep has its own bar
            for values in product(*own.values()):
                chosen = dict(zip(own, values, strict=True))
                swept = {name: value for name, value in chosen.items() if len(self.settings[name]) > 1}
                own_beta = {"beta": float(beta)} if "beta" in declared else {}
                recipe = make(found, {**quiet, **chosen, **own_beta, "seed": seed})
                cells.append(
                    Cell(_name(name, own_beta, seed, swept), name, own_beta.get("beta"), seed, swept, recipe)
                )
        return cells

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for sweep.json."""
        return {
            "algorithms": list(self.algorithms),
            "betas": [float(beta) for beta in self.betas],
            "seeds": list(self.seeds),
            "settings": {name: list(values) for name, values in self.settings.items()},
        }

    def keep(self, path: Path) -> None:
        """Write the grid to `path`."""
        with written_beside(path) as beside:
            beside.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    def check_continues(self, path: Path) -> None:
        """Check that the sweep in `path` can continue with this grid: it may add values to an axis, not remove any.

        Raises:
            ValueError: the grids differ (says in what), or the file is damaged.
        """
        try:
            former = json.loads(path.read_text(encoding="utf-8"))
            before = {**former.pop("settings"), **{axis: former[axis] for axis in AXES}}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from None
        axes = self.to_dict()
        now = {**axes.pop("settings"), **axes}
        for name in {**before, **now}:
            old, new = before.get(name, []), now.get(name, [])
            may_grow = name in AXES or len(old) > 1  # a setting with one value is in no cell's name
            if not (all(value in new for value in old) if may_grow else old == new):
                raise ValueError(
                    f"{path.parent} holds another sweep: {name} {_listed(old)} there, {_listed(new)} here; "
                    "use another folder, or keep its values and add to them"
                )


def _listed(values: Sequence[Any]) -> str:
    return ",".join(map(str, values)) or "by default"


def _name(algorithm: str, beta: Mapping[str, float], seed: int, swept: Mapping[str, Any]) -> str:
    betas = [f"{name}{value!r}".removesuffix(".0") for name, value in beta.items()]
    settings = [f"{setting}{_word(value)}" for setting, value in swept.items()]
    return "-".join([algorithm, *betas, *settings, f"seed{seed}"])


def _word(value: Any) -> str:
    """The value as a part of a file name; one that must be changed for that gets a few digits of its hash."""
    text = str(value)
    word = re.sub(r"[^\w.+-]+", "_", text)[-30:]
    return word if word == text else f"{word}_{hashlib.sha256(text.encode()).hexdigest()[:6]}"
