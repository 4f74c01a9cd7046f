"""TRL's SFTTrainer, RewardTrainer and DPOTrainer as iterators of our records: engine "trl".

Each class here is our own algorithm of the same name with one difference: the update. The batch goes to a TRL trainer,
which makes the step and pauses; see `trl_loop.py`. So knobs, data, evaluation and records are the same in both engines,
and equal settings give equal batches.

The record's values for the batch are read by a hook from the trainer's forward pass: no second one is needed. Its
scalars are those that TRL logs for this step; the others (standard deviations, pairs) come from the values read.
π_ref's log-probabilities are those of our pair source, given to TRL in the columns of its `precompute_ref_log_probs`;
so there is no second model here whose forward TRL could wrap.

The saved state holds the files of a checkpoint written by the Trainer: weights, optimiser, random state of Python,
NumPy and torch. To continue, the Trainer reads them itself. Its optimiser and random state are files of `torch.save`,
which it opens with `weights_only=True`; nothing else is unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from rlhflab.algorithms.dpo import DPO
from rlhflab.algorithms.reward_modelling import RewardModelling
from rlhflab.algorithms.supervised import Supervised
from rlhflab.data.pair_source import PairRows
from rlhflab.data.ranking_source import RankedRows
from rlhflab.engines.trl_loop import (
    RecordedDPO,
    RecordedReward,
    RecordedSFT,
    TrainerLoop,
)  # first: it checks TRL
from rlhflab.engines.versions import require_pairs
from rlhflab.models.logps import AnswerBatch
from rlhflab.models.lora import is_adapted, load_trained_state, trained_state
from rlhflab.objectives.dpo import dpo_loss
from rlhflab.objectives.preference import plackett_luce_loss

from trl import DPOConfig, RewardConfig, SFTConfig  # isort: skip


class _InTRL:
    """Base of the three classes: the name of the engine, and a state that holds the Trainer's checkpoint."""

    engine = "trl"
    fitted: ClassVar[str]
    loop: TrainerLoop

    def rewind(self) -> bool:
        """As in our own algorithms, once the Trainer's current step has ended."""
        self.loop.rest()
        return super().rewind()  # type: ignore[misc]

    def _learnt(self) -> dict[str, Any]:
        """The Trainer's checkpoint; with adapters it lacks a reward head, so the trained weights are added."""
        model = getattr(self, self.fitted)
        beside = {self.fitted: trained_state(model)} if is_adapted(model) else {}
        return {"trainer": self.loop.checkpoint(), **beside}

    def _relearn(self, state: Mapping[str, Any]) -> None:
        model = getattr(self, self.fitted)
        if is_adapted(model):  # first: the Trainer would load mismatched adapters partially
            load_trained_state(model, state[self.fitted])
        self.loop.restore(state["trainer"])
        if is_adapted(model):
            load_trained_state(model, state[self.fitted])


class TRLDPO(_InTRL, DPO):
    """`DPO`, with the updates of TRL's DPOTrainer; see there for arguments and records."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.loop = TrainerLoop(
            RecordedDPO, DPOConfig, self.policy, self._optimiser, self.steps,
            ("prompt_ids", "chosen_ids", "rejected_ids"), precompute_ref_log_probs=True,
        )  # fmt: skip

    def _update(
        self, rows: PairRows, beta: float, learning_rate: float
    ) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], dict[str, float]]:
        self.loop.trainer.beta = beta
        logps, logged = self.loop.step(preference_rows(rows), learning_rate)
        (policy_chosen, policy_rejected), (ref_chosen, ref_rejected) = logps.chunk(2), rows.ref_logps.chunk(2)
        return (*dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta), logps), logged


class TRLRewardModelling(_InTRL, RewardModelling):
    """`RewardModelling`, with the updates of TRL's RewardTrainer, which supports only pairs."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        require_pairs(self.rankings.ranked)
        self.loop = TrainerLoop(
            RecordedReward, RewardConfig, self.reward_model, self._optimiser, self.steps,
            ("chosen_ids", "rejected_ids"),
        )  # fmt: skip

    def _update(self, rows: RankedRows, learning_rate: float) -> tuple[Tensor, Tensor, dict[str, float]]:
        texts = [prompt + answer for prompt, answer in token_rows(rows.answers)]
        pairs = zip(*halves(texts), strict=True)
        # the classifier reads at the last token that is not padding: pad with one that ends none of these texts
        ends = {text[-1] for text in texts}
        pad = next(token for token in range(len(ends) + 1) if token not in ends)
        batch = [{"chosen_ids": chosen, "rejected_ids": rejected} for chosen, rejected in pairs]
        seen, logged = self.loop.step(batch, learning_rate, pad)
        scores = seen.float().view(2, -1).T
        return scores, plackett_luce_loss(scores), logged


class TRLSupervised(_InTRL, Supervised):
    """`Supervised`, with the updates of TRL's SFTTrainer."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.loop = TrainerLoop(
            RecordedSFT, SFTConfig, self.policy, self._optimiser, self.steps, ("input_ids", "labels")
        )

    def _update(self, rows: AnswerBatch, learning_rate: float) -> dict[str, float]:
        batch = [
            {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}
            for prompt, answer in token_rows(rows)
        ]
        return self.loop.step(batch, learning_rate)[1]


IN_TRL: dict[type[Any], type[Any]] = {
    DPO: TRLDPO,
    RewardModelling: TRLRewardModelling,
    Supervised: TRLSupervised,
}


def token_rows(batch: AnswerBatch) -> list[tuple[list[int], list[int]]]:
    """Each row's prompt and answer as token ids, without the padding on the right."""
    begins = batch.mask.int().argmax(1).tolist()
    ends = (batch.mask.shape[1] - batch.mask.flip(1).int().argmax(1)).tolist()
    rows = zip(batch.input_ids.tolist(), begins, ends, strict=True)
    return [(ids[:begin], ids[begin:end]) for ids, begin, end in rows]


def halves(rows: list[Any]) -> tuple[list[Any], list[Any]]:
    """The chosen and the rejected half of a batch."""
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


def preference_rows(rows: PairRows) -> list[dict[str, Any]]:
    """A batch of pairs in the columns of TRL's DPOTrainer."""
    chosen, rejected = halves(token_rows(rows.answers))
    ref_chosen, ref_rejected = halves(rows.ref_logps.tolist())
    return [
        {
            "prompt_ids": prompt, "chosen_ids": better, "rejected_ids": worse,
            "ref_chosen_logps": ref_better, "ref_rejected_logps": ref_worse,
        }
        for (prompt, better), (_, worse), ref_better, ref_worse in zip(
            chosen, rejected, ref_chosen, ref_rejected, strict=True
        )
    ]  # fmt: skip
