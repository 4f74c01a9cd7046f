"""Time of one DPO step: ours, TRL's DPOTrainer (at its defaults, at its best), and a bare loop of the same mathematics.

All train the same tiny SFT model on the same batches of 32 pairs, in one process, in turns; their losses must agree.
One process a number of torch threads. With a browser also: the step with a board open and drawing in JupyterLab.

TRL is left at its defaults but for what must be (batch size, learning rate, no bf16 on a CPU, no trackers) and gets
the token ids we use: by itself it would add an EOS after answers that end by their length.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.common import (
    TRL_LEAN,
    WARMUP,
    Timed,
    Turns,
    emit,
    machine,
    measure_or_start,
    median,
    notebook,
    parser,
    poll,
    spread,
    step_figures,
    step_targets,
    time_algorithm,
    time_trainer,
)

BATCH, BETA, RATE = 32, 1.0, 1e-3


class Setting:
    """The model, the batches and our algorithm, as recipes.DPO makes them, but with a constant learning rate."""

    def __init__(self, steps: int, batches: int | None = None, pairs: int = 2000) -> None:
        from rlhflab import recipes
        from rlhflab.algorithms.dpo import DPO

        built = recipes.DPO(
            beta=BETA, learning_rate=RATE, pairs=pairs, batch_size=BATCH, steps=steps, progress=False
        ).build()
        config = built.config.but(schedule="constant", warmup=0)
        self.policy, self.evaluator, self.steps = copy.deepcopy(built.policy), built.evaluator, steps
        self.ours = DPO(built.policy, built.pairs, config)
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


def time_bare(setting: Setting) -> Timed:
    loop = BareLoop(setting)
    times, losses = [], []
    for _ in range(setting.steps):
        began = time.perf_counter()
        losses.append(loop.step())
        times.append(time.perf_counter() - began)
    return times, [float(loss) for loss in losses]


class BareLoop:
    """Forward of whole rows (ours makes tries of them), loss, backward, clipping, fused AdamW, and nothing else."""

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
        self.clip(self.parameters, 1.0, foreach=True)
        self.adam.step()
        return loss.detach()


def time_trl(setting: Setting, **settings: Any) -> Timed:
    from trl import DPOConfig, DPOTrainer

    settings |= {
        "per_device_train_batch_size": BATCH, "max_steps": setting.steps, "beta": BETA, "learning_rate": RATE,
    }  # fmt: skip
    reference = None if "precompute_ref_log_probs" in settings else copy.deepcopy(setting.policy)
    return time_trainer(
        DPOTrainer,
        DPOConfig,
        setting.rows(),
        settings,
        model=copy.deepcopy(setting.policy),
        ref_model=reference,
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time all of them in turns, in this process."""
    rounds, steps = (2, 40) if args.quick else (5, 100)
    setting = Setting(steps=WARMUP + steps)
    ways = {
        "bare": lambda: time_bare(setting),
        "ours": lambda: time_algorithm(setting.restart(), setting.steps),
        "ours_evaluated": lambda: time_algorithm(setting.restart(evaluate=True), setting.steps),
        "trl_default": lambda: time_trl(setting),
        "trl_best": lambda: time_trl(setting, precompute_ref_log_probs=True, **TRL_LEAN),
    }
    turns = Turns(ways, rounds, f"threads {args.threads}")
    return {
        "threads": args.threads,
        **step_figures(turns),
        "mean_ours_evaluated_over_bare": turns.over("ours_evaluated", "bare", mean=True),
        "steps": steps,
        "rounds": rounds,
    }


# ---- with a board open and drawing: the functions below run in the notebook's kernel --------------------------------


def board_and_bare(out: str, rounds: int, steps: int) -> Any:
    """Return a board; a thread lets it and a bare loop train in turns as soon as the page has written `out`.go."""
    import torch

    from rlhflab.live.board import Board

    torch.set_num_threads(1)
    setting = Setting(steps=100_000, batches=60)
    setting.restart(evaluate=True)
    marks: list[tuple[float, bool]] = []
    board = Board(
        lambda: setting.ours,
        "step",
        "DPO, timed",
        sinks=[lambda record: marks.append((time.perf_counter(), bool(record.judged)))],
        knobs=setting.ours.knobs,
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
        Path(out + ".part").write_text(json.dumps(result), encoding="utf-8")
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
        result = json.loads(out.read_text(encoding="utf-8"))

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
    options.add_argument("--no-browser", action="store_true", help="leave the board out")
    about = machine()
    args, loops = measure_or_start(options, "benchmarks.dpo_step", measure)
    board = None if args.no_browser else measure_with_board(*((2, 120) if args.quick else (5, 300)))
    targets = step_targets(loops)
    if board:
        targets.append(("board open and drawing, over the bare loop", board["over_bare"]["median"], 1.25))
    emit("dpo_step", about, {**loops, "board": board}, targets)


if __name__ == "__main__":
    main()
