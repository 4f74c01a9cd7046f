"""Time of one DPO step: ours, TRL's DPOTrainer (at its defaults, at its best), and a bare loop of the same mathematics.

All train the same tiny SFT model on the same batches of 32 pairs, in one process, in turns; their losses must agree.
One process a number of torch threads. With a browser also: the step with a board open and drawing in JupyterLab.

TRL is left at its defaults but for what must be (batch size, learning rate, no bf16 on a CPU, no trackers) and gets
the token ids we use: by itself it would add an EOS after answers that end by their length.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, emit, machine, median, notebook, parser, poll, say, spread

BATCH, BETA, RATE, WARMUP = 32, 1.0, 1e-3, 5
AGREED = 20  # first steps whose losses are compared


class Setting:
    """The model, the batches and our algorithm, as build_dpo makes them, but with a constant learning rate."""

    def __init__(self, steps: int, batches: int | None = None, pairs: int = 2000) -> None:
        from rlhflab.algorithms.build import build_dpo
        from rlhflab.algorithms.dpo import DPO, DPOConfig

        built = build_dpo(
            beta=BETA, learning_rate=RATE, pairs=pairs, batch_size=BATCH, steps=steps, progress=False
        )
        config = DPOConfig(steps=steps, schedule="constant", warmup=0)
        self.policy, self.evaluator, self.steps = copy.deepcopy(built.policy), built.evaluator, steps
        self.ours = DPO(built.policy, built.pairs, config, built.knobs)
        self._begin = copy.deepcopy(self.ours.state_dict())
        self.start = built.pairs.start
        self.batches = [built.pairs.next() for _ in range(batches or steps)]

    def restart(self, evaluate: bool = False) -> Any:
        """Our algorithm at step 0."""
        self.ours.load_state_dict(copy.deepcopy(self._begin))
        self.ours.evaluator = self.evaluator if evaluate else None
        return self.ours

    def rows(self) -> list[dict[str, list[int]]]:
        """All pairs in training order, as TRL's tokenised data set."""
        rows = []
        for batch in self.batches:
            ids, mask = batch.answers.input_ids, batch.answers.mask
            for at in range(BATCH):
                rows.append({
                    "prompt_ids": ids[at, : self.start].tolist(),
                    "chosen_ids": ids[at][mask[at]].tolist(),
                    "rejected_ids": ids[at + BATCH][mask[at + BATCH]].tolist(),
                })  # fmt: skip
        return rows


Timed = tuple[list[float], list[float]]  # seconds a step, loss of each step


def time_ours(setting: Setting, evaluate: bool = False) -> Timed:
    times, losses = [], []
    algorithm = setting.restart(evaluate)
    for _ in range(setting.steps):
        began = time.perf_counter()
        record = next(algorithm)
        times.append(time.perf_counter() - began)
        losses.append(record.scalars["loss"])
    return times, losses


def time_bare(setting: Setting) -> Timed:
    loop = BareLoop(setting)
    times, losses = [], []
    for _ in range(setting.steps):
        began = time.perf_counter()
        losses.append(loop.step())
        times.append(time.perf_counter() - began)
    return times, [float(loss) for loss in losses]


class BareLoop:
    """Forward, loss, backward, clipping, fused AdamW; the fastest way we know, and nothing else."""

    def __init__(self, setting: Setting) -> None:
        import torch

        self.policy = copy.deepcopy(setting.policy)
        self.batches, self.start, self.at = setting.batches, setting.start, 0
        self.parameters = list(self.policy.parameters())
        self.adam = torch.optim.AdamW(self.parameters, lr=RATE, weight_decay=0.0, fused=True)
        self.clip = torch.nn.utils.clip_grad_norm_
        self.logsigmoid = torch.nn.functional.logsigmoid

    def step(self) -> Any:
        batch = self.batches[self.at % len(self.batches)]
        self.at += 1
        ids, mask, ref_logps = batch.answers.input_ids, batch.answers.mask, batch.ref_logps
        kept = ids.shape[1] - self.start
        logits = self.policy(input_ids=ids[:, :-1], use_cache=False, logits_to_keep=kept).logits
        logps = logits.log_softmax(-1).gather(-1, ids[:, self.start :].unsqueeze(-1)).squeeze(-1)
        chosen, rejected = (BETA * ((logps * mask[:, self.start :]).sum(1) - ref_logps)).chunk(2)
        loss = -self.logsigmoid(chosen - rejected).mean()
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.clip(self.parameters, 1.0)
        self.adam.step()
        return loss.detach()


def time_trl(setting: Setting, **settings: Any) -> Timed:
    """TRL's own train(); a step is from one on_step_begin to the next, data loading and logging included."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from rlhflab.algorithms.build import micro_world

    starts: list[float] = []
    losses: list[Any] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            starts.append(time.perf_counter())

    class Tokenised(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            losses.append(loss.detach())
            return loss

    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w") as log:
        config = DPOConfig(
            output_dir=folder, per_device_train_batch_size=BATCH, max_steps=setting.steps, beta=BETA,
            learning_rate=RATE, lr_scheduler_type="constant", train_sampling_strategy="sequential",
            use_cpu=True, bf16=False, report_to="none", **settings,
        )  # fmt: skip
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            reference = None if config.precompute_ref_log_probs else copy.deepcopy(setting.policy)
            trainer = Tokenised(
                model=copy.deepcopy(setting.policy), ref_model=reference, args=config,
                train_dataset=Dataset.from_list(setting.rows()), processing_class=micro_world().tokenizer,
                callbacks=[Clock()],
            )  # fmt: skip
            trainer.train()
    return [b - a for a, b in pairwise(starts)], [float(loss) for loss in losses]


TRL_BEST: dict[str, Any] = {
    "precompute_ref_log_probs": True, "gradient_checkpointing": False, "optim": "adamw_torch_fused",
    "logging_strategy": "no", "save_strategy": "no", "disable_tqdm": True, "dataloader_num_workers": 0,
    "dataloader_pin_memory": False,
}  # fmt: skip


def measure(threads: int, rounds: int, steps: int) -> dict[str, Any]:
    """Time all of them in turns, in this process."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(threads)
    setting = Setting(steps=WARMUP + steps)
    ways = {
        "bare": time_bare,
        "ours": time_ours,
        "ours_evaluated": lambda s: time_ours(s, evaluate=True),
        "trl_default": time_trl,
        "trl_best": lambda s: time_trl(s, **TRL_BEST),
    }
    typical: dict[str, list[float]] = {name: [] for name in ways}
    mean: dict[str, list[float]] = {name: [] for name in ways}
    losses: dict[str, list[float]] = {}
    for turn in range(rounds + 1):  # the first round warms up
        order = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
        for name in order:
            times, losses[name] = ways[name](setting)
            if turn:
                typical[name].append(1000 * statistics.median(times[WARMUP:]))
                mean[name].append(1000 * statistics.fmean(times[WARMUP:]))
        last = {name: round(values[-1], 2) for name, values in typical.items() if values}
        say(f"threads {threads}, round {turn} of {rounds}: ms a step {last or 'warm-up'}")

    def over(a: dict[str, list[float]], name: str, other: str) -> dict[str, float]:
        return spread([x / y for x, y in zip(a[name], a[other], strict=True)])

    apart = {
        name: max(abs(a - b) for a, b in zip(values[:AGREED], losses["bare"][:AGREED], strict=True))
        for name, values in losses.items()
        if name != "bare"
    }
    return {
        "threads": threads,
        "ms_median": {name: spread(values) for name, values in typical.items()},
        "ms_mean": {name: median(values) for name, values in mean.items()},
        "over_bare": {name: over(typical, name, "bare") for name in ways if name != "bare"},
        "ours_over_trl_default": over(typical, "ours", "trl_default"),
        "ours_over_trl_best": over(typical, "ours", "trl_best"),
        "mean_ours_evaluated_over_bare": over(mean, "ours_evaluated", "bare"),
        "greatest_loss_difference_from_bare": {name: float(f"{value:.2g}") for name, value in apart.items()},
        "steps": steps,
        "rounds": rounds,
    }


# ---- with a board open and drawing: the functions below run in the notebook's kernel --------------------------------


def board_and_bare(out: str, rounds: int, steps: int) -> Any:
    """Return a board; a thread lets it and a bare loop train in turns as soon as the page has written `out`.go."""
    import torch

    from rlhflab.algorithms.dpo import DPOKnobs
    from rlhflab.live.board import Board

    torch.set_num_threads(1)
    setting = Setting(steps=100_000, batches=60)
    setting.restart(evaluate=True)
    marks: list[tuple[float, bool]] = []
    board = Board(
        lambda: setting.ours,
        "step",
        "DPO, timed",
        sinks=[lambda record: marks.append((time.perf_counter(), record.exact is not None))],
        knobs=DPOKnobs,
    )

    def compare() -> None:
        loop = BareLoop(setting)
        result: dict[str, list[float]] = {"bare": [], "board": [], "board_evaluated": []}
        poll(Path(out + ".go").exists, 120, "the page")
        for turn in range(rounds + 1):
            began = len(marks)
            board.start()
            poll(lambda began=began: len(marks) > began + steps, 300, "steps")
            board.pause()
            board.wait(20)
            pieces = marks[began + WARMUP :]
            gaps = [(b[0] - a[0], b[1]) for a, b in pairwise(pieces)]
            times = []
            for _ in range(WARMUP + steps):
                at = time.perf_counter()
                loop.step()
                times.append(time.perf_counter() - at)
            if turn:
                result["board"].append(1000 * statistics.fmean(gap for gap, exact in gaps if not exact))
                result["board_evaluated"].append(1000 * statistics.fmean(gap for gap, _ in gaps))
                result["bare"].append(1000 * statistics.fmean(times[WARMUP:]))
        Path(out + ".part").write_text(json.dumps(result))
        Path(out + ".part").rename(out)

    threading.Thread(target=compare, daemon=True).start()
    return board


def measure_with_board(rounds: int, steps: int) -> dict[str, Any]:
    """Open a real board in a real JupyterLab and let it train in turns with the bare loop in the same kernel."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name, "result.json")
        cell = (
            f"from benchmarks.dpo_step import board_and_bare\nboard_and_bare({str(out)!r}, {rounds}, {steps})"
        )
        with notebook(Path(name), cell) as page:
            page.wait_for_selector(".rlhf .rlhf-plot .main-svg", timeout=120_000)
            page.evaluate("""() => { window.drawn = 0; const react = Plotly.react;
                Plotly.react = (...a) => { window.drawn += 1; return react.apply(Plotly, a); }; }""")
            Path(str(out) + ".go").touch()
            began = time.monotonic()
            poll(lambda: page.wait_for_timeout(500) or out.exists(), 600, "board against bare")
            drawn = page.evaluate("window.drawn") / (time.monotonic() - began)
        result = json.loads(out.read_text())

    def over(name: str) -> dict[str, float]:
        return spread([a / b for a, b in zip(result[name], result["bare"], strict=True)])

    return {
        "ms_mean": {name: median(values) for name, values in result.items()},
        "over_bare": over("board"),
        "over_bare_evaluations_included": over("board_evaluated"),
        "panels_drawn_a_second": round(drawn, 1),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--threads", type=int, help="measure in this process with so many torch threads, no more"
    )
    options.add_argument("--no-browser", action="store_true", help="leave the board out")
    options.add_argument("--no-loops", action="store_true", help="the board only")
    args = options.parse_args()
    rounds, steps = (2, 40) if args.quick else (5, 100)
    if args.threads:
        with contextlib.redirect_stdout(sys.stderr):
            result = measure(args.threads, rounds, steps)
        print(json.dumps(result))
        return
    about = machine()
    loops = {}
    for threads in () if args.no_loops else (1, 2):
        command = [sys.executable, "-m", "benchmarks.dpo_step", "--threads", str(threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(
            command + ["--quick"] * args.quick, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True
        )
        loops[f"threads_{threads}"] = json.loads(done.stdout.splitlines()[-1])
    board = None if args.no_browser else measure_with_board(rounds, 3 * steps)
    targets = []
    for name, loop in loops.items():
        targets += [
            (f"{name}: ours over TRL at its defaults", loop["ours_over_trl_default"]["median"], 0.5),
            (f"{name}: ours over TRL at its best", loop["ours_over_trl_best"]["median"], 0.999),
            (f"{name}: ours over the bare loop", loop["over_bare"]["ours"]["median"], 1.1),
            (f"{name}: losses agree", max(loop["greatest_loss_difference_from_bare"].values()), 1e-4),
        ]
    if board:
        targets.append(("board open and drawing, over the bare loop", board["over_bare"]["median"], 1.25))
    emit("dpo_step", about, {**loops, "board": board}, targets)


if __name__ == "__main__":
    main()
