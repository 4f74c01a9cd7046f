"""Maximum likelihood: pre-training, supervised fine-tuning and preferred fine-tuning.

    L(θ) = −E_(x,y) Σ_t log π_θ(y_t | x, y_<t)

The three differ only in their data: any text; good answers; the chosen answers of preference pairs ("Preferred-FT",
which gives DPO a reference when there is no SFT model: Rafailov et al. 2023, section 4 "DPO outline").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rlhflab.algorithms.frame import Fit, require_finite
from rlhflab.algorithms.optimiser import Optimiser
from rlhflab.core.record import Evaluator, Record
from rlhflab.data.batches import ShuffledBatches
from rlhflab.models.loading import in_training
from rlhflab.models.logps import AnswerBatch, common_start, token_logps
from rlhflab.settings.supervised import SupervisedSettings


class Supervised(Fit):
    """Maximise the likelihood of `data`'s answers given their prompts; iterate for one update at a time.

    Args:
        policy: any Hugging Face causal LM; trained in place. `load_policy` removes its dropout.
        data: all texts; rows are drawn in shuffled epochs.
        config: the settings.
        evaluator: exact or estimated evaluation and samples at KL strength `config.beta`, if the world offers them.
        tokenizer: saved with the policy by `save_model`; None to save none.
        notes: on model and data, one line each, by name, for the run and its reader.
    """

    name = "sft"
    config: SupervisedSettings

    def __init__(
        self,
        policy: Any,
        data: AnswerBatch,
        config: SupervisedSettings | None = None,
        evaluator: Evaluator | None = None,
        tokenizer: Any = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        backdrop = evaluator.backdrop if evaluator else None
        super().__init__(config or SupervisedSettings(), backdrop, tokenizer, notes)
        self.policy, self.data = in_training(policy), data.to(policy.device)
        self.evaluator = evaluator
        self._start = common_start(data)
        self._optimiser = Optimiser(
            policy.parameters(), self.config.max_grad_norm, self.config.weight_decay,
            scaled=getattr(policy, "dtype", None) == torch.float16,
        )  # fmt: skip
        self._batches = ShuffledBatches(len(data.input_ids), self.config.batch_size, self.config.seed)

    def _advance(self, knobs: Mapping[str, float], factor: float) -> Record:
        learning_rate = knobs["learning_rate"] * factor
        rows = self.data.rows(self._batches.next())
        if self._start is None:  # texts of many lengths
            rows = rows.trimmed()
        scalars = self._update(rows, learning_rate)
        require_finite(self.step, scalars, knobs)
        scalars["learning_rate"] = learning_rate
        return Record(self.step, scalars, knobs)

    def _judged(self, record: Record) -> Record:
        return self._evaluated(record, self.evaluator, self.policy, self.config.beta)

    def _update(self, rows: AnswerBatch, learning_rate: float) -> dict[str, float]:
        """Make one update; returns the loss before it and the norm of its gradient."""
        logps, mask = token_logps(self.policy, rows, self._start)
        loss = -logps.sum() / mask.sum()
        grad_norm = self._optimiser.step(loss, learning_rate)
        return {"loss": float(loss.detach()), "grad_norm": float(grad_norm)}

    def position(self) -> dict[str, Any]:
        """The order of the data and the position in it."""
        return {"batches": self._batches.state_dict()}

    def _return_to(self, state: Mapping[str, Any]) -> None:
        self._batches.load_state_dict(state["batches"])
