"""Steps and seconds to a mean return of 475 on CartPole-v1: our PPO, TRPO and REINFORCE, and the peers' PPO and TRPO.

The peers are stable-baselines3's PPO and sb3-contrib's TRPO with their published settings (rl-baselines3-zoo). They run
as a worker (`cartpole_peer`) in a Python environment that `--install` makes under the cache folder; torch, numpy and
gymnasium are the very same as ours there. Ours are those of their recipes, at their defaults. All have one torch thread
and 100,000 steps of the environment, and each seed trains all of them, one after another.

475 is gymnasium's threshold. It is looked for in two ways, the same for all, after the update on each rollout:

- last_100: the mean return of the last 100 episodes of the training, gymnasium's own definition;
- evaluated: the mean return of 100 fresh episodes with sampled actions, every 1,024 steps. Its time is left out.

Steps are transitions; what a copy does between two episodes is none. One of our runs that does not get there counts as
slower than all that do; one of a peer's, as if it had got there at its end: a ratio is then at most what is said.
REINFORCE has no peer there and no target; it stands beside.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cartpole_peer import Clock
from benchmarks.common import digits, emit, machine, offline_with, parser, say

PINS = ("stable-baselines3==2.9.2", "sb3-contrib==2.9.2")
WAYS = ("last_100", "evaluated")

Train = Callable[[int], dict[str, Any]]  # seed → what Clock.result says


def environment() -> Path:
    """Folder of the peers' environment."""
    from rlhflab.files import cache_folder

    return cache_folder() / PINS[0].replace("==", "-")


def peer_python() -> Path:
    """The peers' Python; it must have been installed."""
    python = environment() / "bin" / "python"
    if not python.is_file():
        raise SystemExit("the peers are not installed: python -m benchmarks.cartpole --install")
    return python


def install() -> None:
    """Make the environment: the two packages, and all else from this one."""
    subprocess.run([sys.executable, "-m", "venv", str(environment())], check=True)
    (packages,) = environment().glob("lib/python*/site-packages")
    folders = [folder for folder in sys.path if folder.endswith("site-packages")]
    (packages / "ours.pth").write_text("\n".join(folders) + "\n", encoding="utf-8")
    subprocess.run([str(peer_python()), "-m", "pip", "install", "--no-deps", *PINS], check=True)


@contextmanager
def peers() -> Iterator[Callable[[str], Train]]:
    """Yield algorithm → what trains the peers' in the worker."""
    worker = subprocess.Popen(
        [peer_python(), Path(__file__).with_name("cartpole_peer.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
    )  # fmt: skip
    assert worker.stdin and worker.stdout

    def training(algorithm: str) -> Train:
        def train(seed: int) -> dict[str, Any]:
            print(json.dumps({"algorithm": algorithm, "seed": seed}), file=worker.stdin, flush=True)
            line = worker.stdout.readline()
            if not line:
                raise RuntimeError("the peers' worker ended")
            found: dict[str, Any] = json.loads(line)
            return found

        return train

    try:
        yield training
    finally:
        worker.stdin.close()
        worker.wait(60)


def ours(algorithm: str) -> Train:
    """Train ours until the clock says that it is over."""
    import torch

    from rlhflab import recipes

    def train(seed: int) -> dict[str, Any]:
        run: Any = recipes.CONTROL[algorithm](seed=seed, evaluate_every=1_000_000).build()

        def right(seen: Any) -> Any:
            with torch.no_grad():
                return run.policy(torch.from_numpy(seen)).probs[:, 1].numpy()

        clock = Clock(right)
        for record in run:
            if clock.look(int(record.scalars["env_steps"]), record.scalars.get("episode/return_100")):
                break
        return clock.result()

    return train


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the seeds: None where a run in the middle never got there, and with such runs taken at their end."""
    figures: dict[str, Any] = {
        "steps_a_second": digits(statistics.median(run["end"][0] / run["end"][1] for run in runs)),
        "runs": runs,
    }
    for way in WAYS:
        reached = medians([run[way] or (math.inf, math.inf) for run in runs])
        figures[way] = {
            "reached": sum(run[way] is not None for run in runs),
            **{name: None if math.isinf(value) else digits(value, 4) for name, value in reached.items()},
            "at_least": medians([run[way] or run["end"] for run in runs]),
        }
    return figures


def medians(pairs: Sequence[Sequence[float]]) -> dict[str, float]:
    """Of steps and of seconds."""
    return {
        name: statistics.median(pair[at] for pair in pairs) for at, name in enumerate(("steps", "seconds"))
    }


def over(mine: dict[str, Any], peer: dict[str, Any], what: str) -> float | None:
    """Ratio of medians, at most; None where ours did not get there."""
    return None if mine[what] is None else digits(mine[what] / peer["at_least"][what])


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--install", action="store_true", help="make the peers' environment and end")
    args: argparse.Namespace = options.parse_args()
    if args.install:
        install()
        return
    about = machine()
    offline_with(threads=1)
    with peers() as peer:
        trainings = {
            "ppo": ours("ppo"), "peer_ppo": peer("ppo"), "trpo": ours("trpo"), "peer_trpo": peer("trpo"),
            "reinforce": ours("reinforce"),
        }  # fmt: skip
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in trainings}
        for seed in range(2 if args.quick else 10):
            for name, train in trainings.items():
                runs[name].append(train(seed))
                say(f"seed {seed}, {name}: {runs[name][-1]}")
    figures = {name: summary(found) for name, found in runs.items()}
    targets = []
    for name in ("ppo", "trpo"):
        for way in WAYS:
            mine, theirs = figures[name][way], figures[f"peer_{name}"][way]
            for what, limit in (("steps", 1.0), ("seconds", 0.5)):
                targets.append((f"{name}, {way}: {what} over the peer's", over(mine, theirs, what), limit))
    emit("cartpole", about, {**figures, "pins": PINS}, targets)


if __name__ == "__main__":
    main()
