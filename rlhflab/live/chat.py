"""A chat with several models at once: a prompt, a button, and each model's answer with its probability.

Answers are drawn from the full distribution (temperature 1), so the probabilities shown are those of the draws. All
models get the same random numbers: if two answer differently, the models differ. Texts of models are escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from rlhflab.seeds import seed_of_part

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


Speaker = Callable[[int, int], tuple[str, float, float]]
"""(position of the prompt, seed) → a drawn answer's text, its probability and its true reward."""


class Chat:
    """Ask several models the same prompt; display it as the last expression of a cell.

    Args:
        prompts: texts to choose from.
        models: name → speaker; `data.sampled.speaker` makes one from a model.
        seed: of the random numbers.

    Raises:
        ValueError: no model.
    """

    def __init__(self, prompts: Sequence[str], models: Mapping[str, Speaker], seed: int = 0) -> None:
        if not models:
            raise ValueError("a chat needs at least one model")
        self.prompts, self.models, self._seed = tuple(prompts), models, seed
        self.rounds: list[tuple[str, list[Reply]]] = []
        """The prompts so far with their answers, the newest last."""
        self._box: Any = None

    def ask(self, prompt: str) -> list[Reply]:
        """Draw one answer of every model to `prompt`, with the same random numbers for all."""
        if prompt not in self.prompts:
            raise ValueError(f"unknown prompt {prompt!r}; use one of: {', '.join(self.prompts)}")
        at, seed = self.prompts.index(prompt), seed_of_part(self._seed, len(self.rounds))
        replies = [Reply(name, *speak(at, seed)) for name, speak in self.models.items()]
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
        """The newest prompts and answers as a table, the newest on top."""
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
        """The newest prompts and answers as text."""
        lines = []
        for prompt, replies in self.rounds[-SHOWN:]:
            lines.append(f"{prompt} …")
            lines += [
                f"  {r.model:<14} {r.answer!r:<32} probability {probability_text(r.probability)}   r* {r.reward:+.2f}"
                for r in replies
            ]
        return "\n".join(lines)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """The widget, and a few answers as text for front ends without widgets."""
        model_id = self.widget.model_id
        view = {"version_major": 2, "version_minor": 0, "model_id": model_id}
        return {"application/vnd.jupyter.widget-view+json": view, "text/plain": str(self)}


def probability_text(probability: float) -> str:
    """A probability in a readable form: 12.3 %, 0.045 %, or 1.2e-05 %."""
    return f"{100 * probability:.3g} %"
