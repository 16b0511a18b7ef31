"""The integral of the monotone cubic through the nodes (PCHIP: Fritsch & Butland, 1984).

Over an interval of width h with slopes s at its two nodes, it is the trapezoid and a correction:

    h/2 (g_a + g_c) - h^2/12 (s_c - s_a)

On equally spaced nodes all slopes but the first and the last cancel in the sum of corrections.
Axes: ``K`` nodes, ``I = K - 1`` intervals, ``T`` components.
"""

from __future__ import annotations

import torch
from torch import Tensor


def trapezoids(widths: Tensor, values: Tensor) -> Tensor:
    """Return the trapezoids over the intervals, ``[I, T]``.

    Args:
        widths: The intervals' widths, ``[I, 1]``.
        values: The integrand at the nodes, ``[K, T]``.
    """
    return widths / 2 * (values[1:] + values[:-1])


def corrections(widths: Tensor, slopes: Tensor) -> Tensor:
    """Return what cubics with these slopes add to the trapezoids, ``[I, T]``.

    Args:
        widths: The intervals' widths, ``[I, 1]``.
        slopes: The cubics' slopes at the nodes, ``[K, T]``.
    """
    return -(widths**2) / 12 * slopes.diff(dim=0)


def monotone_slopes(widths: Tensor, secants: Tensor) -> Tensor:
    """Return slopes with which no cubic leaves the range of its two nodes, ``[K, T]``.

    Inside, these are weighted harmonic means of the two secants, and 0 at extrema.

    Args:
        widths: The intervals' widths, at least two, ``[I, 1]``.
        secants: Slopes of the straight lines between the nodes, ``[I, T]``.
    """
    left, right = secants[:-1], secants[1:]
    to_left = widths[:-1] + 2 * widths[1:]
    to_right = 2 * widths[:-1] + widths[1:]
    same = left * right > 0
    ones = torch.ones((), dtype=left.dtype)
    means = (to_left + to_right) / (
        to_left / torch.where(same, left, ones) + to_right / torch.where(same, right, ones)
    )
    inside = torch.where(same, means, 0.0)
    first = _end_slope(widths[0], widths[1], secants[0], secants[1])
    last = _end_slope(widths[-1], widths[-2], secants[-1], secants[-2])
    return torch.cat([first[None], inside, last[None]])


def parabolic_slopes(widths: Tensor, secants: Tensor) -> Tensor:
    """Return slopes at the nodes of parabolas through three nodes each, ``[K, T]``.

    Args:
        widths: The intervals' widths, at least two, ``[I, 1]``.
        secants: Slopes of the straight lines between the nodes, ``[I, T]``.
    """
    inside = (widths[1:] * secants[:-1] + widths[:-1] * secants[1:]) / (widths[1:] + widths[:-1])
    return torch.cat([2 * secants[:1] - inside[:1], inside, 2 * secants[-1:] - inside[-1:]])


def _end_slope(width: Tensor, next_width: Tensor, secant: Tensor, next_secant: Tensor) -> Tensor:
    """Slope of a parabola through the three outermost nodes at the outermost, monotone, ``[T]``."""
    slope = ((2 * width + next_width) * secant - width * next_secant) / (width + next_width)
    slope = torch.where(slope * secant <= 0, 0.0, slope)
    too_steep = (secant * next_secant <= 0) & (slope.abs() > 3 * secant.abs())
    return torch.where(too_steep, 3 * secant, slope)
