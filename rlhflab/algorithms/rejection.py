"""Rejection sampling fine-tuning: draw n answers per prompt, keep the best by the reward, fine-tune on them; repeat.

    L(θ) = −E_(x, y best of n under π_old) log π_θ(y | x)

One round trained to convergence gives the best-of-n policy of its starting policy: its expected reward is that of the
best of n, at a cost of at most log n − (n − 1)/n nats. Repeated rounds approach the argmax.

Also known as best-of-n distillation, expert iteration or RAFT. Source: Dong et al. (2023), "RAFT: Reward ranked
finetuning for generative foundation model alignment"; Touvron et al. (2023), "Llama 2", section 3.2.3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rlhflab.algorithms.frame import require_finite
from rlhflab.algorithms.optimiser import Optimiser
from rlhflab.algorithms.policy_gradient import PolicyGradient, Update
from rlhflab.core.record import Record
from rlhflab.data.batches import ShuffledBatches
from rlhflab.models.logps import AnswerBatch
from rlhflab.settings.rejection import RejectionSettings
from rlhflab.tasks.rollout import Collected, Rollout, Task


class Rejection(PolicyGradient):
    """Rejection sampling fine-tuning; iterate for one update at a time. A round's first update draws its answers.

    Args:
        task: where the policy acts; it draws `config.best_of` answers per prompt, in consecutive rows.
        config: the settings.
        tokenizer, notes: see `PolicyGradient`.
    """

    name = "rejection"
    config: RejectionSettings
    _optimiser: Optimiser

    def __init__(
        self,
        task: Task,
        config: RejectionSettings | None = None,
        tokenizer: Any = None,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(task, config or RejectionSettings(), tokenizer, notes)
        self._optimiser = Optimiser(task.policy_parameters(), self.config.max_grad_norm, scaled=self.scaled)
        self._kept: list[Rollout] = []  # the round's, a batch of the best answers for each draw
        self._order = self._new_order(0)

    def _new_order(self, round_: int) -> ShuffledBatches:
        return ShuffledBatches(self.config.draws, 1, self.config.seed + round_)

    def _advance(self, knobs: Mapping[str, float], factor: float) -> Record:
        round_, within = divmod(self.step - 1, self.config.updates)
        scalars: dict[str, float] = {"rejection/round": float(round_ + 1)}
        if within == 0:
            scalars |= self._draw(knobs)
            self._order = self._new_order(round_)
        require_finite(self.step, scalars, knobs)
        batch = self._kept[int(self._order.next())]
        logps = self.task.distribution(batch).log_prob(batch.actions)
        loss = -(logps * batch.mask).sum(1).mean()
        learning_rate = knobs["learning_rate"] * factor
        grad_norm = self._optimiser.step(loss, learning_rate)
        scalars |= {
            "loss": float(loss.detach()),
            "grad_norm": float(grad_norm),
            "learning_rate": learning_rate,
        }
        require_finite(self.step, scalars, knobs)
        return Record(self.step, scalars, knobs)

    def _draw(self, knobs: Mapping[str, float]) -> dict[str, float]:
        """Draw a round's answers with the current policy, and keep the best for each prompt."""
        drawn = [
            self.task.collect({**knobs, "beta": 0.0}) for _ in range(self.config.draws)
        ]  # rewards only, without the KL term
        self._kept = [best_answers(collected.rollout, self.config.best_of) for collected in drawn]
        names = ("objective/scores", "objective/kl", "policy/entropy_avg", "answer_length", "stopped")
        means = {name: sum(each.scalars[name] for each in drawn) / len(drawn) for name in names}
        best = sum(float(kept.rewards.sum(1).mean()) for kept in self._kept) / len(drawn)
        return {**means, "rejection/kept_scores": best}

    def _update(self, collected: Collected, knobs: Mapping[str, float], factor: float) -> Update:
        raise NotImplementedError("all updates of a round use the same answers; see _advance")

    def position(self) -> dict[str, Any]:
        """The task's position, the round's answers and their order."""
        kept = {str(place): _tensors(rollout) for place, rollout in enumerate(self._kept)}
        return {**super().position(), "kept": kept, "order": self._order.state_dict()}

    def _return_to(self, state: Mapping[str, Any]) -> None:
        super()._return_to(state)
        kept, device = state["kept"], self.task.policy.device
        self._kept = [_rollout(kept[str(place)]).to(device) for place in range(len(kept))]
        self._order.load_state_dict(state["order"])


def best_answers(rollout: Rollout, n: int) -> Rollout:
    """The answer with the highest reward among the n rows of each prompt; of equals, the first.

    Args:
        rollout: [prompts · n, time]; the n answers to a prompt are in consecutive rows.
        n: answers per prompt.

    Raises:
        ValueError: a prompt does not have n consecutive rows.
    """
    groups = rollout.groups.view(-1, n) if len(rollout) % n == 0 else rollout.groups.view(-1, 1)
    if groups.shape[1] != n or not bool((groups == groups[:, :1]).all()):
        raise ValueError(
            f"each prompt must have {n} answers in consecutive rows, got prompts {rollout.groups.tolist()[:8]} …"
        )
    best: Tensor = rollout.rewards.sum(1).view(-1, n).argmax(1)
    return rollout.rows(best + n * best.new_tensor(range(len(best))))


def _tensors(rollout: Rollout) -> dict[str, Any]:
    rest = {
        each.name: getattr(rollout, each.name)
        for each in dataclasses.fields(rollout)
        if each.name != "inputs"
    }
    return {**rest, "input_ids": rollout.inputs.input_ids, "input_mask": rollout.inputs.mask}


def _rollout(tensors: Mapping[str, Any]) -> Rollout:
    rest = {name: value for name, value in tensors.items() if not name.startswith("input_")}
    return Rollout(AnswerBatch(tensors["input_ids"], tensors["input_mask"]), **rest)
