"""One of TRL's trainers, driven step by step: its own `train()` runs, and pauses between two steps.

Everything in a step is TRL's: its collator, loss, backward pass, clipping, optimiser step, logs and checkpoints.
Only the batch (instead of the data loader's), the learning rate and the time of the next step come from outside.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from rlhflab.algorithms.optimiser import Optimiser
from rlhflab.engines.handover import HandOver
from rlhflab.engines.versions import require_trl
from rlhflab.models.fit import told
from rlhflab.models.lora import other_model
from rlhflab.models.quantised import wake_bitsandbytes
from rlhflab.models.quiet import no_progress_bars

require_trl()
wake_bitsandbytes()  # TRL does

import datasets  # noqa: E402
import transformers  # noqa: E402
from transformers.trainer_callback import PrinterCallback  # noqa: E402
from trl import DPOTrainer, RewardTrainer, SFTTrainer  # noqa: E402

NOT_KEPT = ("training_args.bin", "README.md", "tokenizer.json", "tokenizer_config.json")
"""Files of a Trainer's checkpoint that it does not read when it continues."""

WEIGHTS = "model.safetensors"

NOT_RECORDED = ("epoch", "learning_rate", "num_tokens")
"""TRL's logs that a record leaves out: an epoch is the whole run here, the learning rate is set from outside, and TRL
forgets its count of tokens when a run is continued."""


class TrainerLoop:
    """Makes a trainer and runs it one step at a time.

    Args:
        trainer, config: one of the three classes below, and TRL's class for its settings.
        model: trained in place.
        optimiser: its AdamW and gradient norm are used by the trainer.
        steps: total number.
        columns: of the tokenised rows that TRL's collator takes.
        settings: of `config`, besides those that every trainer gets here.

    Attributes:
        trainer: TRL's trainer.
    """

    def __init__(
        self,
        trainer: type[Any],
        config: type[Any],
        model: Any,
        optimiser: Optimiser,
        steps: int,
        columns: tuple[str, ...],
        **settings: Any,
    ) -> None:
        self._model, self._adam, self._steps = model, optimiser.adam, steps
        folder = tempfile.mkdtemp(prefix="rlhflab-trl-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        still = torch.optim.lr_scheduler.LambdaLR(self._adam, lambda _: 1.0)  # the rate is given at each step
        names = {field.name for field in fields(config)}  # transformers has renamed this setting
        recompute = (
            "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
        )
        precise = [(weight, weight.data) for weight in optimiser.parameters]
        with _pad_token(model, 0):
            self.trainer = trainer(
                model=model,
                args=config(
                    output_dir=folder, max_steps=steps, max_grad_norm=optimiser.max_grad_norm, logging_steps=1,
                    logging_strategy="steps", logging_nan_inf_filter=False, save_strategy="no", report_to="none",
                    disable_tqdm=True, use_cpu=model.device.type == "cpu", bf16=False, ignore_data_skip=True,
                    max_length=None, **{recompute: False}, **settings,
                ),
                train_dataset=datasets.Dataset.from_dict({name: [[0]] for name in columns}),  # see `_Feed`
                processing_class=_numbers(model.config.get_text_config().vocab_size),
                optimizers=(self._adam, still),
            )  # fmt: skip
        for weight, data in precise:  # TRL rounds adapters on a 4-bit base to bfloat16
            weight.data = data
        if "ref" in getattr(model, "peft_config", ()):  # TRL's copy of the adapter, which is not needed here
            model.delete_adapter("ref")
        self._handover = self._loop_from(None)

    def step(
        self, rows: list[dict[str, Any]], learning_rate: float, pad: int = 0
    ) -> tuple[Tensor, dict[str, float]]:
        """Make one step.

        Args:
            rows: the batch, tokenised, in TRL's columns.
            learning_rate: of this step.
            pad: the token that fills up shorter rows.

        Returns:
            values from the trainer's forward pass, see `_Recorded.seen`, and TRL's log of this step.
        """
        if self._handover.ended:
            self._go_on()
        self._start()
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self.trainer.data_collator.pad_token_id = pad
        try:
            with _pad_token(self._model, pad):
                self._handover.send(self.trainer.data_collator(rows))
        finally:
            self._model.eval()
        return self.trainer.seen, dict(self.trainer.logged)

    def rest(self) -> None:
        """Wait until the trainer pauses: a step interrupted from outside runs to its end."""
        self._handover.rest()

    def checkpoint(self) -> dict[str, Tensor]:
        """Make the Trainer write a checkpoint and return its files, name → bytes as [size] uint8."""
        self._start()
        with _quiet():
            self.trainer._save_checkpoint(self.trainer.model, None)
        folder = Path(self.trainer.args.output_dir, f"checkpoint-{self.trainer.state.global_step}")
        files = {
            path.relative_to(folder).as_posix(): torch.frombuffer(
                bytearray(path.read_bytes()), dtype=torch.uint8
            )
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in NOT_KEPT
        }
        shutil.rmtree(folder)
        return files

    def restore(self, files: Mapping[str, Tensor]) -> None:
        """Make the Trainer continue from the files of a `checkpoint`; a current run is abandoned."""
        folder = Path(self.trainer.args.output_dir, "continued")
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.numpy().tobytes())
        if (folder / WEIGHTS).is_file():
            _require_shapes(self._model, folder / WEIGHTS)
        self._handover.close()
        self._handover = self._loop_from(folder)
        self._start()
        shutil.rmtree(folder)

    def _go_on(self) -> None:
        """Restart the loop after a failed step has ended it, from the trainer's current state."""
        state = self.trainer.state
        state.global_step = min(
            state.global_step, self._steps - 1
        )  # its last step may have been made but not counted
        self.restore(self.checkpoint())

    def _loop_from(self, checkpoint: Path | None) -> HandOver:
        trainer, steps = self.trainer, self._steps  # not self: the thread must not keep it alive

        def loop(batches: Iterator[Any]) -> None:
            trainer.feed = _Feed(batches, steps)
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

        handover = HandOver(loop, "rlhflab-trl")
        weakref.finalize(self, handover.close)
        return handover

    def _start(self) -> None:
        """Run `train()` up to its first batch, unless it has started."""
        if not self._handover.begun:
            with _quiet(), _pad_token(self._model, 0):  # otherwise it warns about the tokenizer's
                self._handover.start()


class _Feed:
    """Replaces the Trainer's data loader: one epoch with a batch for every step."""

    def __init__(self, batches: Iterator[Any], steps: int) -> None:
        self._batches, self._steps = batches, steps

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Any]:
        return self._batches


class _Recorded:
    """Mixin for TRL trainers: takes batches from `feed`, and keeps each step's log and forward values.

    TRL permanently replaces a causal LM's `forward`, which would also run in evaluations and in copies of the model (a
    copy would even use the original's weights). Here the model has it only while TRL computes a loss.

    Attributes:
        feed: where the batches come from.
        logged: TRL's log of the last step.
        seen: log-probabilities [2·batch] of a causal LM's answers, or scores [2·batch] of a reward model, read from the
            output of the last step's forward.
    """

    feed: _Feed
    logged: dict[str, float]
    seen: Tensor

    def __init__(self, **arguments: Any) -> None:
        model = arguments["model"]
        self._plain: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
        super().__init__(**arguments)
        self._forward = vars(self._plain).pop("forward", None)
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]

    def get_train_dataloader(self) -> Any:
        return self.feed

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset  # the dummy row given at construction, already tokenised

    def _precompute_ref_logps(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset  # the reference's log-probabilities come with the batches

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        own = self._plain.state_dict()
        read = {weight.data_ptr() for name, weight in own.items() if name not in load_result.missing_keys}
        missing = [
            name for name in load_result.missing_keys if own[name].data_ptr() not in read
        ]  # others are tied
        if wrong := told(missing, load_result.unexpected_keys, ()):
            raise other_model(wrong)

    def _send_telemetry(self) -> None:
        """Telemetry is off."""

    def log(self, logs: dict[str, float], *arguments: Any) -> None:
        super().log(logs, *arguments)  # type: ignore[misc]
        self.state.log_history.clear()  # type: ignore[attr-defined]  # it would grow with every step
        if "loss" in logs:
            self.logged = {name: float(value) for name, value in logs.items() if name not in NOT_RECORDED}

    def compute_loss(self, model: Any, *arguments: Any, **named: Any) -> Any:
        hook = model.register_forward_hook(self._see)
        if self._forward is not None:
            self._plain.forward = self._forward
        try:
            return super().compute_loss(model, *arguments, **named)  # type: ignore[misc]
        finally:
            hook.remove()
            vars(self._plain).pop("forward", None)

    def _see(self, _model: Any, _inputs: Any, output: Any) -> None:
        found = getattr(output, "log_probs", None)
        self.seen = (found.sum(1) if found is not None else output.logits.squeeze(-1)).detach()


class RecordedDPO(_Recorded, DPOTrainer):
    """TRL's DPOTrainer."""


class RecordedReward(_Recorded, RewardTrainer):
    """TRL's RewardTrainer."""


class RecordedSFT(_Recorded, SFTTrainer):
    """TRL's SFTTrainer."""


def _require_shapes(model: Any, path: Path) -> None:
    """Raise ValueError in one line if a weight's shape differs from the model's weight of the same name."""
    own = model.state_dict()
    with safe_open(path, "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys() if name in own}  # noqa: SIM118
    others = [
        (name, shape, own[name].shape) for name, shape in shapes.items() if shape != list(own[name].shape)
    ]
    if others:
        raise other_model(told((), (), others))


def _numbers(size: int) -> Any:
    """A tokenizer whose words are the token ids: texts are already tokenised, and TRL only needs a pad token."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = Tokenizer(WordLevel({str(token): token for token in range(size)}, unk_token="0"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0")


@contextmanager
def _pad_token(model: Any, pad: int) -> Iterator[None]:
    """Within the block, the model's configurations have a pad token."""
    holders = [model.config.get_text_config()]
    if getattr(model, "generation_config", None) is not None:
        holders.append(model.generation_config)
    before = [holder.pad_token_id for holder in holders]
    for holder in holders:
        holder.pad_token_id = pad
    try:
        yield
    finally:
        for holder, former in zip(holders, before, strict=True):
            holder.pad_token_id = former


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or warnings: checkpoints are small, and lack tied weights by design."""
    from transformers.utils import logging

    shown = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with no_progress_bars():
            yield
    finally:
        logging.set_verbosity(shown)
