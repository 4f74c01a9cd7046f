"""The interface of a world: prompts, a tokenizer, and a true reward that the policy never sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class World(Protocol):
    """A small language with prompts and a known true reward r*(x, y).

    Attributes:
        name: "micro" or "reviews".
        prompts: texts.
        tokenizer: word-level.
        prompt_ids: [prompts, time] token ids; all prompts have one length.
        stop_ids: token ids that end an answer and belong to it: EOS, and every token that is not an answer's word.
        max_tokens: longest answer; one of that length ends without a stop.
        enumerable: whether all answers can be listed, so that sums over them are exact.
    """

    name: str
    prompts: tuple[str, ...]
    tokenizer: PreTrainedTokenizerFast
    prompt_ids: Tensor
    max_tokens: int
    enumerable: bool

    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of a prompt's text; ValueError for a text that is not a prompt of this world."""
        ...

    def encode_answer(self, answer: str) -> list[int]:
        """Token ids of an answer's text, its ending included; ValueError for a text that is not an answer."""
        ...

    def decode_answer(self, tokens: Sequence[int]) -> str:
        """Text of an answer's token ids, its ending left out; inverse of `encode_answer`."""
        ...

    def answer_rewards(self, prompts: Tensor, answers: Tensor, mask: Tensor) -> Tensor:
        """r*(x, y) of sampled answers.

        Args:
            prompts: [batch] index into `prompts`.
            answers: [batch, max_tokens] token ids.
            mask: [batch, max_tokens] bool, True on the answer's tokens, the stop included.

        Returns:
            [batch] float64.
        """
        ...

    def grammatical(self, answers: Tensor, mask: Tensor) -> Tensor:
        """[batch] bool: which sampled answers are in the clean language; arguments as in `answer_rewards`."""
        ...

    def true_reward(self, prompt: str, answer: str) -> float:
        """r*(x, y) of texts."""
        ...

    def fault(self, prompt: str, answer: str) -> str:
        """The error in an answer's text, in a few words; "" if it is in the clean language."""
        ...

    def corpus(self, size: int, seed: int, p_noise: float = 0.0) -> list[tuple[str, str]]:
        """Draw (prompt, answer) texts: the clean language, or with `p_noise` > 0 the unedited one."""
        ...
