"""From rewards to advantages: returns, temporal differences, GAE, baselines, whitening.

Shapes are [batch, time]: a row is a trajectory or a stretch of one, in order. `dones` is True on the step that ends an
episode: nothing flows back across it. Steps after an answer's end are padding, with reward and value 0.

Source: Schulman et al. (2016), "High-dimensional continuous control using generalized advantage estimation"; the
leave-one-out baseline is Kool et al. (2019), "Buy 4 REINFORCE samples, get a baseline for free!".
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlhflab.objectives.checks import same_shape, share


def td_errors(
    rewards: Tensor, values: Tensor, dones: Tensor, gamma: float = 1.0, last_values: Tensor | None = None
) -> Tensor:
    """δ_t = r_t + γ·V(s_{t+1}) − V(s_t), where V(s_{t+1}) is 0 after an end.

    Args:
        rewards, values: [batch, time], r_t and V(s_t).
        dones: [batch, time] bool, True on the last step of an episode.
        gamma: discount in [0, 1]; 1 for answers.
        last_values: [batch], V of the state after the last step if a row was cut in mid-episode; None means 0.

    Returns:
        [batch, time], in the reward's unit.
    """
    same_shape(rewards=rewards, values=values, dones=dones)
    share(gamma=gamma)
    end = values.new_zeros(len(values)) if last_values is None else last_values
    following = torch.cat([values[:, 1:], end.unsqueeze(1)], 1)
    return rewards + gamma * following.masked_fill(dones, 0.0) - values


def gae(
    rewards: Tensor,
    values: Tensor,
    dones: Tensor,
    gamma: float = 1.0,
    gae_lambda: float = 0.95,
    last_values: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimate A_t = Σ_k (γλ)^k·δ_{t+k} (eq. 16), by the recursion A_t = δ_t + γλ·A_{t+1}.

    λ = 0 is the TD error: little variance, the value's bias. λ = 1 is return − value: no bias, most variance.

    Args:
        rewards, values, dones, gamma, last_values: as in `td_errors`.
        gae_lambda: λ in [0, 1], usually 0.9–1.

    Returns:
        [batch, time]; `advantages + values` are the returns that a value function is fitted to.
    """
    share(gae_lambda=gae_lambda)
    errors = td_errors(rewards, values, dones, gamma, last_values)
    decay = gamma * gae_lambda * (~dones).to(errors.dtype)
    advantages, carried = [], errors.new_zeros(len(errors))
    for error, kept in zip(reversed(errors.unbind(1)), reversed(decay.unbind(1)), strict=True):
        carried = error + kept * carried
        advantages.append(carried)
    return torch.stack(advantages[::-1], 1)


def discounted_returns(
    rewards: Tensor, dones: Tensor, gamma: float = 1.0, last_values: Tensor | None = None
) -> Tensor:
    """Return-to-go G_t = r_t + γ·G_{t+1}, 0 after an end; arguments and shape as in `td_errors`."""
    return gae(rewards, torch.zeros_like(rewards), dones, gamma, 1.0, last_values)


def leave_one_out(returns: Tensor, groups: Tensor) -> Tensor:
    """Advantage of each answer over the mean of the others to the same prompt: A_i = R_i − mean_{j≠i} R_j.

    The baseline does not depend on the answer itself, so the gradient stays unbiased.

    Args:
        returns: [batch], one return per answer.
        groups: [batch] integer, equal where the prompt is the same.

    Returns:
        [batch]; 0 for an answer that is alone in its group.
    """
    same_shape(returns=returns, groups=groups)
    _, index = groups.unique(return_inverse=True)
    sums = torch.zeros(int(index.max()) + 1, dtype=returns.dtype, device=returns.device)
    sizes = torch.zeros_like(sums).index_add_(0, index, torch.ones_like(returns))[index]
    others = (sums.index_add_(0, index, returns)[index] - returns) / (sizes - 1).clamp(min=1)
    return torch.where(sizes > 1, returns - others, 0.0)


def leave_one_out_to_go(returns: Tensor, groups: Tensor, mask: Tensor) -> Tensor:
    """The same at every step: A_{i,t} = G_{i,t} − mean_{j≠i} G_{j,t} over the others that are still running at t.

    How long the others last does not depend on the actions of row i, so the gradient stays unbiased while another row
    is running. Steps that no other row reaches get no weight: late in an episode the gradient is too small by the
    probability of being alone there.

    Args:
        returns: [batch, time], return to go G_t.
        groups: [batch] integer, equal where the first state is (or is drawn) the same.
        mask: [batch, time] bool, True on the steps that count.

    Returns:
        [batch, time]; 0 where no other row of the group is running.
    """
    same_shape(returns=returns, mask=mask)
    _, index = groups.unique(return_inverse=True)
    empty = returns.new_zeros(int(index.max()) + 1, returns.shape[1])
    own, counted = returns * mask, mask.to(returns.dtype)
    others = empty.index_add(0, index, own)[index] - own
    number = empty.index_add(0, index, counted)[index] - counted
    return torch.where(mask & (number > 0), returns - others / number.clamp(min=1), 0.0)


def whiten(advantages: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale to mean 0 and standard deviation 1 over the steps that count.

    Args:
        advantages: [batch, time].
        mask: [batch, time] bool, True on the steps that count; at least one.

    Returns:
        [batch, time], 0 where the mask is False. Advantages that differ only by rounding are not blown up.
    """
    same_shape(advantages=advantages, mask=mask)
    chosen = advantages[mask]
    floor = 1e-5 * chosen.abs().max() + 1e-12
    white = (advantages - chosen.mean()) / chosen.std(correction=0).clamp(min=floor)
    return white.masked_fill(~mask, 0.0)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 − Var(returns − values)/Var(returns): 1 is a perfect value function, 0 a constant, below 0 worse than that.

    Args:
        values, returns: [batch, time].
        mask: [batch, time] bool.

    Returns:
        scalar ≤ 1; 0 where the returns do not differ.
    """
    same_shape(values=values, returns=returns, mask=mask)
    target = returns[mask]
    variance = target.var(correction=0)
    if not variance > 0:
        return torch.zeros_like(variance)
    return 1 - (target - values[mask]).var(correction=0) / variance
