"""The data of the β explorable's page: π_ref's mass on each reward, the pairs' mean rewards, and answers with bars.

Z, E[r] and KL of π* depend on π_ref only through how much of its mass lies on each distinct reward, so that
distribution is what is sent, with the few answers that get a bar: tens of kilobytes where the full table has 200,000
numbers.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from rlhflab.objectives.optimum import optimal_logps, reward_levels
from rlhflab.text import clipped

MIN_BETA, MAX_BETA = 0.05, 10.0
BAR_BETAS = (2.0, 1.0, 0.5, 0.2, 0.1, MIN_BETA)  # where to look for answers that π* makes likely

_MOST_PAIR_LEVELS = 2_000  # the pair means are quadratic in the number of levels
_PAYLOAD_BYTES = 95_000  # what may be sent; the promise is 100 kB
_BYTES_PER_LEVEL = 32  # one reward and one mass in JSON, at nine digits
_FEWEST_LEVELS = 64  # fewer would be visible in the curves
_LONGEST_TEXT = 80


def tables(prompts: list[str], answers: list[str], ref_logps: Any, rewards: Any) -> tuple[Tensor, Tensor]:
    """Return both tables [prompts, answers] as float64 on the CPU, each row of log π_ref normalised.

    Args:
        prompts, answers: the texts, for the shapes and the messages.
        ref_logps: [prompts, answers] log π_ref(y|x), array or tensor; -inf where π_ref is 0.
        rewards: [prompts, answers] r(x, y), array or tensor.

    Raises:
        ValueError: shapes, numbers that are not finite, rows that do not sum to 1 within 1e-4.
    """
    logps, r = _float64(ref_logps), _float64(rewards)
    expected = (len(prompts), len(answers))
    if 0 in expected:
        raise ValueError(
            f"at least one prompt and one answer are needed, got {expected[0]} and {expected[1]}"
        )
    shapes = tuple(logps.shape), tuple(r.shape)
    if shapes != (expected, expected):
        raise ValueError(
            f"ref_logps and rewards must be [prompts, answers] = {expected}, got {shapes[0]} and {shapes[1]}"
        )
    if not r.isfinite().all():
        at = tuple((~r.isfinite()).nonzero()[0].tolist())
        raise ValueError(f"rewards must be finite, got {r[at]:g} at {at} in shape {expected}")
    if logps.isnan().any():
        at = tuple(logps.isnan().nonzero()[0].tolist())
        raise ValueError(f"ref_logps must not be NaN, got NaN at {at} in shape {expected}")
    sums = logps.exp().sum(-1)
    worst = int((sums - 1).abs().argmax())
    if not abs(sums[worst] - 1) <= 1e-4:
        raise ValueError(
            "exp(ref_logps) must sum to 1 over the answers, "
            f"got {sums[worst]:.6g} for prompt {worst} ({clipped(prompts[worst], _LONGEST_TEXT)!r})"
        )
    return logps.log_softmax(-1), r


def payload(
    prompts: list[str], answers: list[str], logps: Tensor, rewards: Tensor, top: int
) -> dict[str, Any]:
    """Return all that the page needs, as JSON lists of at most 100 kB.

    Args:
        prompts, answers: the texts.
        logps, rewards: [prompts, answers], from `tables`.
        top: how many of the likeliest answers get bars.

    Raises:
        ValueError: too many prompts for 100 kB.
    """
    count = len(prompts)
    exact = [levels_of(logps[i], rewards[i]) for i in range(count)]
    means = [chosen_rejected_means(*pair) for pair in exact]
    likely = [optimal_logps(logps, rewards, beta).exp() for beta in BAR_BETAS]
    groups = [[i] for i in range(count)]
    if count > 1:
        groups.insert(0, list(range(count)))  # bars[0] is "all prompts"
    data: dict[str, Any] = {
        "prompts": [clipped(text, _LONGEST_TEXT) for text in prompts],
        "answers": len(answers),
        "range": [MIN_BETA, MAX_BETA],
        "chosen": _digits([chosen for chosen, _ in means]),
        "rejected": _digits([rejected for _, rejected in means]),
        "bars": [
            _bars(answers, logps[group].exp(), rewards[group], [best[group] for best in likely], top)
            for group in groups
        ],
    }
    used = _json_bytes(data)
    needed = max(len(levels) for levels, _ in exact)
    sent = _columns(exact)
    if used + _json_bytes(sent) > _PAYLOAD_BYTES:
        most = (_PAYLOAD_BYTES - used) // (_BYTES_PER_LEVEL * count)
        if most < _FEWEST_LEVELS:
            raise ValueError(
                f"{count} prompts with {needed} distinct rewards do not fit in 100 kB: pass fewer prompts"
            )
        sent = _columns([merge_levels(levels, masses, most) for levels, masses in exact])
    # `merged`: distinct rewards before merging; 0 where all were sent
    return {**data, **sent, "merged": needed if needed > max(map(len, sent["levels"])) else 0}


def levels_of(ref_logps_row: Tensor, rewards_row: Tensor) -> tuple[Tensor, Tensor]:
    """Return one prompt's distinct rewards [L], ascending, and π_ref's mass on each [L], which sums to 1.

    Args:
        ref_logps_row, rewards_row: [answers], log π_ref(y|x) and r(x, y).
    """
    level_logps, levels = reward_levels(ref_logps_row[None], rewards_row[None])
    return levels[0], level_logps[0].softmax(-1)


def chosen_rejected_means(levels: Tensor, masses: Tensor) -> tuple[float, float]:
    """Mean reward of the chosen and of the rejected answer when Bradley–Terry labels pairs drawn from π_ref.

    p(w = i, l = j) = 2·p_i·p_j·σ(r_i − r_j), with both answers drawn independently (equal ones included), hence
    E[r_w] = E[r] + Σ_ij p_i·p_j·r_i·tanh((r_i − r_j)/2) and E[r_w] + E[r_l] = 2·E[r].

    Args:
        levels: [L] distinct rewards, ascending. Above 2,000 levels they are first merged into 2,000 equal bins, each
            at its mean reward: the cost is quadratic.
        masses: [L] π_ref mass on each, sum 1.

    Returns:
        (E[r_w], E[r_l]). With them E[log π*(y_w)/π_ref(y_w)] = E[r_w]/β − log Z is exact for every β.

    >>> means = chosen_rejected_means(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5]))
    >>> [round(mean, 4) for mean in means]
    [0.6155, 0.3845]
    """
    r, p = merge_levels(levels, masses, _MOST_PAIR_LEVELS)
    mean = float(p @ r)
    lift = float((p * r) @ torch.tanh((r[:, None] - r[None, :]) / 2) @ p)
    return mean + lift, mean - lift


def merge_levels(levels: Tensor, masses: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Merge `levels` [L] into at most `most` bins of equal width, each at its mean reward; E_ref[r] is kept exactly.

    Returned unchanged when there are no more than `most`. With bins of width w, log Z falls by less than w²/(8β²).
    """
    if len(levels) <= most:
        return levels, masses
    bins = ((levels - levels[0]) / (levels[-1] - levels[0]) * most).long().clamp(max=most - 1)
    mass = torch.bincount(bins, masses, most)
    mean = torch.bincount(bins, masses * levels, most) / mass
    return mean[mass > 0], mass[mass > 0]


def _bars(answers: list[str], ref: Tensor, rewards: Tensor, likely: list[Tensor], top: int) -> dict[str, Any]:
    """Choose the answers with bars: the likeliest under π_ref, then those that π* makes likely; best reward first.

    `ref`, `rewards` and each of `likely` (π* at one of BAR_BETAS) are [prompts of the group, answers].
    """
    first, *ranked = (
        table.mean(0).argsort(descending=True, stable=True)[:top].tolist() for table in (ref, *likely)
    )
    wanted = min(len(answers), top + max(top // 2, 1))
    taken = set(first)
    for place in range(len(first)):  # the first of every β, then the second of every β, …
        for order in ranked:
            if len(taken) < wanted:
                taken.add(order[place])
    mean_ref, mean_reward = ref.mean(0).tolist(), rewards.mean(0).tolist()
    shown = sorted(taken, key=lambda i: (-round(mean_reward[i], 9), -mean_ref[i]))
    return {
        "texts": [clipped(answers[i], _LONGEST_TEXT) for i in shown],
        "ref": [_digits(ref[:, i].tolist()) for i in shown],
        "rewards": [_digits(rewards[:, i].tolist()) for i in shown],
    }


def _columns(pairs: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    return {
        "levels": [_digits(levels.tolist()) for levels, _ in pairs],
        "masses": [_digits(masses.tolist()) for _, masses in pairs],
    }


def _digits(values: list[float]) -> list[float]:
    """Nine significant digits: far finer than a curve can show, and the JSON is half as long."""
    return [float(f"{value:.9g}") for value in values]


def _json_bytes(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _float64(values: Any) -> Tensor:
    """Return an array, list, or tensor on any device as a float64 tensor on the CPU."""
    if isinstance(values, Tensor):
        return values.detach().cpu().double()
    return torch.as_tensor(values, dtype=torch.float64)
