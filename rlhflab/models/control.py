"""Policy and value function for control: small networks with tanh, orthogonal weights, and fast sampling.

Source of the sizes and gains: Huang et al. (2022), "The 37 implementation details of proximal policy optimization".
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal
from torch.nn.functional import linear


class MLP(nn.Module):
    """Linear maps with tanh between them; weights orthogonal, biases 0.

    Args:
        sizes: of input, hidden layers and output.
        gain: scale of the last layer's weights; the others have √2.
        generator: of the weights.
    """

    def __init__(self, sizes: Sequence[int], gain: float, generator: torch.Generator) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        gains = [math.sqrt(2)] * (len(sizes) - 2) + [gain]
        for (inputs, outputs), scale in zip(pairwise(sizes), gains, strict=True):
            weight = torch.empty(outputs, inputs)
            nn.init.orthogonal_(weight, scale, generator)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(outputs)))
        self._layers = list(zip(self.weights, self.biases, strict=True))  # without the lists' overhead

    def forward(self, x: Tensor) -> Tensor:
        """[…, inputs] in, from any device; […, outputs] out."""
        *hidden, (weight, bias) = self._layers
        x = x.to(weight.device)
        for w, b in hidden:
            x = torch.tanh(linear(x, w, b))
        return linear(x, weight, bias)


class ControlPolicy(nn.Module):
    """π_θ(a|s): categorical over discrete actions, or a Gaussian with the same standard deviation in all states.

    It starts almost uniform, or with mean near 0 and standard deviation `std`.

    Args:
        size: length of an observation.
        actions: number of discrete actions, or the length of a real action.
        discrete: which of the two.
        seed: of the weights.
        hidden: sizes of the hidden layers.
        std: first standard deviation of real actions, in half the allowed range.
    """

    def __init__(
        self, size: int, actions: int, discrete: bool, seed: int = 0, hidden: Sequence[int] = (64, 64), std: float = 1.0
    ) -> None:  # fmt: skip
        super().__init__()
        self.actions, self.discrete = actions, discrete
        self.net = MLP((size, *hidden, actions), 0.01, torch.Generator().manual_seed(seed))
        self.log_std = None if discrete else nn.Parameter(torch.full((actions,), math.log(std)))

    def forward(self, observations: Tensor) -> Distribution:
        """[…, size] in; a distribution over actions of batch shape […] out."""
        out = self.net(observations)
        if self.log_std is None:
            return Categorical(logits=out, validate_args=False)
        return Independent(Normal(out, self.log_std.exp(), validate_args=False), 1, validate_args=False)

    def on_cpu(self) -> ControlPolicy:
        """This policy, or a copy if it is on another device: environments are on the CPU."""
        return self if self.net.weights[0].device.type == "cpu" else copy.deepcopy(self).cpu()

    def noise(self, steps: int, batch: int, generator: torch.Generator) -> Tensor:
        """Random numbers for `draw`, [steps, batch, actions]: Gumbel for discrete actions, normal for others."""
        shape = (steps, batch, self.actions)
        if self.discrete:
            return -torch.empty(shape).exponential_(generator=generator).log_()
        return torch.randn(shape, generator=generator)

    def draw(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Sample actions fast: argmax(logits + Gumbel noise) follows the softmax (Gumbel, 1954).

        Args:
            observations: [batch, size].
            noise: [batch, actions], fresh from `noise`.

        Returns:
            [batch] whole numbers, or [batch, actions] real ones.
        """
        out = self.net(observations)
        return (out + noise).argmax(-1) if self.log_std is None else out + self.log_std.exp() * noise


def value_function(size: int, seed: int = 0, hidden: Sequence[int] = (64, 64)) -> MLP:
    """V(s) as a separate network, [..., size] in and [..., 1] out; it starts near 0."""
    return MLP((size, *hidden, 1), 1.0, torch.Generator().manual_seed(seed + 1_000_003))
