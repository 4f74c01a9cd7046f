"""Real architectures: step time and peak memory of our DPO and reward loops beside TRL's trainers.

OPT-350m and GPT-2 with random weights, trained whole, with LoRA, and with LoRA on 4-bit weights, on a CPU or a CUDA
device. Every case runs in a process of its own, so that its peak memory is its own; the ways of one case run after each
other, in an order that turns. All see the same batches of pairs, with lengths like those of hh-rlhf, and their losses
must agree.

Like is compared with like: ours with TRL made lean (no gradient checkpointing, fused optimiser, no logging), and ours
with gradient checkpointing with TRL at its defaults, which checkpoints. Each pair comes once, so both loops run the
reference at every step; from the second epoch on ours would not. TRL gets its usual precision: bf16=True where the base
is bfloat16, fp16=True where it is float16. The models have no dropout in their configuration: of OPT's TRL takes out
none, because it is a function there and no module.

Memory is the peak while steps are made, less what the process held before it loaded the model: resident memory on a
CPU, allocated memory on CUDA. The share of instrumentation is what our step takes outside of data and update: scalars,
values of every pair, the record.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, TRL_LEAN, digits, emit, machine, offline_with, parser, say, time_trainer

SHAPES: dict[str, dict[str, Any]] = {
    "opt-350m": {
        "kind": "opt", "vocab_size": 50272, "hidden_size": 1024, "word_embed_proj_dim": 512, "ffn_dim": 4096,
        "num_hidden_layers": 24, "num_attention_heads": 16, "max_position_embeddings": 2048,
        "do_layer_norm_before": False, "dropout": 0.0,
    },
    "gpt2": {
        "kind": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024,
        "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    },
    "qwen2-0.5b": {
        "kind": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
    },
}  # fmt: skip
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lora": {"lora": True},
    "4bit": {"lora": True, "four_bit": True},
}
WAYS = ("ours", "trl_lean", "ours_checkpointed", "trl_default")
RATE, BETA, WARMUP = 1e-5, 0.1, 1


# ---- one case, in its own process ---------------------------------------------------------------------------------


def token_pairs(count: int, length: int, seed: int = 0) -> Any:
    """Random pairs as long as hh-rlhf's are about: a median of 80 tokens before the answer and of 35 in it."""
    from rlhflab.data.encoding import PairTokens

    draw = random.Random(seed)

    def some(median: float, spread: float, most: int) -> list[int]:
        size = min(most, max(2, round(draw.lognormvariate(0, spread) * median)))
        return [draw.randrange(10, 390) for _ in range(size)]

    shrink = min(1.0, length / 256)
    columns: tuple[list[list[int]], ...] = ([], [], [])
    for _ in range(count):
        prompt = some(80 * shrink, 0.8, length // 2)
        columns[0].append(prompt)
        for column in columns[1:]:
            column.append([*some(35 * shrink, 0.8, length - len(prompt) - 1), 0])
    return PairTokens(*columns)


class Peak:
    """Peak memory from `start` on, less what there was when this was made."""

    def __init__(self, device: Any) -> None:
        self._device, self._before = device, 0.0
        self._before = self._now()

    def _now(self, field: str = "VmRSS") -> float:
        import torch

        if self._device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self._device))
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024.0 * int(next(line for line in lines if line.startswith(field)).split()[1])

    def start(self) -> None:
        import torch

        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew

    def megabytes(self) -> float:
        return (self._now("VmHWM") - self._before) / 1e6


def run_case(args: argparse.Namespace) -> dict[str, Any]:
    """Train with one way; the times, losses and peak of its steps."""
    import torch

    from rlhflab.models.devices import choose_device
    from rlhflab.models.loading import LoadSettings

    goal, name, form, way = args.case.split(",")
    device = choose_device("auto")
    settings = LoadSettings(
        **FORMS[form],
        rows=2 * args.batch,
        max_length=args.length,
        gradient_checkpointing=way == "ours_checkpointed",
    )
    if way.startswith("trl"):
        import trl  # noqa: F401  # its imports count for nobody
    folder, tokens = str(args.folder / name), token_pairs(args.batch * (args.steps + WARMUP), args.length)
    train = {"ours": train_ours, "trl": train_trl}[way.partition("_")[0]]
    result = train(goal, folder, settings, tokens, args, way, Peak(device))
    if device.type == "cuda":
        torch.cuda.synchronize()
    return result


def train_ours(
    goal: str, folder: str, settings: Any, tokens: Any, args: argparse.Namespace, way: str, peak: Peak
) -> dict[str, Any]:
    from rlhflab.algorithms.dpo import DPO
    from rlhflab.algorithms.reward_modelling import RewardModelling
    from rlhflab.data.pair_source import LongPairs
    from rlhflab.data.ranking_source import LongRankings
    from rlhflab.models.loading import load_policy, load_reference, load_reward_model
    from rlhflab.settings.dpo import DPOSettings
    from rlhflab.settings.reward import RewardSettings
    from rlhflab.worlds.preferences import PreferencePair

    steps = args.steps + WARMUP
    texts = [PreferencePair("a prompt", "an answer", "another") for _ in tokens.prompts]
    algorithm: Any
    if goal == "dpo":
        loaded = load_policy(folder, settings)
        source = LongPairs(texts, tokens, load_reference(loaded.model), args.batch, 0)
        source._batches = _InOrder(args.batch)
        config = DPOSettings(steps=steps, schedule="constant", warmup=0, beta=BETA, learning_rate=RATE)
        algorithm = DPO(loaded.model, source, config)
        fetch, take = source, "next"
    else:
        loaded = load_reward_model(folder, settings)
        rankings = LongRankings(texts, tokens, loaded.model, 0)
        turns, take_by_id = _InOrder(args.batch), rankings.take
        rankings.take = lambda ids, noise: take_by_id(turns.next(), noise)  # type: ignore[method-assign]
        reward_config = RewardSettings(
            steps=steps, batch_size=args.batch, schedule="constant", warmup=0, held_out=0, learning_rate=RATE
        )
        algorithm = RewardModelling(loaded.model, rankings, reward_config)
        fetch, take = rankings, "take"
    inside = [0.0]
    _timed(algorithm, "_update", inside)
    _timed(fetch, take, inside)
    times, losses, shares = [], [], []
    for _ in range(steps):
        inside[0] = 0.0
        began = time.perf_counter()
        record = next(algorithm)
        times.append(time.perf_counter() - began)
        losses.append(record.scalars["loss"])
        shares.append(1 - inside[0] / times[-1])
        if len(times) == WARMUP:
            peak.start()
    return {
        "seconds": times[WARMUP:], "losses": losses, "megabytes": peak.megabytes(),
        "instrumentation": statistics.median(shares[WARMUP:]),
    }  # fmt: skip


class _InOrder:
    """Batches in the order of the data, as TRL gets them."""

    def __init__(self, size: int) -> None:
        self._at, self._size = 0, size

    def next(self) -> Any:
        import torch

        self._at += self._size
        return torch.arange(self._at - self._size, self._at)


def _timed(owner: Any, name: str, total: list[float]) -> None:
    """Add the time of every call of a method to `total`; a GPU's work is waited for, so that it counts there."""
    import torch

    method: Callable[..., Any] = getattr(owner, name)

    def call(*arguments: Any) -> Any:
        began = time.perf_counter()
        found = method(*arguments)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        total[0] += time.perf_counter() - began
        return found

    setattr(owner, name, call)


def train_trl(
    goal: str, folder: str, settings: Any, tokens: Any, args: argparse.Namespace, way: str, peak: Peak
) -> dict[str, Any]:
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    from rlhflab.models.devices import choose_device
    from rlhflab.models.lora import lora_targets
    from rlhflab.models.precision import choose_dtype
    from rlhflab.models.quantised import keep_gradients, nf4
    from tests.real_models import tokenizer

    device = choose_device("auto")
    kind = AutoModelForCausalLM if goal == "dpo" else AutoModelForSequenceClassification
    width = SHAPES[Path(folder).name].get("hidden_size", 768)
    compute = choose_dtype(device, width) if settings.lora else torch.float32
    given: dict[str, Any] = {"quantization_config": nf4(compute)} if settings.four_bit else {}
    if goal == "reward":
        given |= {"num_labels": 1, "pad_token_id": 1}
    model = kind.from_pretrained(folder, dtype=compute, device_map={"": device}, **given)
    keep_gradients(model)
    if goal == "reward":
        torch.nn.init.zeros_(model.score.weight)  # as ours begins
    adapters = {}
    if settings.lora:
        adapters["peft_config"] = LoraConfig(
            r=settings.lora_rank, lora_alpha=2 * settings.lora_rank, lora_dropout=0.0,
            target_modules=list(lora_targets(model)), modules_to_save=["score"] if goal == "reward" else None,
            task_type="SEQ_CLS" if goal == "reward" else "CAUSAL_LM",
        )  # fmt: skip
    rows: list[dict[str, Any]] = []
    for prompt, chosen, rejected in zip(*tokens, strict=True):
        if goal == "dpo":
            rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
        else:
            rows.append({"chosen_ids": prompt + chosen, "rejected_ids": prompt + rejected})
    steps = args.steps + WARMUP
    usual = {
        "per_device_train_batch_size": args.batch, "max_steps": steps, "learning_rate": RATE,
        "use_cpu": device.type == "cpu", "bf16": compute == torch.bfloat16, "fp16": compute == torch.float16,
        **(TRL_LEAN if way == "trl_lean" else {}), **({"beta": BETA} if goal == "dpo" else {}),
    }  # fmt: skip
    trainer, config = (DPOTrainer, DPOConfig) if goal == "dpo" else (RewardTrainer, RewardConfig)
    words = tokenizer("opt")
    times, losses = time_trainer(trainer, config, rows, usual, words, peak.start, model=model, **adapters)
    return {"seconds": times[WARMUP:] or times, "losses": losses, "megabytes": peak.megabytes()}


# ---- all cases ----------------------------------------------------------------------------------------------------


def write_models(folder: Path, names: list[str]) -> None:
    """Random weights of the architectures, in bfloat16 on the disk, with a small tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from rlhflab.models.quiet import quiet_loading
    from tests.real_models import tokenizer

    for name in names:
        shape = dict(SHAPES[name])
        config = AutoConfig.for_model(
            shape.pop("kind"), **shape, bos_token_id=0, eos_token_id=0, pad_token_id=1
        )
        torch.manual_seed(0)
        with quiet_loading():
            AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder / name)
        tokenizer("opt").save_pretrained(folder / name)


def run_all(args: argparse.Namespace, folder: Path, case: str) -> dict[str, dict[str, Any]]:
    """All ways of one case, in rounds whose order turns; medians over the rounds."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for turn in range(args.rounds):
        for way in [*WAYS][turn:] + [*WAYS][:turn]:
            command = [
                sys.executable, "-m", "benchmarks.qlora", "--case", f"{case},{way}", "--folder", str(folder),
                "--steps", str(args.steps), "--batch", str(args.batch), "--length", str(args.length),
                "--threads", str(args.threads),
            ]  # fmt: skip
            threads = {"OMP_NUM_THREADS": str(args.threads)}
            done = subprocess.run(
                command, cwd=ROOT, env={**os.environ, **threads}, capture_output=True, text=True
            )
            if done.returncode:
                raise RuntimeError(f"{case},{way} failed:\n{done.stderr[-2000:]}")
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
    figures: dict[str, dict[str, Any]] = {}
    for way, results in found.items():
        figures[way] = {
            "seconds": digits(statistics.median([statistics.median(each["seconds"]) for each in results])),
            "megabytes": digits(statistics.median([each["megabytes"] for each in results])),
        }
        if "instrumentation" in results[0]:
            figures[way]["instrumentation"] = digits(
                statistics.median([each["instrumentation"] for each in results]), 2
            )
    first = {way: results[0]["losses"] for way, results in found.items()}
    figures["apart"] = {
        way: digits(max(abs(a - b) for a, b in zip(losses[:2], first["ours"][:2], strict=True)), 2)
        for way, losses in first.items()
        if way != "ours"
    }
    say(case, figures)
    return figures


def targets_of(case: str, figures: dict[str, dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Ours over TRL's, like with like; our instrumentation."""
    targets = []
    for ours, theirs in (("ours", "trl_lean"), ("ours_checkpointed", "trl_default")):
        for what in ("seconds", "megabytes"):
            ratio = digits(figures[ours][what] / figures[theirs][what])
            targets.append((f"{case}: {what}, {ours} over {theirs}", ratio, 1.0))
        targets.append((f"{case}: first losses apart, {theirs}", figures["apart"][theirs], 0.005))
        targets.append((f"{case}: share of instrumentation, {ours}", figures[ours]["instrumentation"], 0.02))
    return targets


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--case", help="measure GOAL,MODEL,FORM,WAY in this process, no more")
    options.add_argument("--folder", type=Path, help="where --case finds the models")
    options.add_argument("--only", default="", help="cases that have this in their name")
    options.add_argument("--steps", type=int, help="steps a run, after one that warms up")
    options.add_argument("--rounds", type=int, help="runs of each way")
    options.add_argument("--batch", type=int, help="pairs a step")
    options.add_argument("--length", type=int, help="most tokens of prompt and answer")
    options.add_argument("--threads", type=int, default=1, help="torch threads")
    args = options.parse_args()
    if args.case:
        with contextlib.redirect_stdout(sys.stderr):
            offline_with(args.threads)
            result = run_case(args)
        print(json.dumps(result))
        return
    about = machine()
    import torch

    cuda = torch.cuda.is_available()
    small = args.quick or not cuda
    args.steps = args.steps or (3 if args.quick else 5 if not cuda else 20)
    args.rounds = args.rounds or (1 if args.quick else 2)
    args.batch = args.batch or (2 if args.quick else 4)
    args.length = args.length or (64 if args.quick else 256 if small else 512)
    if cuda:
        about["gpu"] = torch.cuda.get_device_name()
    names = ["opt-350m", "gpt2"] + (["qwen2-0.5b"] if cuda else [])
    cases = [f"{goal},{name},{form}" for name in names for goal in ("dpo", "reward") for form in FORMS]
    cases = [case for case in cases if args.only in case]
    results: dict[str, Any] = {}
    targets: list[tuple[str, float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        write_models(Path(name), sorted({case.split(",")[1] for case in cases}))
        for case in cases:
            results[case] = run_all(args, Path(name), case)
            targets += targets_of(case, results[case])
            if cuda and case in ("reward,opt-350m,4bit", "dpo,qwen2-0.5b,4bit") and args.length >= 512:
                targets.append((f"{case}: peak in MB, for a T4", results[case]["ours"]["megabytes"], 13_000))
    figures = {
        "device": "cuda" if cuda else "cpu", "steps": args.steps, "rounds": args.rounds, "batch": args.batch,
        "length": args.length, "threads": args.threads, "cases": results,
    }  # fmt: skip
    emit("qlora", about, figures, targets)


if __name__ == "__main__":
    main()
