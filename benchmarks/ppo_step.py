"""Time of a whole PPO iteration (sampling, log-probabilities, values, GAE, four epochs): ours and TRL's PPOTrainer.

TRL 1.12.0 has the last one that exists. It runs in a Python environment of its own, which `--install` makes under the
cache folder, as a worker that trains a stretch of iterations when asked (`ppo_peer`); so all take turns on one machine.

All start from the same tiny SFT policy and take batches of 32 answers of at most 4 tokens to the micro world's prompts,
4 epochs of one minibatch, β = 1, λ = 0.95, the clip at 0.2 and a constant learning rate of 1e-4.

- ours_four: four models as TRL has them. A value model with a trunk of its own, a learned reward model; value clip on.
- ours_shared: a value head on the policy's trunk, and the true reward, which is a look-up: our defaults.
- ours_shared_model: a value head on the policy's trunk, a learned reward model.
- trl_default: PPOTrainer at its defaults but for the settings above (its temperature is set from 0.7 to 1, so that its
  samples are the policy's), the EOS as its stop token, no bf16 on a CPU, no trackers, no checkpoints. Its reward and
  value models are AutoModelForSequenceClassification with the same weights as ours (its head has no bias). It logs
  every iteration to its progress bar, whose output goes to a file.
- trl_no_gc: the same process with its calls of gc.collect() and empty_cache() made to do nothing.
- bare_four, bare_shared: the same model calls on whole rows (ours makes tries of them) and no more: sampling with the
  cache, one pass each of reference, reward model and value model, then four times forward, loss, backward, clipping,
  fused AdamW. No masks, no GAE (advantages are centred scores), no diagnostics.

TRL's update differs from ours where it must: it does not clip gradients, and shuffles a minibatch that is everything.
One process a number of torch threads; the worker has as many.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import (
    Timed,
    Turns,
    digits,
    emit,
    machine,
    measure_or_start,
    median,
    parser,
    spread,
    time_algorithm,
)

BATCH, EPOCHS, BETA, RATE, CLIP, LAMBDA, VALUE_COEF = 32, 4, 1.0, 1e-4, 0.2, 0.95, 0.1
STRETCH = 25  # iterations before the next one has its turn
TORCH = "torch==2.13.0"  # installed first: what follows must not choose another
PINS = ("trl==1.12.0", "transformers==5.23.0", "accelerate==1.15.0", "datasets==5.2.0")


def environment() -> Path:
    """Folder of TRL's environment."""
    from rlhflab.files import cache_folder

    return cache_folder() / "trl-1.12.0"


def peer_python() -> Path:
    """TRL's Python; it must have been installed."""
    python = environment() / "bin" / "python"
    if not python.is_file():
        raise SystemExit("TRL's PPOTrainer is not installed: python -m benchmarks.ppo_step --install")
    return python


def install() -> None:
    """Make the environment: about 1.5 GB and a few minutes."""
    subprocess.run([sys.executable, "-m", "venv", str(environment())], check=True)
    pip = [str(peer_python()), "-m", "pip", "install"]
    subprocess.run([*pip, TORCH], check=True)
    subprocess.run([*pip, TORCH, *PINS], check=True)


class Setting:
    """The models, and our algorithm with any of them."""

    def __init__(self) -> None:
        from rlhflab import recipes
        from rlhflab.models.loading import frozen_copy
        from rlhflab.models.reward import reward_model_from
        from rlhflab.recipes.reference import tiny_reference
        from rlhflab.recipes.worlds import world_named

        self.world = world_named("micro")
        self.policy = tiny_reference(self.world, progress=False)
        self.ref_policy = frozen_copy(self.policy)
        self.reward = recipes.PPO(reward="model", progress=False).build().task.reward
        self.value_model = reward_model_from(
            self.policy
        )  # the policy's trunk and a head that says 0, as ours

    def ours(self, value: str, learned: bool) -> Any:
        """A PPO run at step 0."""
        from rlhflab.algorithms.ppo import PPO
        from rlhflab.settings.ppo import PPOSettings
        from rlhflab.tasks.language import LanguageTask, Prompts
        from rlhflab.tasks.rewards import TrueReward

        world, policy = self.world, copy.deepcopy(self.policy)
        task = LanguageTask(
            policy,
            self.ref_policy,
            Prompts(world.prompt_ids, world.stop_ids, world.max_tokens),
            self.reward if learned else TrueReward(world),
            BATCH,
            seed=0,
            value=value,
        )
        config = PPOSettings(
            steps=1_000_000, schedule="constant", minibatches=1, value_coef=VALUE_COEF, value_clip=CLIP,
            beta=BETA, learning_rate=RATE, clip_range=CLIP, gae_lambda=LAMBDA, epochs=EPOCHS,
        )  # fmt: skip
        return PPO(task, config)

    def write(self, folder: Path, threads: int) -> None:
        """What the worker reads."""
        from rlhflab.models.quiet import no_progress_bars

        policy = copy.deepcopy(self.policy)
        policy.generation_config.pad_token_id = self.world.tokenizer.pad_token_id
        models = {"policy": policy, "value": self.value_model, "reward": self.reward.reward_model}
        with no_progress_bars():
            for name, model in models.items():
                model.save_pretrained(folder / name)
        self.world.tokenizer.save_pretrained(folder / "policy")
        settings = {
            "threads": threads,
            "prompts": self.world.prompt_ids.repeat(BATCH, 1).tolist(),
            "ppo": {
                "per_device_train_batch_size": BATCH, "total_episodes": 1_000_000 * BATCH, "learning_rate": RATE,
                "num_ppo_epochs": EPOCHS, "num_mini_batches": 1, "kl_coef": BETA, "cliprange": CLIP,
                "cliprange_value": CLIP, "vf_coef": VALUE_COEF, "gamma": 1.0, "lam": LAMBDA, "temperature": 1.0,
                "response_length": self.world.max_tokens, "stop_token": "eos",
            },
        }  # fmt: skip
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")


def stretch_of_ours(algorithm: Any) -> Callable[[], Timed]:
    return lambda: time_algorithm(algorithm, STRETCH, "objective/scores")


class Bare:
    """The same model calls and nothing else; see the module's docstring."""

    def __init__(self, setting: Setting, value: str, learned: bool) -> None:
        import torch

        task = setting.ours(value, learned).task
        self.policy, self.ref_policy, self.trunk, self.head = (
            task.policy,
            task.ref_policy,
            task.trunk,
            task.head,
        )
        self.hidden, self.kept = task._hidden, setting.world.max_tokens
        self.reward_model = setting.reward.reward_model if learned else None
        self.parameters = [*task.policy_parameters(), *task.value_parameters()]
        self.adam = torch.optim.AdamW(self.parameters, lr=RATE, weight_decay=0.0, fused=True)
        self.prompts = setting.world.prompt_ids.repeat(BATCH, 1)[:BATCH]

    def __call__(self) -> Timed:
        times = []
        for _ in range(STRETCH):
            began = time.perf_counter()
            self.iteration()
            times.append(time.perf_counter() - began)
        return times, []

    def iteration(self) -> None:
        import torch

        ids, old_logps, scores = self.collect()
        advantages = scores - scores.mean()
        for _ in range(EPOCHS):
            ratio = (self.logps(self.policy, ids) - old_logps).exp()
            clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
            loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()
            loss = loss + VALUE_COEF * 0.5 * (self.values(ids) - scores).square().mean()
            self.adam.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
            self.adam.step()

    def collect(self) -> tuple[Any, Any, Any]:
        """Token ids [batch, time], log-probabilities [batch, kept], scores [batch, 1]."""
        import torch

        with torch.no_grad():
            ids, cache, token, logps = self.prompts, None, self.prompts, []
            for _ in range(self.kept):
                output = self.policy(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache, step = output.past_key_values, output.logits[:, -1].log_softmax(-1)
                token = torch.multinomial(step.exp(), 1)
                ids = torch.cat([ids, token], 1)
                logps.append(step.gather(1, token))
            self.logps(self.ref_policy, ids)
            if self.trunk is not None:
                self.values(ids)
            if self.reward_model is None:
                return ids, torch.cat(logps, 1), torch.randn(BATCH, 1)
            hidden = self.reward_model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            return ids, torch.cat(logps, 1), self.reward_model.score(hidden[:, -1])

    def logps(self, model: Any, ids: Any) -> Any:
        logits = model(input_ids=ids[:, :-1], use_cache=False, logits_to_keep=self.kept).logits
        return logits.log_softmax(-1).gather(-1, ids[:, -self.kept :].unsqueeze(-1)).squeeze(-1)

    def values(self, ids: Any) -> Any:
        if self.trunk is None:
            return self.head(self.hidden.take())
        return self.head(
            self.trunk(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[:, -self.kept :]
        )


@contextmanager
def trl_worker(setting: Setting, threads: int) -> Iterator[Callable[[bool], Timed]]:
    """Yield a call that lets TRL train a stretch; its argument says whether TRL's gc.collect() and the like act."""
    with tempfile.TemporaryDirectory() as name:
        setting.write(Path(name), threads)
        worker = subprocess.Popen(
            [peer_python(), Path(__file__).with_name("ppo_peer.py"), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(threads), "PYTHONPATH": ""},
        )  # fmt: skip
        assert worker.stdin and worker.stdout
        shift = float(setting.reward.offsets.mean())  # our scores are centred on the reference

        def stretch(collect: bool) -> Timed:
            print(json.dumps({"iterations": STRETCH, "collect": collect}), file=worker.stdin, flush=True)
            line = worker.stdout.readline()
            if not line:
                raise RuntimeError(
                    f"TRL's worker ended: {Path(name, 'log').read_text(encoding='utf-8')[-2000:]}"
                )
            answer = json.loads(line)
            return answer["seconds"], [score - shift for score in answer["scores"]]

        try:
            yield stretch
        finally:
            worker.stdin.close()
            worker.wait(60)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Let all of them train a stretch in turns."""
    setting = Setting()
    with trl_worker(setting, args.threads) as trl:
        ways: dict[str, Callable[[], Timed]] = {
            "ours_four": stretch_of_ours(setting.ours("own", learned=True)),
            "bare_four": Bare(setting, "own", learned=True),
            "trl_default": lambda: trl(True),
            "trl_no_gc": lambda: trl(False),
            "ours_shared_model": stretch_of_ours(setting.ours("shared", learned=True)),
            "ours_shared": stretch_of_ours(setting.ours("shared", learned=False)),
            "bare_shared": Bare(setting, "shared", learned=False),
        }
        turns = Turns(ways, 3 if args.quick else 10, f"threads {args.threads}")
    ours = [name for name in ways if name.startswith("ours")]
    return {
        "threads": args.threads,
        "ms_median": {name: spread(values) for name, values in turns.typical.items()},
        "answers_a_second": {name: digits(1000 * BATCH / median(v)) for name, v in turns.typical.items()},
        "over_trl_default": {name: turns.over(name, "trl_default") for name in ours},
        "over_trl_no_gc": {name: turns.over(name, "trl_no_gc") for name in ours},
        "over_bare": {name: turns.over(f"ours_{name}", f"bare_{name}") for name in ("four", "shared")},
        "mean_score_of_the_last_stretch": {
            name: digits(statistics.fmean(scores)) for name, scores in turns.losses.items() if scores
        },
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--install", action="store_true", help="make TRL's environment and end")
    if options.parse_known_args()[0].install:
        install()
        return
    about = machine()
    peer_python()
    _, loops = measure_or_start(options, "benchmarks.ppo_step", measure)
    targets = []
    for name, loop in loops.items():
        for way in ("ours_shared", "ours_four"):
            targets += [
                (f"{name}: {way} over TRL at its defaults", loop["over_trl_default"][way]["median"], 0.2),
                (f"{name}: {way} over TRL without gc.collect", loop["over_trl_no_gc"][way]["median"], 0.5),
            ]
        for way, figures in loop["over_bare"].items():
            targets.append((f"{name}: ours_{way} over the bare loop", figures["median"], 1.2))
    emit("ppo_step", about, {**loops, "pins": [TORCH, *PINS]}, targets)


if __name__ == "__main__":
    main()
