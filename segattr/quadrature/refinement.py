"""Adaptive integration along a path: bisect where the integrand is rough, and know the error.

Through the nodes goes a monotone cubic (PCHIP: Fritsch & Butland, 1984), whose integral over an
interval of width h with slopes s at its ends is the trapezoid and a correction:

    h/2 (g_a + g_c) - h^2/12 (s_c - s_a)

On equally spaced nodes the corrections inside cancel, and it is the trapezoid with end slopes.
Axes: ``K`` nodes, ``I = K - 1`` intervals, ``T`` components, ``P`` samples.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

COARSEST = 9
MAX_EVALUATIONS = 65
# Intervals bisected at once: more waste evaluations, fewer trust an error estimate too soon.
BISECTED = 3
# Nested trapezoids that differ by less belong to a smooth integrand, bisected everywhere, unless
# half of its variation is in one interval.
SMOOTH = 0.1
# Of the sum of a smooth integrand's errors, at least so much is left after they cancel.
LEAST_LEFT = 1 / 16
# A round makes errors smaller against doubts by this much at most; and tells nothing of it unless
# it bisected this share of all doubt.
FASTEST = 8
TELLING = 0.1
# The error that is reported, over the one that is estimated: tests/quadrature/test_integral.py.
SAFETY = 2
# The potential counts as known to so many roundings of its largest value.
ROUNDINGS = 4
# Share of the potential's variation that integrals may miss; beyond, no error estimate is believed.
MISSED = 0.1
# An estimate that is a larger share of the integral than this is not believed.
LARGEST = 0.9
NARROWEST = 2.0**-30  # interval that is bisected

Evaluate = Callable[[Tensor], tuple[Tensor | None, Tensor]]


class Refinement:
    """The nodes of one path, what is known there, and where to look next.

    Args:
        max_evaluations: Most nodes.
        resolution: Relative rounding error of the potential; see `add`.
        coarsest: Equally spaced nodes to begin with, odd.

    Attributes:
        alphas: Nodes, float64 ``[K]``, ascending.
        values: The integrand there, float64 ``[K, T]``.
        potentials: The potential there, float64 ``[K]``, or None.
        integrals: Over each interval, float64 ``[I, T]``.
        errors: Their estimated errors, signed, float64 ``[I, T]``.
        missed: What the cubics miss of the potential's differences beyond its rounding, float64
            ``[I]``.
        wanted: Nodes to evaluate next, float64; empty when there may be no more.
        converged: Whether `refine` found what it waited for.
    """

    def __init__(
        self,
        max_evaluations: int = MAX_EVALUATIONS,
        resolution: float = 0.0,
        coarsest: int = COARSEST,
    ) -> None:
        require_max_evaluations(max_evaluations, coarsest)
        self.max_evaluations = max_evaluations
        self.coarsest = coarsest
        self.resolution = resolution
        self.alphas = torch.empty(0, dtype=torch.float64)
        self.values = torch.empty(0, 0, dtype=torch.float64)
        self.potentials: Tensor | None = None
        self.wanted = torch.linspace(0, 1, coarsest, dtype=torch.float64)
        self.converged = False
        self.ratio = 0.0

    @property
    def value(self) -> Tensor:
        """The integral, float64 ``[T]``."""
        return self.integrals.sum(0)

    @property
    def error(self) -> Tensor:
        """Its estimated error, float64 ``[T]``: a bound, as far as the nodes can tell."""
        return SAFETY * self.errors.abs().sum(0)

    def add(self, potentials: Tensor | None, values: Tensor) -> None:
        """Take what was found at the nodes that were `wanted`, and choose the next ones.

        Args:
            potentials: Where known, a function whose derivative along the path is the sum of the
                integrand's components, ``[K]``: its differences show what the nodes have missed.
            values: The integrand, ``[K, T]``.
        """
        known = len(self.alphas)
        self.alphas, order = torch.cat([self.alphas, self.wanted]).sort()
        values = values.double()
        self.values = torch.cat([self.values, values])[order] if known else values
        if potentials is not None:
            potentials = potentials.double()
            before = [] if self.potentials is None else [self.potentials]
            self.potentials = torch.cat([*before, potentials])[order]
        coarse = order < known
        if not known:  # the coarsest level is compared with every other one of its nodes
            coarse[::2] = True
            self._before = _cubic(self.alphas[coarse], self.values[coarse])
        now = trapezoids, corrections, doubts = _cubic(self.alphas, self.values)
        self.integrals = trapezoids + corrections
        self.missed = self._missed()
        self.errors = self._estimate(doubts, coarse)
        every_other = torch.equal(coarse, torch.arange(len(order)) % 2 == 0)
        self.smooth = every_other and self._compare_levels(trapezoids)
        if self.smooth:  # what cancelled when this level was made will cancel again
            self.errors *= max(self.cancelled, LEAST_LEFT)
            self._admit_the_gap()
        self.wanted = self._next_nodes(trapezoids)
        self._before = now

    def samples(self, count: int = 32) -> Tensor:
        """Return integrals as they may really be, float64 ``[P, T]``; the first is the estimate.

        Each of the others adds every interval's estimated error with a random sign, seeded.
        """
        shape = (count, len(self.errors))
        signs = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(0)) * 2.0 - 1
        return torch.cat([self.value[None], self.value + signs.double() @ self.errors])

    def is_plausible(self) -> bool:
        """Whether the error estimate can be believed.

        Not on the coarsest level, unless the integrand is smooth; not while it is as large as the
        integral; and not while the integrals miss a good part of the potential's changes.
        """
        if len(self.alphas) == self.coarsest and not self.smooth:
            return False
        if self.error.sum() > LARGEST * self.value.abs().sum():
            return False
        if self.potentials is None:
            return True
        return bool(self.missed.sum() <= MISSED * self.potentials.diff().abs().sum())

    def _missed(self) -> Tensor:
        if self.potentials is None:
            return torch.zeros(len(self.integrals), dtype=torch.float64)
        missed = self.potentials.diff() - self.integrals.sum(1)
        return (missed.abs() - self._noise()).clamp_min(0)

    def _admit_the_gap(self) -> None:
        """Raise the errors to what the whole integral is known to miss."""
        if self.potentials is None:
            return
        gap = (self.potentials[-1] - self.potentials[0] - self.value.sum()).abs() - self._noise()
        self.errors *= (gap / self.errors.abs().sum().clamp_min(1e-300)).clamp_min(1)

    def _noise(self) -> Tensor:
        """What rounding makes of the potential."""
        assert self.potentials is not None
        return ROUNDINGS * self.resolution * self.potentials.abs().max()

    def _estimate(self, doubts: Tensor, coarse: Tensor) -> Tensor:
        """Each interval's error: its doubt, scaled by how far doubts were off before.

        That ratio is taken where ``coarse`` nodes were bisected, so it follows the order in which
        the integrand really converges; bisecting what was hardly in doubt tells nothing. What an
        interval's integral misses of the potential's difference is an error too.
        """
        trapezoids, corrections, before = self._before
        places = coarse.nonzero().flatten()
        total = F.pad(self.integrals.cumsum(0), (0, 0, 1, 0))[places].diff(dim=0)
        bisected = places.diff() > 1
        moves = (total - trapezoids - corrections)[bisected]
        moved = moves.abs().sum()
        self.cancelled = float(moves.sum(0).abs().sum() / moved.clamp_min(1e-300))
        doubted = before[bisected].abs().sum()
        scale = doubted.clamp_min(1e-6 * self.integrals.abs().sum()).clamp_min(1e-300)
        slowest = self.ratio / (FASTEST if doubted > TELLING * before.abs().sum() else 1)
        self.ratio = max(float(moved / scale), slowest)
        errors = doubts * self.ratio
        sizes = errors.abs().sum(1, keepdim=True)
        evenly = 1 / errors.shape[1]
        shapes = torch.where(sizes > 0, errors / sizes.clamp_min(1e-300), evenly)
        missed = self.missed[:, None]
        return torch.where(missed > sizes, shapes * missed, errors)

    def _next_nodes(self, trapezoids: Tensor) -> Tensor:
        """The middles of the roughest intervals, as many as may still be evaluated."""
        widths = self.alphas.diff()
        roughness = self._roughness(widths, trapezoids)
        count = len(widths) if self.smooth else BISECTED
        roughest = roughness.argsort(descending=True, stable=True)
        roughest = roughest[widths[roughest] > NARROWEST]
        chosen = roughest[: min(count, self.max_evaluations - len(self.alphas))]
        return (self.alphas[chosen] + widths[chosen] / 2).sort().values

    def _roughness(self, widths: Tensor, trapezoids: Tensor) -> Tensor:
        """How much an interval deserves a node, ``[I]``."""
        steps = widths * self.values.diff(dim=0).abs().sum(1)
        if self.potentials is None:
            sizes = self.values.abs().sum(1)
            return steps + widths * (sizes[1:] + sizes[:-1]) / 4
        return (self.potentials.diff() - trapezoids.sum(1)).abs() + steps / 4

    def _compare_levels(self, trapezoids: Tensor) -> bool:
        """Take trapezoids or cubics, whichever moved less; return whether the integrand is smooth.

        For equally spaced nodes and, before, every other one of them: trapezoids are the better
        choice for a function that is flat at both ends.
        """
        before, corrections, _ = self._before
        of_trapezoids = (trapezoids.sum(0) - before.sum(0)).abs().sum()
        of_cubics = (self.value - (before + corrections).sum(0)).abs().sum()
        if of_trapezoids < of_cubics:
            self.integrals = trapezoids
        steps = self.values.diff(dim=0).abs().sum(1)
        spread = bool(steps.max() <= steps.sum() / 2)
        return spread and bool(of_trapezoids <= SMOOTH * trapezoids.sum(0).abs().sum())


def refine(
    evaluate: Evaluate, settled: Callable[[Refinement], bool], refinement: Refinement
) -> Refinement:
    """Evaluate and bisect until ``settled`` or out of evaluations; return the refinement.

    Args:
        evaluate: Takes nodes ``[K]``, returns potentials ``[K]`` (or None) and values ``[K, T]``.
        settled: Asked after each round whose error estimate can be believed.
        refinement: Where to begin.
    """
    while len(refinement.wanted) and not refinement.converged:
        refinement.add(*evaluate(refinement.wanted))
        refinement.converged = refinement.is_plausible() and settled(refinement)
    return refinement


def require_max_evaluations(max_evaluations: int, coarsest: int = COARSEST) -> None:
    if not isinstance(max_evaluations, int) or max_evaluations < coarsest:
        raise ValueError(
            f"max_evaluations must be at least the {coarsest} nodes of the coarsest level, got "
            f"{max_evaluations}. Use a fixed rule for fewer."
        )


def _cubic(alphas: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Trapezoids, the monotone cubic's corrections, and doubts, ``[I, T]`` each.

    Doubts are the corrections with slopes that are not kept monotone: these see a lone peak, where
    all monotone slopes are 0.
    """
    widths = alphas.diff()[:, None]
    secants = values.diff(dim=0) / widths
    trapezoids = widths / 2 * (values[1:] + values[:-1])
    corrections, doubts = (
        -(widths**2) / 12 * slopes(widths, secants).diff(dim=0) for slopes in (_slopes, _parabolic)
    )
    return trapezoids, corrections, doubts


def _parabolic(widths: Tensor, secants: Tensor) -> Tensor:
    """Slopes at the nodes of parabolas through three nodes, ``[K, T]``."""
    inside = (widths[1:] * secants[:-1] + widths[:-1] * secants[1:]) / (widths[1:] + widths[:-1])
    return torch.cat([2 * secants[:1] - inside[:1], inside, 2 * secants[-1:] - inside[-1:]])


def _slopes(widths: Tensor, secants: Tensor) -> Tensor:
    """Slopes at the nodes: weighted harmonic means of the secants, 0 at extrema, ``[K, T]``."""
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


def _end_slope(width: Tensor, next_width: Tensor, secant: Tensor, next_secant: Tensor) -> Tensor:
    """Slope of a parabola through three nodes at its end, kept monotone, ``[T]``."""
    slope = ((2 * width + next_width) * secant - width * next_secant) / (width + next_width)
    slope = torch.where(slope * secant <= 0, 0.0, slope)
    too_steep = (secant * next_secant <= 0) & (slope.abs() > 3 * secant.abs())
    return torch.where(too_steep, 3 * secant, slope)
