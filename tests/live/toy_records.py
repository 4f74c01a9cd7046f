"""Made-up records with the names, arrays and pairs that the algorithms' records have. No torch."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from rlhflab.core.record import Record
from rlhflab.plots.panel import arrays_of, series_of
from rlhflab.plots.panels import PANELS
from tests.live.toy import ToyDPO

_MORE = {
    "reinforce": ("objective/scores_std", "learning_rate"),
    "ppo": ("objective/scores_std", "grad_norm", "policy/updates"),
    "trpo": ("objective/scores_std", "grad_norm", "trpo/cg_residual"),
    "reward": ("grad_norm", "mean_reward"),
    "race": (),
}
_KNOBS = {"ppo": {"clip_range": 0.2, "epochs": 2.0}, "trpo": {"max_kl": 0.02}}
_LENGTHS = {"scatter/true": 300, "scatter/model": 300, "ratio": 256}


def exact_series(name: str) -> set[str]:
    """The series of an algorithm's panels in a world that can be enumerated."""
    return {series for series in series_of(PANELS[name]) if not series.startswith("estimated/")}


def toy_records(name: str, steps: int = 40) -> Iterator[Record]:
    """Records of `steps` updates of the algorithm `name`: all its panels can be filled."""
    rng = random.Random(0)
    scalars = [series for series in sorted(exact_series(name)) if not series.startswith("exact/")]
    for source in ToyDPO(steps=steps, pause=0):
        arrays = {
            array: tuple(math.exp(rng.gauss(0, 0.1)) for _ in range(_LENGTHS.get(array, 9)))
            for array in arrays_of(PANELS[name])
        }
        more = [series.removeprefix("exact/") for series in series_of(PANELS[name]) if "exact/" in series]
        exact = source.exact and {**dict.fromkeys(more, 0.5), **source.exact}
        if name == "race" or name.endswith("-control"):
            exact = None
        yield Record(
            source.step,
            {series: rng.random() for series in (*scalars, *_MORE.get(name, ()))},
            {"beta": 0.3, **_KNOBS.get(name, {})},
            source.pairs if name == "reward" else None,
            source.samples if name not in ("reward", "race") else (),
            exact,
            arrays=arrays,
        )
