"""Tokens a second of sampling: sample_answers beside transformers' generate, one thread, at 32 and at 256 answers.

micro: the SFT policy's answers of at most 4 tokens to the micro world's nine prompts, as in a PPO iteration.
long: a GPT-2 of the same size with random weights and 48 positions, 24 tokens after 8, every prompt different, and a
stop that never comes, so that all answers are of one length.

generate draws from the whole distribution too (do_sample, no top-k, no top-p) and has the same stop ids. It returns
tokens; sample_answers their log-probabilities and mask as well.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import (
    WARMUP,
    Timed,
    Turns,
    digits,
    emit,
    machine,
    median,
    offline_with,
    parser,
    spread,
)


def settings() -> dict[str, tuple[Any, Any, list[int], int]]:
    """Name → model, all prompts, stop ids, longest answer."""
    import torch

    from rlhflab.models.tiny import TinyConfig, new_tiny_model
    from rlhflab.recipes.reference import tiny_reference
    from rlhflab.recipes.worlds import world_named

    world = world_named("micro")
    words = len(world.tokenizer)
    long = new_tiny_model(world.tokenizer, TinyConfig(positions=48)).eval()
    prompts = torch.randint(words, (256, 8), generator=torch.Generator().manual_seed(0))
    nine = world.prompt_ids.repeat(29, 1)[:256]
    return {
        "micro": (tiny_reference(world, progress=False), nine, list(world.stop_ids), world.max_tokens),
        "long": (long, prompts, [words], 24),
    }


def timed(draw: Callable[[], Any], calls: int) -> Timed:
    """Seconds a call, and the sum of what each returned."""
    times, sums = [], []
    for _ in range(WARMUP + calls):
        began = time.perf_counter()
        drawn = draw()
        times.append(time.perf_counter() - began)
        sums.append(float(drawn.sum()))
    return times, sums


def compare(
    model: Any, prompts: Any, stops: list[int], longest: int, calls: int, rounds: int, title: str
) -> Any:
    import torch
    from transformers import GenerationConfig

    from rlhflab.models.sampling import sample_answers

    generator = torch.Generator().manual_seed(0)
    seen = torch.ones_like(prompts)
    config = GenerationConfig(
        do_sample=True, top_k=0, top_p=1.0, max_new_tokens=longest, eos_token_id=stops, pad_token_id=0
    )

    def ours() -> Any:
        return sample_answers(model, prompts, longest, stops, 0, generator).mask

    def generate() -> Any:
        return model.generate(input_ids=prompts, attention_mask=seen, generation_config=config)

    turns = Turns(
        {"ours": lambda: timed(ours, calls), "generate": lambda: timed(generate, calls)}, rounds, title
    )
    tokens = statistics.fmean(
        turns.losses["ours"]
    )  # from the masks; generate draws from the same distribution
    return {
        "ms_median": {name: spread(values) for name, values in turns.typical.items()},
        "tokens_a_second": {
            name: digits(1000 * tokens / median(values)) for name, values in turns.typical.items()
        },
        "ours_over_generate": turns.over("ours", "generate"),
    }


def main() -> None:
    args = parser(__doc__).parse_args()
    calls, rounds = (10, 5) if args.quick else (20, 20)
    about = machine()
    offline_with(threads=1)
    figures = {
        f"{name}_{size}": compare(
            model, prompts[:size], stops, longest, calls, rounds, f"{name}, {size} answers"
        )
        for name, (model, prompts, stops, longest) in settings().items()
        for size in (32, 256)
    }
    targets = [
        (f"{name}: ours over generate", f["ours_over_generate"]["median"], 1.0) for name, f in figures.items()
    ]
    emit("sampling", about, figures, targets)


if __name__ == "__main__":
    main()
