"""Reward modelling: fit r_φ to preferences by maximum likelihood, Bradley–Terry for pairs, Plackett–Luce for rankings.

    L = −E log σ(r_φ(x, y_w) − r_φ(x, y_l))        K = 2
    L = −E log ∏_k exp r_k / Σ_{j≥k} exp r_j       K > 2

Only differences for the same prompt count, so r_φ is known up to a shift per prompt: it is centred before use.

Source: Ouyang et al. (2022), section 3.5; Rafailov et al. (2023), eqs. 2 and 18.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlhflab import processes
from rlhflab.algorithms.frame import Fit, require_finite
from rlhflab.algorithms.optimiser import Optimiser
from rlhflab.core.record import Evaluator, Pairs, Record
from rlhflab.data.ranking_source import RankedRows, RankingSource
from rlhflab.models.loading import in_training
from rlhflab.models.logps import evaluating
from rlhflab.models.reward import answer_scores, save_reward_model
from rlhflab.objectives.preference import plackett_luce_loss
from rlhflab.settings.reward import RewardSettings


class RewardModelling(Fit):
    """Fit a reward model; iterate for one update at a time.

    Args:
        reward_model: from `models.reward`; trained in place, without dropout.
        rankings: the pool; its last `config.held_out` rankings are held out.
        config: the settings.
        judge: exact comparison with the true reward, if the world offers it.
        tokenizer: saved with the reward model by `save_model`, if it is not the world's.
        notes: on model and data, one line each, by name, for the run and its reader.
    """

    name = "reward"
    fitted = "reward_model"
    config: RewardSettings

    def __init__(
        self,
        reward_model: Any,
        rankings: RankingSource,
        config: RewardSettings | None = None,
        judge: Evaluator | None = None,
        tokenizer: Any = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        backdrop = judge.backdrop if judge else None
        super().__init__(config or RewardSettings(), backdrop, tokenizer, notes)
        self.reward_model, self.rankings, self.judge = in_training(reward_model), rankings, judge
        self._trainable = rankings.size - self.config.held_out
        if self._trainable < 1:
            raise ValueError(
                f"{self.config.held_out} held-out rankings leave none of {rankings.size} to train on"
            )
        self._held_out = torch.arange(self._trainable, rankings.size)
        self._optimiser = Optimiser(
            reward_model.parameters(), self.config.max_grad_norm, self.config.weight_decay,
            scaled=reward_model.dtype == torch.float16,
        )  # fmt: skip
        self._generator = torch.Generator().manual_seed(self.config.seed)

    def _advance(self, knobs: Mapping[str, float], factor: float) -> Record:
        config, learning_rate = self.config, knobs["learning_rate"] * factor
        among = min(int(knobs["pairs"]), self._trainable)
        ids = torch.randint(among, (config.batch_size,), generator=self._generator)
        rows = self.rankings.take(ids, knobs["label_noise"], processes.share(len(ids)))
        scores, losses, measured = self._update(rows, learning_rate)
        scores, losses = (processes.whole(each, len(ids)) for each in (scores, losses))
        scalars = ranking_scalars(scores, losses) | measured
        require_finite(self.step, scalars, knobs)
        scalars["learning_rate"] = learning_rate
        return Record(self.step, scalars, knobs, _first_against_last(rows, scores))

    def _judged(self, record: Record) -> Record:
        if self._due(self.config.test_every) and len(self._held_out):
            record = replace(record, scalars={**record.scalars, **self._test()})
        return self._evaluated(record, self.judge, self.reward_model, record.knobs["beta"])

    def _update(self, rows: RankedRows, learning_rate: float) -> tuple[Tensor, Tensor, dict[str, float]]:
        """Make one update.

        Returns:
            scores [rows, K] and losses [rows] of this process's rows before the update, detached; other measured
            scalars.
        """
        scores = self._ranked_scores(rows)
        losses = plackett_luce_loss(scores)
        grad_norm = self._optimiser.step(losses.mean(), learning_rate, len(losses) / len(rows.ids))
        return scores.detach(), losses.detach(), {"grad_norm": float(grad_norm)}

    def _ranked_scores(self, rows: RankedRows) -> Tensor:
        """[rows, K], best first as labelled."""
        answers = rows.answers if rows.ends is None else rows.ends
        return answer_scores(self.reward_model, answers).view(self.rankings.ranked, -1).T

    def _test(self) -> dict[str, float]:
        """Loss and accuracy on the held-out rankings, labelled without noise."""
        parts = self._held_out.split(4 * self.config.batch_size)
        with evaluating(self.reward_model):
            scores = torch.cat([self._ranked_scores(self.rankings.take(ids, 0.0)) for ids in parts])
        found = ranking_scalars(scores, plackett_luce_loss(scores))
        return {f"eval/{name}": found[name] for name in ("loss", "accuracy", "margin")}

    def save_model(self, folder: Any) -> None:
        """Save the reward model, with its tokenizer if known, so that `--reward FOLDER` can read it."""
        save_reward_model(self.reward_model, folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)

    def position(self) -> dict[str, Any]:
        """The random state."""
        return {"generator": self._generator.get_state()}

    def _return_to(self, state: Mapping[str, Any]) -> None:
        self._generator.set_state(state["generator"])


def ranking_scalars(scores: Tensor, losses: Tensor) -> dict[str, float]:
    """Means under TRL's names.

    Args:
        scores: [batch, K], best first as labelled.
        losses: [batch].

    Returns:
        `loss` (nats per ranking), `accuracy` (fraction of the K(K−1)/2 pairs ranked as labelled), `margin` (first
        minus last), `min_reward`, `mean_reward`, `max_reward`.
    """
    ranked = scores.shape[1]
    better, worse = torch.triu_indices(ranked, ranked, 1)
    right = (scores[:, better] > scores[:, worse]).float().mean()
    margin = (scores[:, 0] - scores[:, -1]).mean()
    values = (losses.mean(), right, margin, scores.min(), scores.mean(), scores.max())
    names = ("loss", "accuracy", "margin", "min_reward", "mean_reward", "max_reward")
    return dict(zip(names, torch.stack(values).tolist(), strict=True))


def _first_against_last(rows: RankedRows, scores: Tensor) -> Pairs:
    """Each ranking's first and last place as a pair; the weight is that of the Bradley–Terry gradient."""
    first, last = scores[:, 0], scores[:, -1]
    return Pairs(
        ids=tuple(rows.ids),
        prompts=tuple(pair.prompt for pair in rows.texts),
        chosen=tuple(pair.chosen for pair in rows.texts),
        rejected=tuple(pair.rejected for pair in rows.texts),
        chosen_rewards=tuple(first.tolist()),
        rejected_rewards=tuple(last.tolist()),
        weights=tuple((last - first).sigmoid().tolist()),
        flipped=tuple(rows.flipped.tolist()),
    )
