"""A world's reference policy: a tiny model pre-trained on noisy text, then fine-tuned on clean text.

It is trained on first use, in under a minute or so, and kept in the user's cache folder under a name that depends on
every setting.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rlhflab import processes
from rlhflab.algorithms.supervised import Supervised
from rlhflab.files import cache_folder
from rlhflab.models.logps import AnswerBatch, join_answers
from rlhflab.models.quiet import no_progress_bars
from rlhflab.models.threads import take_one_thread
from rlhflab.models.tiny import TinyConfig, new_tiny_model
from rlhflab.settings.supervised import SupervisedSettings
from rlhflab.worlds.world import World

STAGES = ("pretrained", "sft")
CACHE_VERSION = 4  # raise when the grammar, the tokenizer or the training code changes


@dataclass(frozen=True)
class ReferenceConfig:
    """How the reference policy is made.

    Attributes:
        model: its shape.
        pretrain_texts, pretrain_steps, pretrain_lr: noisy texts, updates on them, peak learning rate.
        p_noise: fraction of the noisy texts that have an error.
        sft_texts, sft_steps, sft_lr: the same for clean texts.
        seed: for weights, texts and their order.
    """

    model: TinyConfig = field(default_factory=TinyConfig)
    pretrain_texts: int = 20_000
    pretrain_steps: int = 400
    pretrain_lr: float = 3e-3
    p_noise: float = 0.3
    sft_texts: int = 10_000
    sft_steps: int = 200
    sft_lr: float = 1e-3
    seed: int = 0


REFERENCE_OF = {
    "micro": ReferenceConfig(),
    "reviews": ReferenceConfig(
        TinyConfig(positions=32), pretrain_steps=300, pretrain_lr=5e-3, sft_steps=300, sft_lr=2e-3
    ),
}


def reference_config(world: World) -> ReferenceConfig:
    """How a world's reference is made: its entry in REFERENCE_OF; for a custom world, that of the micro world."""
    if world.name in REFERENCE_OF and not hasattr(world, "digest"):
        return REFERENCE_OF[world.name]
    return ReferenceConfig(TinyConfig(positions=world.tokenizer.model_max_length))


def encode_texts(world: World, texts: Sequence[tuple[str, str]]) -> AnswerBatch:
    """Tokenise (prompt, answer) texts of the world's language."""
    prompts, answers = zip(*texts, strict=True)
    return join_answers([world.encode_prompt(p) for p in prompts], [world.encode_answer(a) for a in answers])


def pretrain(world: World, config: ReferenceConfig) -> Supervised:
    """Step 0: maximum likelihood on noisy text, from random weights."""
    model = new_tiny_model(world.tokenizer, config.model, config.seed)
    texts = world.corpus(config.pretrain_texts, config.seed, config.p_noise)
    settings = SupervisedSettings(
        steps=config.pretrain_steps, seed=config.seed, learning_rate=config.pretrain_lr
    )
    return Supervised(model, encode_texts(world, texts), settings)


def finetune(world: World, model: Any, config: ReferenceConfig) -> Supervised:
    """Step 1: supervised fine-tuning of `model` on clean text."""
    texts = world.corpus(config.sft_texts, config.seed + 1)
    settings = SupervisedSettings(steps=config.sft_steps, seed=config.seed, learning_rate=config.sft_lr)
    return Supervised(model, encode_texts(world, texts), settings)


def preferred_finetune(
    world: World, model: Any, texts: Sequence[tuple[str, str]], seed: int = 0
) -> Supervised:
    """Preferred-FT: maximum likelihood on the chosen answers, for a reference when there is no SFT model."""
    settings = SupervisedSettings(steps=200, seed=seed, learning_rate=1e-3)
    return Supervised(model, encode_texts(world, texts), settings)


def tiny_reference(
    world: World, stage: str = "sft", config: ReferenceConfig | None = None, progress: bool = True
) -> Any:
    """Return the tiny model after `stage`, from the cache or newly trained.

    Args:
        world: any of the worlds.
        stage: "pretrained" or "sft".
        config: how it is made; by default `reference_config`.
        progress: show a bar on stderr while training.

    Returns:
        a GPT-2 in evaluation mode on the CPU.
    """
    from transformers import AutoModelForCausalLM

    if stage not in STAGES:
        raise ValueError(f"stage must be one of {', '.join(STAGES)}, got {stage!r}")
    config = config or reference_config(world)
    key = hashlib.sha256(json.dumps([CACHE_VERSION, asdict(config)], sort_keys=True).encode()).hexdigest()[
        :12
    ]
    own = getattr(world, "digest", "")
    name = (
        f"tiny-{own}-{key}" if own else f"tiny-{key}" if world.name == "micro" else f"tiny-{world.name}-{key}"
    )
    folder = cache_folder(name) / name
    with processes.main_first():
        if not (folder / stage / "config.json").is_file():
            _train_into(folder, world, config, progress)
    take_one_thread()
    with no_progress_bars():
        return AutoModelForCausalLM.from_pretrained(folder / stage, use_safetensors=True).eval()


def _train_into(folder: Path, world: World, config: ReferenceConfig, progress: bool) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".training-", dir=folder.parent))
    try:
        first = pretrain(world, config)
        bar = tqdm(
            total=config.pretrain_steps + config.sft_steps, desc="first use: training the tiny model",
            leave=False, disable=not progress,
        )  # fmt: skip
        with bar, no_progress_bars():
            for _ in first:
                bar.update()
            first.policy.save_pretrained(beside / "pretrained")
            for _ in finetune(world, first.policy, config):
                bar.update()
            first.policy.save_pretrained(beside / "sft")
        for stage in STAGES:
            world.tokenizer.save_pretrained(beside / stage)
        try:
            beside.rename(folder)
        except OSError:  # another process was faster, or an unfinished folder is in the way
            if not (folder / STAGES[-1] / "config.json").is_file():
                shutil.rmtree(folder)
                beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
