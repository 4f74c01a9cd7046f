"""How people choose between answers: the Bradley–Terry and Plackett–Luce models.

Source: Bradley & Terry (1952); Plackett (1975); as used in Rafailov et al. (2023), eqs. 1, 2 and 18.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rlhflab.objectives.checks import same_shape


def preference_probability(chosen_scores: Tensor, rejected_scores: Tensor) -> Tensor:
    """Probability that the first answer is preferred: p(y_w ≻ y_l | x) = σ(r_w − r_l).

    Args:
        chosen_scores: [batch], r(x, y_w), one score per answer.
        rejected_scores: [batch], r(x, y_l).

    Returns:
        [batch], in (0, 1).

    >>> preference_probability(torch.tensor([1.0]), torch.tensor([1.0]))
    tensor([0.5000])
    """
    same_shape(chosen_scores=chosen_scores, rejected_scores=rejected_scores)
    return torch.sigmoid(chosen_scores - rejected_scores)


def bradley_terry_loss(chosen_scores: Tensor, rejected_scores: Tensor) -> Tensor:
    """Negative log-likelihood of each observed choice: L = −log σ(r_w − r_l).

    Args:
        chosen_scores: [batch], r(x, y_w).
        rejected_scores: [batch], r(x, y_l).

    Returns:
        [batch], ≥ 0, nats per pair; ln 2 where the scores tie.
    """
    same_shape(chosen_scores=chosen_scores, rejected_scores=rejected_scores)
    return -F.logsigmoid(chosen_scores - rejected_scores)


def plackett_luce_loss(ranked_scores: Tensor) -> Tensor:
    """Negative log-likelihood of a full ranking: L = −log ∏_k exp r_k / Σ_{j≥k} exp r_j.

    Args:
        ranked_scores: [batch, K], scores in the observed order, best first; K ≥ 2.

    Returns:
        [batch], ≥ 0, nats per ranking; for K = 2 it is the Bradley–Terry loss.
    """
    if ranked_scores.ndim != 2 or ranked_scores.shape[1] < 2:
        raise ValueError(f"ranked_scores must be [batch, K ≥ 2], got {tuple(ranked_scores.shape)}")
    tails = ranked_scores.flip(1).logcumsumexp(1).flip(1)  # tails[:, k] = log Σ_{j≥k} exp r_j
    return (tails - ranked_scores).sum(1)


def label_pairs(
    first_rewards: Tensor, second_rewards: Tensor, label_noise: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Label pairs as a Bradley–Terry annotator who errs with probability `label_noise` would.

    Args:
        first_rewards, second_rewards: [batch], true rewards of the two answers.
        label_noise: probability in [0, 0.5] that a label is swapped after drawing.
        generator: source of randomness.

    Returns:
        first_chosen: [batch] bool, True where the first answer is labelled as chosen.
        flipped: [batch] bool, True where the label was swapped by the noise.
    """
    same_shape(first_rewards=first_rewards, second_rewards=second_rewards)
    if not 0 <= label_noise <= 0.5:
        raise ValueError(f"label_noise must be in [0, 0.5], got {label_noise!r}")
    uniform = torch.rand((2, *first_rewards.shape), generator=generator, device=generator.device)
    wins = uniform[0] < preference_probability(first_rewards, second_rewards).to(uniform.device)
    flipped = uniform[1] < label_noise
    return wins ^ flipped, flipped


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's ρ over the last dimension: the correlation of ranks, ties at their mean rank.

    Args:
        first, second: [..., n], n ≥ 2.

    Returns:
        [...] in [−1, 1]; 0 where one of the two does not vary.

    >>> rank_correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 1000.0, 100.0]))
    tensor(0.5000)
    """
    same_shape(first=first, second=second)
    a, b = (ranks - ranks.mean(-1, keepdim=True) for ranks in (_ranks(first), _ranks(second)))
    scale = (a.square().sum(-1) * b.square().sum(-1)).sqrt()
    return torch.where(scale > 0, (a * b).sum(-1) / scale.clamp(min=1e-12), 0.0).to(first.dtype)


def _ranks(values: Tensor) -> Tensor:
    """Rank of each value, from 0, ties at their mean rank; float64."""
    ordered = values.contiguous().sort(-1).values
    below = torch.searchsorted(ordered, values.contiguous(), right=False)
    up_to = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (below + up_to - 1).double() / 2
