"""DPO as an iterator: one update per step, with everything a board shows in its record.

Source: Rafailov et al. (2023), "Direct Preference Optimization". The policy runs without dropout, as in TRL.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlhflab import processes
from rlhflab.algorithms.frame import Fit, require_finite
from rlhflab.algorithms.optimiser import Optimiser
from rlhflab.core.record import Evaluator, Pairs, Record
from rlhflab.data.pair_source import PairRows, PairSource
from rlhflab.models.loading import in_training
from rlhflab.models.logps import sequence_logps
from rlhflab.objectives.dpo import dpo_loss, gradient_weights
from rlhflab.settings.dpo import DPOSettings


class DPO(Fit):
    """Direct preference optimisation; iterate for one update at a time.

    Args:
        policy: π_θ, any Hugging Face causal LM; trained in place.
        pairs: a `FixedPairs`, `LongPairs` or `FreshPairs`; it holds the reference's log-probabilities.
        config: the settings, β among them.
        evaluator: exact or estimated evaluation and samples, if the world offers them.
        tokenizer: saved with the policy by `save_model`; None to save none.
        notes: on model and data, one line each, by name, for the run and its reader.
    """

    name = "dpo"

    def __init__(
        self,
        policy: Any,
        pairs: PairSource,
        config: DPOSettings | None = None,
        evaluator: Evaluator | None = None,
        tokenizer: Any = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        backdrop = evaluator.backdrop if evaluator else None
        super().__init__(config or DPOSettings(), backdrop, tokenizer, notes)
        self.policy, self.pairs, self.evaluator = in_training(policy), pairs, evaluator
        self._optimiser = Optimiser(
            policy.parameters(), self.config.max_grad_norm, scaled=policy.dtype == torch.float16
        )

    def _advance(self, knobs: Mapping[str, float], factor: float) -> Record:
        learning_rate = knobs["learning_rate"] * factor
        rows = self.pairs.next()
        (losses, chosen, rejected, logps), measured = self._update(rows, knobs["beta"], learning_rate)
        columns = torch.stack((losses, chosen, rejected, *logps.chunk(2)), 1)
        columns = processes.whole(columns, len(rows.ids)).T
        scalars = _scalars(TIE * knobs["beta"], *columns.tolist()) | measured
        require_finite(self.step, scalars, knobs)
        scalars["learning_rate"] = learning_rate
        return Record(self.step, scalars, knobs, self._record_pairs(rows, columns[1], columns[2]))

    def _judged(self, record: Record) -> Record:
        return self._evaluated(record, self.evaluator, self.policy, record.knobs["beta"])

    def _update(
        self, rows: PairRows, beta: float, learning_rate: float
    ) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], dict[str, float]]:
        """Make one update.

        Returns:
            the policy's values for this process's rows before the update, detached: losses, chosen rewards and
            rejected rewards, [rows] each, and log π_θ [2·rows]; and the other measured scalars.
        """
        logps = sequence_logps(
            self.policy, rows.answers if rows.reads is None else rows.reads, self.pairs.start
        )
        (policy_chosen, policy_rejected), (ref_chosen, ref_rejected) = logps.chunk(2), rows.ref_logps.chunk(2)
        losses, chosen, rejected = self.loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
        grad_norm = self._optimiser.step(losses.mean(), learning_rate, len(losses) / len(rows.ids))
        return (losses.detach(), chosen, rejected, logps.detach()), {"grad_norm": float(grad_norm)}

    def loss(
        self,
        policy_chosen: Tensor,
        policy_rejected: Tensor,
        ref_chosen: Tensor,
        ref_rejected: Tensor,
        beta: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of each pair, and its implicit rewards, detached; a subclass may define another loss.

        Args:
            policy_chosen, policy_rejected, ref_chosen, ref_rejected: [pairs], log-probabilities of the answers.
            beta: KL strength in force.

        Returns:
            losses, chosen rewards and rejected rewards, [pairs] each.
        """
        return dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)

    @staticmethod
    def _record_pairs(rows: PairRows, chosen: Tensor, rejected: Tensor) -> Pairs:
        weights = gradient_weights(chosen, rejected)
        texts = rows.texts
        return Pairs(
            ids=tuple(rows.ids),
            prompts=tuple(pair.prompt for pair in texts),
            chosen=tuple(pair.chosen for pair in texts),
            rejected=tuple(pair.rejected for pair in texts),
            chosen_rewards=tuple(chosen.tolist()),
            rejected_rewards=tuple(rejected.tolist()),
            weights=tuple(weights.tolist()),
            flipped=tuple(pair.flipped for pair in texts),
        )

    def position(self) -> dict[str, Any]:
        """The position in the data."""
        return {"pairs": self.pairs.state_dict()}

    def _return_to(self, state: Mapping[str, Any]) -> None:
        self.pairs.load_state_dict(state["pairs"])


TIE = 1e-5
"""Nats: a margin up to β times this counts as rounding, as all do at the first update, where π_θ is π_ref."""


def _scalars(
    tie: float,
    losses: list[float],
    chosen: list[float],
    rejected: list[float],
    chosen_logps: list[float],
    rejected_logps: list[float],
) -> dict[str, float]:
    """Batch means under TRL's names; a pair is right where its margin is above `tie`.

    Plain Python is six times faster here than many small tensor operations.
    """
    size = len(losses)
    margins = [c - r for c, r in zip(chosen, rejected, strict=True)]
    mean_chosen, mean_rejected = sum(chosen) / size, sum(rejected) / size
    return {
        "loss": sum(losses) / size,
        "rewards/chosen": mean_chosen,
        "rewards/rejected": mean_rejected,
        "rewards/margins": sum(margins) / size,
        "rewards/accuracies": sum(margin > tie for margin in margins) / size,
        "rewards/chosen_std": math.sqrt(sum((c - mean_chosen) ** 2 for c in chosen) / size),
        "rewards/rejected_std": math.sqrt(sum((r - mean_rejected) ** 2 for r in rejected) / size),
        "logps/chosen": sum(chosen_logps) / size,
        "logps/rejected": sum(rejected_logps) / size,
    }
