"""TRL's PPOTrainer as a worker for ppo_step: it trains some iterations each time a line on stdin asks for them.

It runs in an environment of its own (`python -m benchmarks.ppo_step --install`) and knows nothing of rlhflab.
The only argument is a folder with policy/, value/ and reward/ and settings.json. A line of
`{"iterations": 20, "collect": true}` is answered by `{"seconds": […], "scores": […]}`; with `collect` false
PPOTrainer's calls of gc.collect() and empty_cache() do nothing. An iteration is from one on_step_end to the next.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def main() -> None:
    folder = Path(sys.argv[1])
    answers = sys.stdout
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    with (
        (folder / "log").open("w", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        trainer(folder, settings, answers).train()


def trainer(folder: Path, settings: dict[str, Any], answers: Any) -> Any:
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    torch.set_num_threads(settings["threads"])
    empty_cache, collecting = ppo_trainer.empty_cache, [True]
    ppo_trainer.gc = SimpleNamespace(collect=lambda: gc.collect() if collecting[0] else 0)
    ppo_trainer.empty_cache = lambda: empty_cache() if collecting[0] else None

    class Worker(TrainerCallback):
        """Waits for a line before the first iteration and after each stretch."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.wait()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter())
            if len(self.times) > self.iterations:
                seconds = [b - a for a, b in zip(self.times, self.times[1:], strict=False)]
                print(json.dumps({"seconds": seconds, "scores": self.scores}), file=answers, flush=True)
                self.wait()

        def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, float], **__: Any) -> None:
            self.scores.append(logs["objective/scores"])

        def wait(self) -> None:
            line = sys.stdin.readline()
            if not line:
                raise SystemExit
            order = json.loads(line)
            self.iterations, collecting[0] = order["iterations"], order["collect"]
            self.scores: list[float] = []
            self.times = [time.perf_counter()]

    def classifier(name: str) -> Any:
        return AutoModelForSequenceClassification.from_pretrained(folder / name, num_labels=1)

    policy, ref_policy = (AutoModelForCausalLM.from_pretrained(folder / "policy") for _ in range(2))
    return PPOTrainer(
        args=PPOConfig(
            output_dir=str(folder / "out"), use_cpu=True, bf16=False, report_to="none", save_strategy="no",
            lr_scheduler_type="constant", **settings["ppo"],
        ),
        model=policy, ref_model=ref_policy, reward_model=classifier("reward"), value_model=classifier("value"),
        processing_class=AutoTokenizer.from_pretrained(folder / "policy"),
        train_dataset=Dataset.from_dict({"input_ids": settings["prompts"]}), callbacks=[Worker()],
    )  # fmt: skip


if __name__ == "__main__":
    main()
