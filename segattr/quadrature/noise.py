"""What rounding makes of an integrand's values, and of the integral.

All of a node's values are off by one factor, each by a factor of its own, and each by a share of
their RMS; all are independent from node to node, so they average out in the integral.

Axes: ``K`` nodes, ``I = K - 1`` intervals, ``T`` components, ``P`` samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-300  # instead of a divisor of 0


@dataclass(frozen=True)
class Noise:
    """Standard deviations of an integrand's rounding errors, as shares of its values.

    Args:
        common: Of the factor that all components of a node share.
        own: Of each component's own factor.
        floor: Of what is added to each component, as a share of the RMS of the node's components.
    """

    common: float = 0.0
    own: float = 0.0
    floor: float = 0.0

    def of_values(self, values: Tensor) -> Tensor:
        """Return the variances of values ``[K, T]``, likewise."""
        return self._own(values) + (self.common * values).square()

    def of_sums(self, values: Tensor) -> Tensor:
        """Return the variances of the nodes' sums over components, ``[K]``."""
        return self._own(values).sum(1) + (self.common * values.sum(1)).square()

    def samples(
        self, count: int, alphas: Tensor, values: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return errors that rounding may have made of the integral, ``[P, T]``.

        Args:
            count: ``P``.
            alphas: Nodes, ``[K]``.
            values: The integrand there, ``[K, T]``.
            generator: Where the random numbers come from.
        """
        weights = _node_weights(alphas)
        factors, own = (
            torch.randn(count, size, generator=generator, dtype=values.dtype)
            for size in values.shape
        )
        spread = (weights.square() @ self._own(values)).sqrt()
        return (self.common * factors * weights) @ values + own * spread

    def _own(self, values: Tensor) -> Tensor:
        floor = self.floor**2 * values.square().mean(1, keepdim=True)
        return (self.own * values).square() + floor


@dataclass(frozen=True)
class Scatter:
    """Standard deviations of integrals by noise of the nodes' values.

    Args:
        parts: Of the trapezoids over the intervals, ``[I, T]``.
        part_sums: Of their sums over components, ``[I]``.
        value: Of the whole integral, ``[T]``.
        total: Of its sum over components, ``[]``.
    """

    parts: Tensor
    part_sums: Tensor
    value: Tensor
    total: Tensor

    @classmethod
    def of(cls, noise: Noise, alphas: Tensor, values: Tensor) -> Scatter:
        """Return the scatter at nodes ``[K]`` with values ``[K, T]``."""
        of_values, of_sums = noise.of_values(values), noise.of_sums(values)
        halves, weights = alphas.diff() / 2, _node_weights(alphas)
        return cls(
            halves[:, None] * (of_values[1:] + of_values[:-1]).sqrt(),
            halves * (of_sums[1:] + of_sums[:-1]).sqrt(),
            (weights.square() @ of_values).sqrt(),
            (weights.square() @ of_sums).sqrt(),
        )


def beyond(sizes: Tensor, noise: Tensor) -> Tensor:
    """Return the share of each size that is left without noise of this size, in the same shape."""
    return (1 - (noise / sizes.clamp_min(TINY)).square()).clamp_min(0).sqrt()


def _node_weights(alphas: Tensor) -> Tensor:
    """The trapezoids' weights of the nodes, ``[K]``."""
    halves = alphas.diff() / 2
    return F.pad(halves, (1, 0)) + F.pad(halves, (0, 1))
