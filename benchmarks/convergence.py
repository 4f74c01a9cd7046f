"""How near PPO, TRPO and REINFORCE come to the exact optimum of the micro world, and in how many seconds.

Each is built by its recipe at its defaults (the true reward, β = 1) for seeds 0 to 9 and trained to its end with one
thread; exact evaluations are part of the time, building is not. The optimum is J* = β·E_x[log Z(x)], computed over all
37,701 answers to each prompt:

    regret share = (J* − J(π_θ)) / (J* − J(π_ref))        efficiency = reward gained / most that its KL can buy

`seconds_to_target` is when an exact evaluation first showed both targets. REINFORCE has no target; it stands beside.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.common import digits, emit, machine, offline_with, parser, say, spread

EFFICIENCY, REGRET, SECONDS = 0.97, 0.05, 60.0


def train(recipe: Any, seed: int) -> dict[str, float | None]:
    """Train one run to its end."""
    algorithm = recipe(seed=seed, progress=False).build()
    began, reached, exact = time.perf_counter(), None, {}
    for record in algorithm:
        if record.judged_exactly:
            seconds, exact = time.perf_counter() - began, record.judged
            if reached is None and exact["efficiency"] >= EFFICIENCY and regret_share(exact) <= REGRET:
                reached = digits(seconds)
    return {
        "seconds": digits(seconds),
        "seconds_to_target": reached,
        "efficiency": digits(exact["efficiency"], 4),
        "regret_share": digits(regret_share(exact)),
        "kl": digits(exact["kl"]),
    }


def regret_share(exact: Any) -> float:
    return float(exact["regret"] / (exact["optimum"] - exact["ref_reward"]))


def main() -> None:
    args = parser(__doc__).parse_args()
    about = machine()
    offline_with(threads=1)
    from rlhflab import recipes

    methods = {"ppo": recipes.PPO, "trpo": recipes.TRPO, "reinforce": recipes.Reinforce}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
    for seed in range(1 if args.quick else 10):
        for name, recipe in methods.items():
            runs[name].append(train(recipe, seed))
            say(f"seed {seed}, {name}: {runs[name][-1]}")
    figures = {
        name: {
            "runs": found,
            **{
                what: spread([run[what] for run in found])
                for what in ("seconds", "efficiency", "regret_share")
            },
        }
        for name, found in runs.items()
    }
    targets = []
    for name in ("ppo", "trpo"):
        targets += [
            (
                f"{name}: 1 − efficiency, worst seed",
                digits(1 - min(r["efficiency"] for r in runs[name])),
                round(1 - EFFICIENCY, 3),
            ),
            (f"{name}: regret share, worst seed", figures[name]["regret_share"]["greatest"], REGRET),
            (f"{name}: seconds, worst seed", figures[name]["seconds"]["greatest"], SECONDS),
        ]
    emit("convergence", about, figures, targets)


if __name__ == "__main__":
    main()
