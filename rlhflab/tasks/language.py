"""Policy optimisation of a language model as a task: state = prompt and tokens so far, action = next token.

The four roles of RLHF: the policy π_θ acts; the frozen reference π_ref measures how far it has moved; a reward function
scores whole answers; the value model V predicts the remaining return at every token.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from rlhflab import processes
from rlhflab.core.record import Evaluated, Evaluator
from rlhflab.data.batches import ShuffledBatches
from rlhflab.models.attention import twice_differentiable
from rlhflab.models.heads import HiddenStates, ValueHead, hidden_size
from rlhflab.models.loading import in_training
from rlhflab.models.logps import (
    AnswerBatch,
    answer_reads,
    append_answers,
    before_head,
    read_logps,
    token_logps,
)
from rlhflab.models.lora import AdaptersOff, is_adapted, load_trained_state, trained_state
from rlhflab.models.precision import float32_logits, in_16_bits
from rlhflab.models.sampling import left_padded, random_heights, sample_answers
from rlhflab.models.trie import pick, share_beginnings
from rlhflab.objectives.policy_gradient import kl_shaped_rewards, last_step
from rlhflab.tasks.rewards import Answers, RewardFunction
from rlhflab.tasks.rollout import Collected, Outputs, Rollout

VALUE_MODELS = ("shared", "own", "none")


class Prompts(NamedTuple):
    """The prompts, and how an answer ends.

    Attributes:
        ids: [prompts, time] token ids, or a list of token ids for each prompt if their lengths differ.
        stop_ids: token ids that end an answer.
        max_tokens: longest answer.
    """

    ids: Tensor | Sequence[Sequence[int]]
    stop_ids: Iterable[int]
    max_tokens: int


class LanguageTask:
    """Answers of a causal LM to a set of prompts.

    Args:
        policy: π_θ, any Hugging Face causal LM; trained in place. It runs without dropout.
        ref_policy: π_ref, frozen; None if `policy` is a PEFT model: then it is the same model with its adapters off.
        prompts: the prompts, and how an answer ends.
        reward: scores of answers.
        batch_size: answers per rollout, over all processes; every prompt comes about equally often.
        seed: of prompts and answers.
        value: "shared" for a head on the policy's trunk, "own" for a separate trunk that starts as a copy of the
            policy's, "none" for no value model.
        missing_stop_penalty: subtracted from the score of an answer that was cut before it stopped; 0 if answers may
            end by their length.
        evaluator: exact evaluation and samples, if the world offers them.
        each: answers per prompt in a rollout; at least two if the mean of the others is the baseline.
    """

    kind = "language"

    def __init__(
        self,
        policy: Any,
        ref_policy: Any,
        prompts: Prompts,
        reward: RewardFunction,
        batch_size: int,
        seed: int,
        value: str = "shared",
        missing_stop_penalty: float = 0.0,
        evaluator: Evaluator | None = None,
        each: int = 1,
    ) -> None:
        if value not in VALUE_MODELS:
            raise ValueError(f"value must be one of {', '.join(VALUE_MODELS)}, got {value!r}")
        if ref_policy is None and not is_adapted(policy):
            raise ValueError("a ref_policy is needed if the policy has no adapters to switch off")
        if value == "own" and is_adapted(policy):
            raise ValueError(
                "value must be shared or none if the policy has adapters: there is one copy of the weights"
            )
        self.policy = in_training(policy, dropout=False)
        self.ref_policy = AdaptersOff(policy) if ref_policy is None else ref_policy
        self.reward, self.evaluator = reward, evaluator
        self.backdrop = evaluator.backdrop if evaluator else None
        self.prompt_length = min(map(len, prompts.ids))  # of the shortest
        padded = (prompts.ids, None) if isinstance(prompts.ids, Tensor) else left_padded(prompts.ids)
        self._prompt_ids, self._prompt_mask = padded
        self.stop_ids, self._max_tokens = tuple(prompts.stop_ids), prompts.max_tokens
        self._stops = torch.tensor(self.stop_ids, device=policy.device)
        self._penalty = missing_stop_penalty
        self._batch_size, self._each = batch_size, each
        self._prompts = ShuffledBatches(len(prompts.ids), -(-batch_size // each), seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._hidden = HiddenStates(policy) if value == "shared" else None
        self.trunk = copy.deepcopy(policy.base_model) if value == "own" else None
        self.head = None if value == "none" else ValueHead(hidden_size(policy)).to(policy.device)

    # ---- what is trained ---------------------------------------------------------------------------------------

    def policy_parameters(self) -> list[nn.Parameter]:
        """π_θ's trainable parameters."""
        return [p for p in self.policy.parameters() if p.requires_grad]

    def value_parameters(self) -> list[nn.Parameter]:
        """Those of the value head, and of its own trunk if it has one."""
        modules = [module for module in (self.trunk, self.head) if module is not None]
        return [p for module in modules for p in module.parameters() if p.requires_grad]

    # ---- acting ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def collect(self, knobs: Mapping[str, float]) -> Collected:
        """Sample answers, score them, and make per-token rewards with the KL term at `knobs["beta"]`."""
        prompts = self._prompts.next().repeat_interleave(self._each)[: self._batch_size]
        heights = random_heights(self._max_tokens, len(prompts), self._generator)
        mine = processes.share(len(prompts))
        rollout, *columns = self._act(prompts[mine], heights[:, mine], knobs["beta"])
        rollout = _of_all(rollout, len(prompts))
        scores, kl, stopped = (processes.whole(column, len(prompts)) for column in columns)
        mask = rollout.mask
        scalars = torch.stack([
            scores.mean(), scores.std(), kl.mean(), rollout.rewards.sum(1).mean(), -rollout.logps.sum() / mask.sum(),
            mask.sum(1).float().mean(), stopped.float().mean(),
        ]).tolist()  # fmt: skip
        names = (
            "objective/scores", "objective/scores_std", "objective/kl", "objective/rlhf_reward",
            "policy/entropy_avg", "answer_length", "stopped",
        )  # fmt: skip
        return Collected(rollout, dict(zip(names, scalars, strict=True)))

    def _act(self, prompts: Tensor, heights: Tensor, beta: float) -> tuple[Rollout, Tensor, Tensor, Tensor]:
        """Answer some prompts with the random numbers `heights`.

        Returns:
            the rollout, as long as the longest answer of all processes; [rows] scores, log π_θ(y|x)/π_ref(y|x), and
            whether the answer stopped by itself.
        """
        prompt_mask = None if self._prompt_mask is None else self._prompt_mask[prompts]
        value = None if self._hidden is None else self._value_of_last_pass
        drawn = sample_answers(
            self.policy, self._prompt_ids[prompts], self._max_tokens, self.stop_ids,
            self.stop_ids[0], heights, value, prompt_mask,
        )  # fmt: skip
        longest = processes.largest(int(drawn.mask.any(0).sum()), self.policy.device)
        tokens, mask, logps, values = (x[:, :longest] for x in drawn)
        device = tokens.device
        batch = append_answers(self._prompt_ids[prompts], tokens, mask)
        if prompt_mask is not None:
            batch = _padded_on_right(batch, prompt_mask.to(device))
        scores = self.reward(Answers(prompts, drawn.answers, drawn.mask, batch)).to(device, logps.dtype)
        stopped = torch.isin(tokens[last_step(mask)], self._stops)
        penalised = scores - self._penalty * ~stopped
        if in_16_bits(self.policy):  # layers round differently token by token than in whole passes
            logps = self._logps(self.policy, batch, mask)
        ref_logps = self._logps(self.ref_policy, batch, mask)
        rollout = Rollout(
            inputs=batch, actions=tokens, logps=logps,
            rewards=kl_shaped_rewards(penalised, logps, ref_logps, mask, beta),
            values=values, dones=last_step(mask), mask=mask, groups=prompts.to(device),
            last_values=logps.new_zeros(len(tokens)),
        )  # fmt: skip
        if self.trunk is not None:
            rollout.values.copy_(self.values(rollout) * mask)
        return rollout, scores, ((logps - ref_logps) * mask).sum(1), stopped

    def _value_of_last_pass(self) -> Tensor:
        assert self.head is not None and self._hidden is not None
        return self.head(self._hidden.take())

    def _logps(self, model: Any, batch: AnswerBatch, mask: Tensor) -> Tensor:
        """log π of the answers' tokens under `model`, from a whole pass: [batch, time] like `mask`."""
        if self._prompt_mask is None:
            return token_logps(model, batch, self.prompt_length)[0]
        found = read_logps(model, answer_reads(batch))
        return found.new_zeros(mask.shape).masked_scatter(mask, found)

    # ---- judging anew ------------------------------------------------------------------------------------------

    def distribution(self, rollout: Rollout, twice: bool = False) -> Categorical:
        """π_θ on the answers' tokens, [batch, time]; with `twice` the graph can be differentiated twice."""
        inputs, places = self._inputs(rollout)
        keep = {"logits_to_keep": rollout.actions.shape[1]} if places is None else {}
        attention = twice_differentiable(self.policy) if twice else nullcontext()
        reading = (
            nullcontext()
            if places is None
            else before_head(self.policy, lambda hidden: pick(hidden, *places))
        )
        with attention, reading, float32_logits(self.policy):
            logits = self.policy(**inputs, use_cache=False, **keep).logits
        return Categorical(logits=logits.float(), validate_args=False)

    def outputs(self, rollout: Rollout) -> Outputs:
        """π_θ and V on the answers' tokens, [batch, time]."""
        distribution = self.distribution(rollout)
        if self.head is None:
            return Outputs(distribution, torch.zeros_like(rollout.logps))
        if self.trunk is not None:
            return Outputs(distribution, self.values(rollout))
        return Outputs(distribution, self._value_of_last_pass())

    def values(self, rollout: Rollout) -> Tensor:
        """V(s_t), [batch, time]; if the trunk is the policy's, only the head gets a gradient."""
        if self.head is None:
            raise ValueError('values need a value model: value="shared" or "own"')
        if self.trunk is None:
            with torch.no_grad():
                self.distribution(rollout)
            return self._value_of_last_pass()
        inputs, places = self._inputs(rollout)
        hidden = self.trunk(**inputs, use_cache=False).last_hidden_state
        return self.head(hidden[:, self.prompt_length - 1 :] if places is None else pick(hidden, *places))

    def _inputs(self, rollout: Rollout) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
        """The model's inputs, and row and position of the hidden state before each token of the answers.

        Both are [batch, time]; None if these are simply the positions from the end of the prompts on.
        """
        batch = rollout.inputs
        ids, mask, begin = batch.input_ids[:, :-1], batch.mask, self.prompt_length - 1
        if self._prompt_mask is None:
            shared = share_beginnings(self.policy, ids, batch.lengths - 1)
            if shared is None:
                return {"input_ids": ids}, None
            before = shared.since(begin)
            return before.inputs, (before.rows, before.places)
        time = torch.arange(rollout.actions.shape[1], device=mask.device)
        places = mask.int().argmax(1, keepdim=True) - 1 + time
        rows = torch.arange(len(mask), device=mask.device).unsqueeze(1).expand_as(places)
        return {"input_ids": ids}, (rows, places.clamp(max=mask.shape[1] - 2))

    def judge(self, knobs: Mapping[str, float]) -> Evaluated:
        """The evaluator's result; an empty one without an evaluator."""
        return self.evaluator(self.policy, knobs["beta"]) if self.evaluator else Evaluated()

    def release(self) -> None:
        """Release the hidden states of a failed pass, with their graph."""
        if self._hidden is not None:
            self._hidden.release()

    # ---- state -------------------------------------------------------------------------------------------------

    def position(self) -> dict[str, Any]:
        """Random state and position in the prompts."""
        return {"prompts": self._prompts.state_dict(), "generator": self._generator.get_state()}

    def return_to(self, position: Mapping[str, Any]) -> None:
        """Inverse of `position`."""
        self._prompts.load_state_dict(position["prompts"])
        self._generator.set_state(position["generator"])

    def learnt(self) -> dict[str, Any]:
        """Weights of policy and value model."""
        state: dict[str, Any] = {"policy": trained_state(self.policy)}
        for name, module in (("trunk", self.trunk), ("head", self.head)):
            if module is not None:
                state[name] = dict(module.state_dict())
        return state

    def relearn(self, state: Mapping[str, Any]) -> None:
        """Inverse of `learnt`."""
        load_trained_state(self.policy, state["policy"])
        for name, module in (("trunk", self.trunk), ("head", self.head)):
            if module is not None:
                module.load_state_dict(state[name])


def _of_all(rollout: Rollout, rows: int) -> Rollout:
    """Gather the rollout of `rows` rows from all processes."""
    if processes.count() == 1:
        return rollout
    batch = rollout.inputs
    inputs = AnswerBatch(*(processes.whole(part, rows) for part in (batch.input_ids, batch.mask)))
    names = (field.name for field in dataclasses.fields(rollout) if field.name != "inputs")
    return Rollout(inputs, **{name: processes.whole(getattr(rollout, name), rows) for name in names})


def _padded_on_right(batch: AnswerBatch, prompt_mask: Tensor) -> AnswerBatch:
    """Move the padding before each prompt behind its answer; `prompt_mask` [batch, time] is True on the prompts."""
    time = batch.mask.shape[1]
    places = torch.arange(time, device=batch.mask.device) + (~prompt_mask).sum(1, keepdim=True)
    within = places.clamp(max=time - 1)
    return AnswerBatch(batch.input_ids.gather(1, within), batch.mask.gather(1, within) & (places < time))
