"""Sources of pairs for preference optimisation: a fixed data set, or new pairs at every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rlhflab import processes
from rlhflab.data.batches import ShuffledBatches
from rlhflab.data.encoding import PairTokens
from rlhflab.models.logps import (
    AnswerBatch,
    Reads,
    answer_reads,
    common_start,
    evaluating,
    frozen_sequence_logps,
    join_answers,
    sequence_logps,
)
from rlhflab.models.precision import computes_in
from rlhflab.models.shared import shared_reads
from rlhflab.models.trie import can_share
from rlhflab.worlds.micro import PairBatch, ReferencePoint
from rlhflab.worlds.preferences import PreferencePair


class PairRows(NamedTuple):
    """One batch of pairs, ready for the loss. Of several processes, each has only the answers of its own rows.

    Attributes:
        answers: [2·rows, time], all chosen answers, then all rejected ones.
        ref_logps: [2·rows] log π_ref(y|x) in the same order.
        ids: [batch] position in the data set, or a serial number.
        texts: [batch] the pairs as text.
        reads: the same answers, laid out differently for the policy, such as with shared prompts.
    """

    answers: AnswerBatch
    ref_logps: Tensor
    ids: list[int]
    texts: Sequence[PreferencePair]
    reads: Reads | None = None


class PairSource(Protocol):
    """Gives batches of pairs and can be stopped and continued exactly."""

    start: int | None

    def next(self) -> PairRows: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class FixedPairs:
    """A data set of pairs in shuffled epochs; the reference's log-probabilities are computed once and kept.

    Args:
        pairs: the data set.
        encode_prompt, encode_answer: text → token ids (the answer's with its ending).
        ref_policy: π_ref, any causal LM.
        batch_size: pairs a batch; a data set smaller than that is repeated within the batch.
        seed: of the shuffling.
    """

    def __init__(
        self,
        pairs: Sequence[PreferencePair],
        encode_prompt: Callable[[str], list[int]],
        encode_answer: Callable[[str], list[int]],
        ref_policy: Any,
        batch_size: int,
        seed: int,
    ) -> None:
        self.pairs = pairs
        prompts = [encode_prompt(pair.prompt) for pair in pairs]
        answers = [encode_answer(pair.chosen) for pair in pairs] + [
            encode_answer(pair.rejected) for pair in pairs
        ]
        everything = join_answers(prompts * 2, answers)
        self._ref_logps = frozen_sequence_logps(ref_policy, everything).to(ref_policy.device)
        self._answers = everything.to(ref_policy.device)
        self.start = common_start(everything)
        self._batches = ShuffledBatches(len(pairs), batch_size, seed)

    def next(self) -> PairRows:
        """The next batch."""
        batch = self._batches.next()
        ids, mine = batch.tolist(), batch[processes.share(len(batch))]
        rows = torch.cat([mine, mine + len(self.pairs)])
        return PairRows(
            self._answers.rows(rows), self._ref_logps[rows], ids, [self.pairs[index] for index in ids]
        )

    def state_dict(self) -> dict[str, Any]:
        """Position in the shuffled data."""
        return self._batches.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._batches.load_state_dict(state)


class LongPairs:
    """A data set of real texts in shuffled epochs: long, of many lengths, for a slow model.

    A batch is as long as its longest row. The reference evaluates a pair when it first comes up, instead of all pairs
    before the first step; the results are kept, and are part of the state. A run continued in another precision or on
    another device drops them, as π_θ's log-probabilities would be compared with those of a different model. If the
    model supports it, chosen and rejected answers share their prompt.

    Args:
        pairs: the data set.
        tokens: the same as token ids.
        ref_policy: π_ref, such as from `load_reference`.
        batch_size: pairs a batch; a data set smaller than that is repeated within the batch.
        seed: of the shuffling.
    """

    def __init__(
        self, pairs: Sequence[PreferencePair], tokens: PairTokens, ref_policy: Any, batch_size: int, seed: int
    ) -> None:
        self.pairs, self._tokens, self._ref_policy = pairs, tokens, ref_policy
        self.start: int | None = None
        self._share = can_share(ref_policy)
        self._ref_logps = torch.full((2, len(pairs)), float("nan"))
        self._judged_in = computes_in(ref_policy)
        self._batches = ShuffledBatches(len(pairs), batch_size, seed)

    def next(self) -> PairRows:
        """The next batch; the reference evaluates the pairs that are new in it."""
        batch = self._batches.next()
        ids, mine = batch.tolist(), processes.share(len(batch))
        taken, device = self._tokens.take(ids[mine]), self._ref_policy.device
        answers = join_answers(taken.prompts * 2, taken.chosen + taken.rejected)
        reads = (shared_reads(answers) if self._share else answer_reads(answers)).to(device)
        known = self._ref_logps[:, batch]
        if known.isnan().any():
            with evaluating(self._ref_policy):
                found = sequence_logps(self._ref_policy, reads).view(2, -1)
            known = torch.where(known.isnan(), processes.whole(found.T, len(ids)).T.cpu(), known)
            self._ref_logps[:, batch] = known
        ref_logps = known[:, mine].flatten().to(device)
        return PairRows(answers.to(device), ref_logps, ids, [self.pairs[index] for index in ids], reads)

    def state_dict(self) -> dict[str, Any]:
        """Position in the shuffled data, and the reference's log-probabilities known so far."""
        return {
            **self._batches.state_dict(), "ref_logps": self._ref_logps, "ref_logps_in": self._judged_in
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`, without the reference's results from another precision or device.

        Raises:
            ValueError: the state belongs to other data.
        """
        self._batches.load_state_dict(state)
        same = state.get("ref_logps_in") == self._judged_in
        self._ref_logps = (
            state["ref_logps"].clone() if same else torch.full_like(self._ref_logps, float("nan"))
        )


class FreshPairs:
    """New pairs at every step, drawn from π_ref and labelled by the true reward: unlimited preference data.

    Args:
        reference: the micro world seen from π_ref.
        label_noise: probability in [0, 0.5] that a label is swapped.
        batch_size: pairs a batch.
        seed: of the drawing.
        device: where the policy is.
    """

    def __init__(
        self, reference: ReferencePoint, label_noise: float, batch_size: int, seed: int,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self._reference, self._noise, self._size, self._device = reference, label_noise, batch_size, device
        self.start: int | None
        self._generator = torch.Generator().manual_seed(seed)
        self._drawn = 0
        tree, prompt_ids = reference.world.tree, reference.world.prompt_ids
        self.start = prompt_ids.shape[1]
        time = self.start + tree.depth
        self._answers = torch.empty(len(tree.answers), time, dtype=torch.long)
        self._answers[:, self.start :] = tree.answers
        self._mask = (torch.arange(time) >= self.start) & (
            torch.arange(time) < self.start + tree.lengths.unsqueeze(1)
        )

    def next(self) -> PairRows:
        """Draw the next batch."""
        pairs: PairBatch = self._reference.sample_pairs(self._size, self._noise, self._generator)
        ids = list(range(self._drawn, self._drawn + self._size))
        self._drawn += self._size
        mine = processes.share(self._size)
        index, prompts = torch.cat([pairs.chosen[mine], pairs.rejected[mine]]), pairs.prompts[mine].repeat(2)
        input_ids = self._answers[index]
        input_ids[:, : self.start] = self._reference.world.prompt_ids[prompts]
        ref_logps = self._reference.logps[prompts, index].float().to(self._device)
        rows = AnswerBatch(input_ids, self._mask[index]).to(self._device)
        return PairRows(rows, ref_logps, ids, self._reference.texts(pairs))

    def state_dict(self) -> dict[str, Any]:
        """Random state and the number of pairs drawn."""
        return {"generator": self._generator.get_state(), "drawn": self._drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._generator.set_state(state["generator"])
        self._drawn = int(state["drawn"])
