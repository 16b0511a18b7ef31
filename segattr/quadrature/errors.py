"""How the doubts about integrals become estimates of their errors.

A doubt knows where the integrand is hard, but not how large the error is. That is learnt from the
intervals that were bisected, whose integrals are known better afterwards; and, where a potential is
known, from what its differences show to be missing.

Axes: ``K`` nodes, ``I = K - 1`` intervals, ``T`` components.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segattr.quadrature.level import Level
from segattr.quadrature.noise import TINY, beyond

# One round may lower the ratio of errors to doubts by at most this factor, and only if it bisected
# at least this share of all doubt.
FASTEST = 8
TELLING = 0.1
# Doubts below this share of the integrals count as this much: they may be rounding.
LEAST_DOUBT = 1e-6
# Of a smooth integrand's errors, at least this share counts as left after they cancel.
LEAST_LEFT = 1 / 16
# The error that is reported, over the one that is estimated: tests/quadrature/test_integral.py.
SAFETY = 2
# The potential counts as known to so many roundings of its largest value: in 16 bits it is off by
# one of eps, and seldom by more than 3, unless the path is rough (benchmarks/README.md).
ROUNDINGS = 4
# Noise explains what is not larger than so many of its standard deviations.
DEVIATIONS = 2
# What noise makes of a round's moves and of doubts, over what it makes of the trapezoids, on
# equally spaced nodes.
NOISE_OF_MOVES = 1.5**0.5
NOISE_OF_DOUBTS = 2**0.5 / 12


@dataclass(frozen=True)
class ErrorModel:
    """What the rounds so far have taught about errors.

    Args:
        ratio: Errors over doubts.
        left: Share of the last round's moves that was left in their sum: 1 if all went the same
            way, 0 if they cancelled.
    """

    ratio: float = 0.0
    left: float = 1.0

    def after(self, before: Level, now: Level, known: Tensor, noise: Tensor) -> ErrorModel:
        """Return what is known after another round.

        Args:
            before: The level of the nodes that were known before the round.
            now: The level of all nodes.
            known: Which of all nodes those are, bool ``[K]``.
            noise: Standard deviations of the trapezoids of all nodes, ``[I, T]``.
        """
        places = known.nonzero().flatten()
        totals = _between(places, now.cubics)
        bisected = places.diff() > 1
        moves = (totals - before.trapezoids - before.corrections)[bisected]
        moved = moves.abs().sum()
        explained = NOISE_OF_MOVES * _between(places, noise.square())[bisected].sqrt().sum()
        doubted = before.doubts[bisected].abs().sum()
        # Doubts fall with a fixed power of the width, errors with the order in which the integrand
        # really converges. How far integrals moved against what was in doubt follows that order.
        floor = LEAST_DOUBT * now.cubics.abs().sum()
        ratio = float(moved * beyond(moved, explained) / doubted.clamp_min(floor).clamp_min(TINY))
        # A round that bisected what was hardly in doubt moves little and tells nothing: without a
        # memory, it would lower the errors of all the intervals that it did not touch.
        tells = doubted > TELLING * before.doubts.abs().sum()
        lowest = self.ratio / (FASTEST if tells else 1)
        left = float(moves.sum(0).abs().sum() / moved.clamp_min(TINY))
        return ErrorModel(max(ratio, lowest), left)

    def errors(self, doubts: Tensor, missed: Tensor, noise: Tensor) -> Tensor:
        """Return the error of each interval's integral, signed, ``[I, T]``.

        Args:
            doubts: The level's doubts, ``[I, T]``.
            missed: What the integrals are known to miss, ``[I]``: if it is more than the errors of
                an interval, they grow to it; where they are all 0, it goes to all components
                evenly.
            noise: Standard deviations of the trapezoids, ``[I, T]``.
        """
        explained = DEVIATIONS * NOISE_OF_DOUBTS * noise.norm(dim=1, keepdim=True)
        errors = doubts * self.ratio * beyond(doubts.norm(dim=1, keepdim=True), explained)
        sizes = errors.abs().sum(1, keepdim=True)
        evenly = 1 / errors.shape[1]
        shapes = torch.where(sizes > 0, errors / sizes.clamp_min(TINY), evenly)
        missed = missed[:, None]
        return torch.where(missed > sizes, shapes * missed, errors)

    def cancelled(self, errors: Tensor) -> Tensor:
        """Return what is left of a smooth integrand's errors ``[I, T]`` after they cancel.

        What cancelled when the level was made will cancel again.
        """
        return errors * max(self.left, LEAST_LEFT)


def missed(
    potentials: Tensor | None, integrals: Tensor, resolution: float, noise: Tensor
) -> Tensor:
    """Return what integrals miss of the potential's differences beyond its rounding, ``[I]``.

    Args:
        potentials: The potential at the nodes, ``[K]``; None, if there is none, misses nothing.
        integrals: Over the intervals, ``[I, T]``.
        resolution: Relative rounding error of the potential.
        noise: Standard deviations of the integrals' sums over components, ``[I]``.
    """
    if potentials is None:
        return torch.zeros(len(integrals), dtype=torch.float64)
    off = (potentials.diff() - integrals.sum(1)).abs()
    return (off - _rounding(potentials, resolution) - DEVIATIONS * noise).clamp_min(0)


def admit_gap(
    errors: Tensor, potentials: Tensor | None, value: Tensor, resolution: float, noise: Tensor
) -> Tensor:
    """Return errors that are raised, if need be, to what the whole integral is known to miss.

    Args:
        errors: ``[I, T]``.
        potentials: As for `missed`.
        value: The integral, ``[T]``.
        resolution: As for `missed`.
        noise: Standard deviation of the value's sum over components, ``[]``.
    """
    if potentials is None:
        return errors
    off = (potentials[-1] - potentials[0] - value.sum()).abs()
    gap = off - _rounding(potentials, resolution) - DEVIATIONS * noise
    return errors * (gap / errors.abs().sum().clamp_min(TINY)).clamp_min(1)


def _between(places: Tensor, parts: Tensor) -> Tensor:
    """Sums of the intervals' parts ``[I, T]`` between each of these nodes and the next."""
    return F.pad(parts.cumsum(0), (0, 0, 1, 0))[places].diff(dim=0)


def _rounding(potentials: Tensor, resolution: float) -> Tensor:
    return ROUNDINGS * resolution * potentials.abs().max()
