"""A chat with several models at once: a prompt, a button, and what each of them answers, with its probability.

In the micro world a model is a table of log π(y|x), so an answer is drawn from the whole distribution (temperature 1)
and its probability is exact. All models get the same random number: where two answer differently, they differ.
Texts of models are escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 6  # questions on the page
_CELL = "padding:2px 12px 2px 0;text-align:left"


class Reply(NamedTuple):
    """One model's answer.

    Attributes:
        model: its name.
        answer: the text (untrusted: escape it before display).
        probability: π(y|x).
        reward: r*(x, y).
    """

    model: str
    answer: str
    probability: float
    reward: float


class Chat:
    """Ask several models the same; show it as the last expression of a cell.

    Args:
        prompts: texts to choose from.
        answers: text of every answer.
        models: name → log π(y|x), [prompts, answers].
        rewards: [prompts, answers], r*(x, y).
        seed: of the random numbers.

    Raises:
        ValueError: no model, or a table of another shape.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        answers: Sequence[str],
        models: Mapping[str, Tensor],
        rewards: Tensor,
        seed: int = 0,
    ) -> None:
        import torch

        if not models:
            raise ValueError("a chat needs at least one model")
        for name, table in (*models.items(), ("rewards", rewards)):
            if tuple(table.shape) != (len(prompts), len(answers)):
                wanted = (len(prompts), len(answers))
                raise ValueError(f"{name}: a table of shape {wanted} is needed, got {tuple(table.shape)}")
        self.prompts, self.answers, self.models, self.rewards = tuple(prompts), answers, models, rewards
        self.rounds: list[tuple[str, list[Reply]]] = []
        """The questions so far with their answers, the newest last."""
        self._generator = torch.Generator().manual_seed(seed)
        self._box: Any = None

    def ask(self, prompt: str) -> list[Reply]:
        """Draw one answer of every model to `prompt`, all with the same random number."""
        import torch

        if prompt not in self.prompts:
            raise ValueError(f"unknown prompt {prompt!r}; use one of: {', '.join(self.prompts)}")
        row = self.prompts.index(prompt)
        height = torch.rand(1, dtype=torch.float64, generator=self._generator)
        replies = []
        for name, table in self.models.items():
            probabilities = table[row].double().exp().cpu()
            climb = probabilities.cumsum(0)
            index = min(int(torch.searchsorted(climb, height * climb[-1])), len(climb) - 1)
            reward = float(self.rewards[row, index])
            replies.append(Reply(name, self.answers[index], float(probabilities[index]), reward))
        self.rounds.append((prompt, replies))
        return replies

    @property
    def widget(self) -> Any:
        """The widget, made when first asked for."""
        if self._box is None:
            self._box = self._make()
        return self._box

    def _make(self) -> Any:
        import ipywidgets

        choice = ipywidgets.Dropdown(options=list(self.prompts), description="prompt")
        button = ipywidgets.Button(description="answer", tooltip="one answer of every model")
        self._page = ipywidgets.HTML()

        def answer(_: Any = None) -> None:
            self.ask(choice.value)
            self._page.value = self.html()

        button.on_click(answer)
        if not self.rounds:
            self.ask(self.prompts[0])
        self._page.value = self.html()
        return ipywidgets.VBox([ipywidgets.HBox([choice, button]), self._page])

    def html(self) -> str:
        """The newest questions and answers as a table, the newest on top."""
        heads = ("model", "answer", "probability", "true reward")
        rows = [f"<tr>{''.join(f'<th style={_CELL!r}>{head}</th>' for head in heads)}</tr>"]
        for prompt, replies in self.rounds[: -SHOWN - 1 : -1]:
            rows.append(f"<tr><td colspan=4 style='padding-top:6px'><b>{escape(prompt)} …</b></td></tr>")
            for reply in replies:
                shown = (
                    reply.model,
                    reply.answer,
                    probability_text(reply.probability),
                    f"{reply.reward:+.2f}".replace("-", "−"),
                )
                cells = "".join(f"<td style={_CELL!r}>{escape(text)}</td>" for text in shown)
                rows.append(f"<tr>{cells}</tr>")
        return f"<table style='line-height:1.4'>{''.join(rows)}</table>"

    def __str__(self) -> str:
        """The newest questions and answers as text."""
        lines = []
        for prompt, replies in self.rounds[-SHOWN:]:
            lines.append(f"{prompt} …")
            lines += [
                f"  {r.model:<14} {r.answer!r:<32} probability {probability_text(r.probability)}   r* {r.reward:+.2f}"
                for r in replies
            ]
        return "\n".join(lines)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """The widget, and as text a few answers for where there are no widgets."""
        model_id = self.widget.model_id
        view = {"version_major": 2, "version_minor": 0, "model_id": model_id}
        return {"application/vnd.jupyter.widget-view+json": view, "text/plain": str(self)}


def probability_text(probability: float) -> str:
    """A probability as people read it: 12.3 %, 0.045 %, or 1.2e-05 %."""
    return f"{100 * probability:.3g} %"
