"""What the nodes of one round tell about the integral, and what two rounds tell together.

Axes: ``K`` nodes, ``I = K - 1`` intervals, ``T`` components.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from segattr.quadrature import cubic

# Nested trapezoids that differ by a smaller share belong to a smooth integrand.
SMOOTH = 0.1


@dataclass(frozen=True)
class Level:
    """The integrals over the intervals between the nodes of one round.

    Args:
        trapezoids: Float64 ``[I, T]``.
        corrections: What the monotone cubic adds to them, float64 ``[I, T]``.
        doubts: By how much the cubic may be off, up to a factor that `ErrorModel` learns, float64
            ``[I, T]``.
    """

    trapezoids: Tensor
    corrections: Tensor
    doubts: Tensor

    @classmethod
    def through(cls, alphas: Tensor, values: Tensor) -> Level:
        """Return the level of nodes ``[K]``, at least 3, with values ``[K, T]``."""
        widths = alphas.diff()[:, None]
        secants = values.diff(dim=0) / widths
        # Around a lone peak all monotone slopes are 0, and so are the corrections, as if nothing
        # were in doubt. Slopes that are not kept monotone see the peak, so doubts take those.
        return cls(
            cubic.trapezoids(widths, values),
            cubic.corrections(widths, cubic.monotone_slopes(widths, secants)),
            cubic.corrections(widths, cubic.parabolic_slopes(widths, secants)),
        )

    @property
    def cubics(self) -> Tensor:
        """The monotone cubic's integrals over the intervals, float64 ``[I, T]``."""
        return self.trapezoids + self.corrections


def is_smooth(before: Level, now: Level, values: Tensor) -> bool:
    """Whether the integrand is smooth: halving the intervals hardly moved the trapezoids.

    Args:
        before: The level of every other node.
        now: The level of all nodes, equally spaced.
        values: The integrand at all nodes, ``[K, T]``.
    """
    # A step near 0 or 1 hardly moves the trapezoids either, but changes in one interval only.
    steps = values.diff(dim=0).abs().sum(1)
    spread = bool(steps.max() <= steps.sum() / 2)
    moved = _moved(before.trapezoids, now.trapezoids)
    return spread and bool(moved <= SMOOTH * now.trapezoids.sum(0).abs().sum())


def better_of(before: Level, now: Level) -> Tensor:
    """Return the trapezoids or the cubics of ``now``, whichever moved less, ``[I, T]``.

    Args:
        before: The level of every other node.
        now: The level of all nodes, equally spaced.
    """
    # On equally spaced nodes they differ by the slopes at both ends of [0, 1] only. For a function
    # that is flat there the trapezoids are the better choice: what three nodes take for a slope
    # would only add an error.
    if _moved(before.trapezoids, now.trapezoids) < _moved(before.cubics, now.cubics):
        return now.trapezoids
    return now.cubics


def _moved(before: Tensor, now: Tensor) -> Tensor:
    """By how much the whole integral moved, summed over components, ``[]``."""
    return (now.sum(0) - before.sum(0)).abs().sum()
