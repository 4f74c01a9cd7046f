"""Time of one reward-model update: ours, TRL's RewardTrainer (at its defaults, at its best), and a bare loop.

All train the same tiny model (the SFT trunk, a new head with a bias) on the same batches of 32 pairs, in one process,
in turns; their losses must agree. One process a number of torch threads. A step of ours includes taking the pairs and
their texts from the pool and the whole record. `ours_tested` looks every ten updates at 512 held-out pairs as well.

TRL pads with the tokenizer's pad token, by which it finds the end of an answer; our batches repeat the last token and
carry a mask. TRL is left at its defaults but for what must be: see `common.time_trainer`.
"""

from __future__ import annotations

import argparse
import copy
import time
from typing import Any

from benchmarks.common import (
    TRL_LEAN,
    WARMUP,
    Timed,
    Turns,
    emit,
    machine,
    measure_or_start,
    parser,
    step_figures,
    step_targets,
    time_algorithm,
    time_trainer,
)

BATCH, RATE = 32, 1e-3


class Setting:
    """The model, the batches and our algorithm, as recipes.Reward makes them, but with a constant learning rate."""

    def __init__(self, steps: int) -> None:
        import torch

        from rlhflab import recipes

        built = recipes.Reward(pairs=2000, evaluate=False, progress=False).build()
        self.model, self.rankings, self.steps = built.reward_model, built.rankings, steps
        generator = torch.Generator().manual_seed(built.config.seed)
        ids = [torch.randint(2000, (BATCH,), generator=generator) for _ in range(steps)]
        self.batches = [self.rankings.take(part, 0.0).answers for part in ids]

    def ours(self, held_out: int) -> Any:
        """Our algorithm at step 0."""
        from rlhflab.algorithms.reward_modelling import RewardModelling
        from rlhflab.settings.reward import RewardSettings

        config = RewardSettings(
            steps=self.steps,
            batch_size=BATCH,
            schedule="constant",
            warmup=0,
            held_out=held_out,
            learning_rate=RATE,
        )
        return RewardModelling(copy.deepcopy(self.model), self.rankings, config)

    def rows(self) -> list[dict[str, list[int]]]:
        """All pairs in training order, as TRL's tokenised data set."""
        rows = []
        for batch in self.batches:
            lengths = batch.mask.shape[1] - batch.mask.flip(1).int().argmax(1)
            texts = [ids[:length].tolist() for ids, length in zip(batch.input_ids, lengths, strict=True)]
            pairs = zip(texts[:BATCH], texts[BATCH:], strict=True)
            rows += [{"chosen_ids": chosen, "rejected_ids": rejected} for chosen, rejected in pairs]
        return rows


def time_bare(setting: Setting) -> Timed:
    """Forward of whole rows (ours makes tries of them), loss, backward, clipping, fused AdamW, and nothing else."""
    import torch

    model = copy.deepcopy(setting.model)
    parameters = list(model.parameters())
    adam = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0, fused=True)
    rows = torch.arange(2 * BATCH)
    times, losses = [], []
    for batch in setting.batches:
        began = time.perf_counter()
        last = batch.mask.shape[1] - 1 - batch.mask.flip(1).int().argmax(1)
        hidden = model.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        chosen, rejected = model.score(hidden[rows, last]).squeeze(-1).chunk(2)
        loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        adam.step()
        times.append(time.perf_counter() - began)
        losses.append(loss.detach())
    return times, [float(loss) for loss in losses]


def time_trl(setting: Setting, **settings: Any) -> Timed:
    from trl import RewardConfig, RewardTrainer

    settings |= {
        "per_device_train_batch_size": BATCH, "max_steps": setting.steps, "learning_rate": RATE,
    }  # fmt: skip
    model = copy.deepcopy(setting.model)
    return time_trainer(RewardTrainer, RewardConfig, setting.rows(), settings, model=model)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time all of them in turns, in this process."""
    rounds, steps = (2, 40) if args.quick else (5, 100)
    setting = Setting(steps=WARMUP + steps)
    ways = {
        "bare": lambda: time_bare(setting),
        "ours": lambda: time_algorithm(setting.ours(held_out=0), setting.steps),
        "ours_tested": lambda: time_algorithm(setting.ours(held_out=512), setting.steps),
        "trl_default": lambda: time_trl(setting),
        "trl_best": lambda: time_trl(setting, **TRL_LEAN),
    }
    turns = Turns(ways, rounds, f"threads {args.threads}")
    return {
        "threads": args.threads,
        **step_figures(turns),
        "mean_ours_tested_over_bare": turns.over("ours_tested", "bare", mean=True),
        "steps": steps,
        "rounds": rounds,
    }


def main() -> None:
    about = machine()
    _, loops = measure_or_start(parser(__doc__), "benchmarks.reward_step", measure)
    emit("reward_step", about, loops, step_targets(loops))


if __name__ == "__main__":
    main()
