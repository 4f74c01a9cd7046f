"""The prefix tree of a small language: log π(y|x) of every answer y, for any causal language model.

An answer is at most `depth` tokens. It ends at the first token that is not one of the language's `words` (EOS, but
also any token that does not belong in an answer), or after `depth` words. So the answers are the leaves of a tree whose
inner nodes are the shorter word sequences, and under the full softmax of any model their probabilities sum to 1:
nothing is masked, renormalised or left out.

    log π(y|x) = Σ_t log π(y_t | x, y_<t)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rlhflab.objectives.optimum import soft_value


class PrefixTree:
    """All answers over `words`, with their ends.

    Attributes:
        words: [W] token ids that continue an answer.
        stops: [S] all other token ids of the vocabulary; each ends an answer.
        depth: largest number of tokens in an answer.
        answers: [A, depth] token ids of every answer; shorter ones repeat their last token.
        lengths: [A] number of tokens of every answer, the stop included.
    """

    def __init__(self, words: list[int], vocab_size: int, depth: int) -> None:
        if depth < 2:
            raise ValueError(f"depth must be ≥ 2, got {depth}")
        self.words = torch.tensor(words)
        self.stops = torch.tensor([token for token in range(vocab_size) if token not in set(words)])
        self.depth, self.vocab_size = depth, vocab_size

    @cached_property
    def answers(self) -> Tensor:
        leaves = []
        prefixes = torch.empty(1, 0, dtype=torch.long)
        for _ in range(self.depth):
            leaves.append(self._extend(prefixes, self.stops))
            prefixes = self._extend(prefixes, self.words)
        leaves.append(prefixes)
        last = torch.arange(self.depth)
        return torch.cat([leaf[:, last.clamp(max=leaf.shape[1] - 1)] for leaf in leaves])

    @cached_property
    def lengths(self) -> Tensor:
        counts = [len(self.words) ** level * len(self.stops) for level in range(self.depth)]
        counts.append(len(self.words) ** self.depth)
        sizes = [*range(1, self.depth + 1), self.depth]
        return torch.repeat_interleave(torch.tensor(sizes), torch.tensor(counts))

    def positions(self, answers: Tensor, mask: Tensor) -> Tensor:
        """Position of each answer in `answers`: its words are the digits of a number in base W.

        Args:
            answers: [batch, depth] token ids.
            mask: [batch, depth] bool, True on the answer's tokens, the stop included.

        Returns:
            [batch] indices, on the CPU.
        """
        digit = torch.full((self.vocab_size,), -1)
        digit[self.words] = torch.arange(len(self.words))
        digit[self.stops] = torch.arange(len(self.stops))
        stops = torch.zeros(self.vocab_size, dtype=torch.bool)
        stops[self.stops] = True
        answers, mask = answers.cpu(), mask.cpu()
        position = torch.zeros(len(answers), dtype=torch.long)
        offset = torch.zeros(len(answers), dtype=torch.long)
        for level, (tokens, counts) in enumerate(zip(answers.T, mask.T, strict=True)):
            ends = stops[tokens]
            base = torch.where(ends, len(self.stops), len(self.words))
            position = torch.where(counts, position * base + digit[tokens], position)
            offset += torch.where(counts & ~ends, len(self.words) ** level * len(self.stops), 0)
        return position + offset

    @staticmethod
    def _extend(prefixes: Tensor, tokens: Tensor) -> Tensor:
        rows = prefixes.repeat_interleave(len(tokens), 0)
        return torch.cat([rows, tokens.repeat(len(prefixes)).unsqueeze(1)], 1)

    def nodes(self, answers: Tensor, mask: Tensor) -> Tensor:
        """The inner node of an answer before each of its tokens.

        Args:
            answers: [batch, time] token ids.
            mask: [batch, time] bool, True on the answer's tokens, the stop included.

        Returns:
            [batch, time] indices into level t of `step_logps` and `soft_values`; 0 outside the mask. On the CPU.
        """
        digit = torch.zeros(self.vocab_size, dtype=torch.long)
        digit[self.words] = torch.arange(len(self.words))
        answers, node = answers.cpu(), torch.zeros(len(answers), dtype=torch.long)
        nodes = []
        for tokens in answers.T:
            nodes.append(node)
            node = node * len(self.words) + digit[tokens]
        return torch.stack(nodes, 1) * mask.cpu()

    def step_logps(self, model: Any, prompt_ids: Tensor) -> list[Tensor]:
        """Next-token log-probabilities at every inner node, in one forward pass, with gradient.

        A row holds a prompt, the words down to an inner node, and after them all W words that can follow, side by
        side: at the same position, each seeing only the trunk and itself. That needs 22,000 tokens for nine prompts;
        a level-by-level walk with a key–value cache needs 17,000, but twice the time (it copies the cache).

        Args:
            model: any Hugging Face causal LM whose vocabulary is the tree's.
            prompt_ids: [prompts, T], prompts of one length.

        Returns:
            `depth` tensors; level d is [prompts, W**d, vocab], float64, always on the CPU.
        """
        if prompt_ids.ndim != 2:
            raise ValueError(f"prompt_ids must be [prompts, T], got {tuple(prompt_ids.shape)}")
        prompts, n_words, device = len(prompt_ids), len(self.words), model.device
        trunk = prompt_ids
        for _ in range(self.depth - 2):
            trunk = self._extend(trunk, self.words)
        stem, width = trunk.shape[1], trunk.shape[1] + n_words
        ids = torch.cat([trunk, self.words.expand(len(trunk), -1)], 1).to(device)
        sees = torch.ones(width, width, dtype=torch.bool).tril()
        sees[stem:, stem:] = torch.eye(n_words, dtype=torch.bool)
        position = torch.arange(width).clamp(max=stem)
        was_training = model.training
        model.eval()
        try:
            logits = model(
                input_ids=ids,
                attention_mask=sees.expand(1, 1, -1, -1).to(device),
                position_ids=position.expand(len(ids), -1).to(device),
                use_cache=False,
                logits_to_keep=width - prompt_ids.shape[1] + 1,
            ).logits
        finally:
            model.train(was_training)
        if logits.shape[-1] != self.vocab_size:
            raise ValueError(f"the model's vocabulary is {logits.shape[-1]}, the tree's is {self.vocab_size}")
        logps = logits.view(prompts, -1, *logits.shape[1:])
        levels = [logps[:, :: n_words ** (self.depth - 2 - level), level] for level in range(self.depth - 1)]
        levels.append(logps[:, :, -n_words:].flatten(1, 2))
        return [level.cpu().double().log_softmax(-1) for level in levels]

    def leaf_logps(self, levels: list[Tensor]) -> Tensor:
        """log π(y|x) of every answer, [prompts, A] float64, in the order of `answers`, from `step_logps`."""
        rows, leaves = len(levels[0]), []
        prefix = levels[0].new_zeros(rows, 1)
        for step in levels:
            total = prefix.unsqueeze(-1) + step
            leaves.append(total[..., self.stops].flatten(1))
            prefix = total[..., self.words].flatten(1)
        return torch.cat([*leaves, prefix], 1)

    @torch.no_grad()
    def leaf_scores(
        self, score: Callable[[Tensor, Tensor, Tensor], Tensor], prompt_ids: Tensor, rows: int = 1024
    ) -> Tensor:
        """A reward model's score of every answer, read at its last token.

        A row holds a prompt, the words down to an inner node and, side by side, all tokens that can end an answer.

        Args:
            score: (input_ids, attention_mask, position_ids) → one number per position, [rows, time].
            prompt_ids: [prompts, T], prompts of one length, on the model's device.
            rows: most rows in one call.

        Returns:
            [prompts, A] float64 on the CPU, in the order of `answers`.
        """
        prompts, length, device = len(prompt_ids), prompt_ids.shape[1], prompt_ids.device
        stops, words = self.stops.to(device), self.words.to(device)
        prefixes, leaves = prompt_ids, []
        for level in range(self.depth):
            ends = torch.cat([stops, words]) if level == self.depth - 1 else stops
            stem, width = length + level, length + level + len(ends)
            sees = torch.ones(width, width, dtype=torch.bool, device=device).tril()
            sees[stem:, stem:] = torch.eye(len(ends), dtype=torch.bool)
            position = torch.arange(width, device=device).clamp(max=stem)
            ids = torch.cat([prefixes, ends.expand(len(prefixes), -1)], 1)
            parts = [
                score(part, sees.expand(1, 1, -1, -1), position.expand(len(part), -1))[:, stem:]
                for part in ids.split(rows)
            ]
            scores = torch.cat(parts).cpu().double().view(prompts, -1, len(ends))
            leaves.append(scores[..., : len(stops)].flatten(1))
            if level == self.depth - 1:
                leaves.append(scores[..., len(stops) :].flatten(1))
            prefixes = self._extend(prefixes, words)
        return torch.cat(leaves, 1)

    @torch.no_grad()
    def logps(self, model: Any, prompt_ids: Tensor) -> Tensor:
        """log π(y|x) of every answer under `model`: [prompts, A], float64 on the CPU; each row's exp sums to 1."""
        return self.leaf_logps(self.step_logps(model, prompt_ids))

    def soft_values(
        self, ref_levels: list[Tensor], rewards: Tensor, beta: float
    ) -> tuple[list[Tensor], list[Tensor]]:
        """V*(s) and Q*(s, a) of every inner node by backward induction.

        Args:
            ref_levels: π_ref's `step_logps`.
            rewards: [prompts, A], rewards of all answers.
            beta: KL strength > 0.

        Returns:
            values: level d is [prompts, W**d]; values[0] is β·log Z(x).
            q_values: level d is [prompts, W**d, vocab].
        """
        return self._backwards(rewards, lambda level, q: soft_value(ref_levels[level], q, beta))

    def policy_values(
        self, levels: list[Tensor], ref_levels: list[Tensor], rewards: Tensor, beta: float
    ) -> tuple[list[Tensor], list[Tensor]]:
        """V^π(s) and Q^π(s, a): the future reward of policy π, its own KL term included.

        V^π(s) = Σ_a π(a|s)·[Q^π(s, a) − β·log(π(a|s)/π_ref(a|s))]; Q^π, like Q*, excludes the KL term of token a.

        Args:
            levels: π's `step_logps`.
            ref_levels, rewards, beta: as in `soft_values`.

        Returns:
            values and q_values as in `soft_values`; values[0] is J(π) at each prompt.
        """
        return self._backwards(
            rewards,
            lambda level, q: (levels[level].exp() * (q - beta * (levels[level] - ref_levels[level]))).sum(-1),
        )

    def _backwards(
        self, rewards: Tensor, value: Callable[[int, Tensor], Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Backward induction from all ends to the prompt; `value` is (level, [prompts, nodes, vocab] Q) → V."""
        rows, n_words, n_stops = len(rewards), len(self.words), len(self.stops)
        sizes = [n_words**level * n_stops for level in range(self.depth)] + [n_words**self.depth]
        ends = list(rewards.split(sizes, 1))
        following = ends.pop()  # rewards of the answers of `depth` words
        values: list[Tensor] = []
        q_values: list[Tensor] = []
        for level in reversed(range(self.depth)):
            q = rewards.new_empty(rows, n_words**level, self.vocab_size)
            q[..., self.stops] = ends[level].view(rows, -1, n_stops)
            q[..., self.words] = following.view(rows, -1, n_words)
            following = value(level, q)
            values.insert(0, following)
            q_values.insert(0, q)
        return values, q_values
