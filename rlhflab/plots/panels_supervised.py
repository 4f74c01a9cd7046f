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
    caption="Falls to the entropy of the language and no further. Exact rises while the batch falls? Overfitting.",
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
        ("held out", "512 texts that are not trained on, where the language's entropy is not known"),
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
    caption="As unsure as a fair choice among so many tokens. With random weights: among all of them.",
    formula=("perplexity = e^{exact loss}", "least = e^{entropy}"),
    symbols=(("exact loss, entropy", "those of the first plot"),),
    lines=(
        Line("exact/perplexity", "π_θ", "policy", ghost=True),
        Line("exact/least_perplexity", "least", "truth", dash="dash"),
        Line("estimated/perplexity", "π_θ on held-out texts", "policy", ghost=True),
    ),
    y_title="tokens",
)
GRAMMATICAL = replace(
    panels_dpo.GRAMMATICAL,
    caption="Climbs to what the texts are like: a model of faulty texts makes faults.",
    symbols=(*panels_dpo.GRAMMATICAL.symbols, ("texts", "the share of clean texts in the language")),
    lines=(
        *panels_dpo.GRAMMATICAL.lines,
        Line("exact/grammatical_texts", "texts", "truth", dash="dash"),
    ),
    report_only=False,
)
KL = replace(
    panels_dpo.KL,
    title="KL from the start",
    caption="How far this training has moved the distribution. It is not asked for: it is what the texts cost.",
    symbols=(POLICY, _START, ("unit", "nats per answer")),
    target="",
)
REWARD = replace(
    panels_dpo.REWARD,
    caption="A side effect: training knows nothing of it. Faulty answers are worth −2, so fewer of them help.",
    symbols=(POLICY, TRUE_R, ("dotted", "under the model before this training")),
    target="",
)

SUPERVISED_PANELS: tuple[Panel, ...] = (LOSS, PERPLEXITY, GRAMMATICAL, KL, REWARD)
"""In reading order."""
