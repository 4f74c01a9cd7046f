"""The panels of pre-training and supervised fine-tuning boards."""

from __future__ import annotations

from dataclasses import replace

from rlhflab.plots import panels_dpo
from rlhflab.plots.panel import Line, Panel
from rlhflab.plots.panels_dpo import POLICY, TRUE_R

_START = ("π_{ref}", "the model before this training")
_LANGUAGE = ("p(y)", "the language that the texts are drawn from, known in this world")
_TOKENS = ("T", "mean number of tokens of a text, its end included")

LOSS = Panel(
    id="loss",
    title="Loss",
    caption="Falls to the entropy of the language at best. Exact rises while the batch falls? Overfitting.",
    formula=(
        "L = − Σ log π_θ(y_t|x, y_{<t}) / number of tokens, over the answers' tokens",
        "exact: − E_x Σ_y p(y) · log π_θ(y|x) / T",
        "entropy: − Σ_y p(y) · log p(y) / T",
    ),
    symbols=(
        POLICY,
        _LANGUAGE,
        _TOKENS,
        ("batch", "the texts of one update"),
        ("exact", "over all texts of the language: entropy + KL(p ‖ π_θ) / T"),
        ("held out", "512 texts that are not trained on, if the language's entropy is not known"),
        ("unit", "nats per token"),
    ),
    lines=(
        Line("loss", "batch", "fit"),
        Line("exact/cross_entropy", "exact", "policy", ghost=True),
        Line("exact/entropy", "entropy", "truth", dash="dash"),
        Line(
            "estimated/cross_entropy",
            "held out ± its error",
            "policy",
            spread="estimated/cross_entropy_se",
            ghost=True,
        ),
    ),
    y_title="nats per token",
)
PERPLEXITY = Panel(
    id="perplexity",
    title="Perplexity",
    caption="The model is as unsure as a uniform choice among this many tokens: at random weights, among all.",
    formula=("perplexity = e^{exact loss}", "least = e^{entropy}"),
    symbols=(("exact loss, entropy", "from the first plot"),),
    lines=(
        Line("exact/perplexity", "π_θ", "policy", ghost=True),
        Line("exact/least_perplexity", "least", "truth", dash="dash"),
        Line("estimated/perplexity", "π_θ on held-out texts", "policy", ghost=True),
    ),
    y_title="tokens",
)
GRAMMATICAL = replace(
    panels_dpo.GRAMMATICAL,
    caption="Rises to the level of the texts: a model of texts with errors makes errors.",
    symbols=(*panels_dpo.GRAMMATICAL.symbols, ("texts", "the fraction of clean texts in the language")),
    lines=(
        *panels_dpo.GRAMMATICAL.lines,
        Line("exact/grammatical_texts", "texts", "truth", dash="dash"),
    ),
    report_only=False,
)
KL = replace(
    panels_dpo.KL,
    title="KL from the start",
    caption="How far this training has moved the distribution: not a goal, but a consequence of the texts.",
    symbols=(POLICY, _START, ("unit", "nats per answer")),
    target="",
)
REWARD = replace(
    panels_dpo.REWARD,
    caption="A side effect: training does not see it. Ungrammatical answers score −2, so fewer of them raise it.",
    symbols=(POLICY, TRUE_R, ("dotted", "under the model before this training")),
    target="",
)

SUPERVISED_PANELS: tuple[Panel, ...] = (LOSS, PERPLEXITY, GRAMMATICAL, KL, REWARD)
"""In reading order."""
