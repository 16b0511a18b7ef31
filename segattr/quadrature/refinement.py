"""Adaptive integration along a path: bisect where the integrand is rough, and know the error.

Axes: ``K`` nodes, ``I = K - 1`` intervals, ``T`` components, ``P`` samples.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from segattr.quadrature.errors import SAFETY, ErrorModel, admit_gap, missed
from segattr.quadrature.level import Level, better_of, is_smooth

COARSEST = 9
MAX_EVALUATIONS = 129
# Intervals bisected at once: more waste evaluations, fewer trust an error estimate too soon.
BISECTED = 3
# Share of the potential's variation that integrals may miss; beyond, no error estimate is believed.
MISSED = 0.1
# An estimate that is a larger share of the integral than this is not believed.
LARGEST = 0.9
NARROWEST = 2.0**-30  # interval that is bisected

Evaluate = Callable[[Tensor], tuple[Tensor | None, Tensor]]


class Refinement:
    """The nodes of one path, what is known there, and where to look next.

    Args:
        max_evaluations: Limit on nodes.
        resolution: Relative rounding error of the potential; see `add`.
        coarsest: Number of equally spaced nodes to begin with, odd, at least 5.

    Attributes:
        alphas: Nodes, float64 ``[K]``, ascending; none before the first round.
        values: The integrand there, float64 ``[K, T]``.
        potentials: The potential there, float64 ``[K]``, or None.
        integrals: Over each interval, float64 ``[I, T]``.
        errors: Their estimated errors, signed, float64 ``[I, T]``.
        missed: What the cubics miss of the potential's differences beyond its rounding, float64
            ``[I]``.
        smooth: Whether the integrand is smooth, as far as equally spaced nodes can tell.
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
        self.integrals = torch.empty(0, 0, dtype=torch.float64)
        self.errors = torch.empty(0, 0, dtype=torch.float64)
        self.missed = torch.empty(0, dtype=torch.float64)
        self.smooth = False
        self.wanted = torch.linspace(0, 1, coarsest, dtype=torch.float64)
        self.converged = False
        self._level: Level | None = None
        self._error_model = ErrorModel()

    @property
    def value(self) -> Tensor:
        """The integral, float64 ``[T]``."""
        return self.integrals.sum(0)

    @property
    def error(self) -> Tensor:
        """Its estimated error, float64 ``[T]``: a bound, as far as the nodes can tell."""
        # Errors of many intervals do not all go the same way.
        together = torch.maximum(self.errors.sum(0).abs(), self.errors.norm(dim=0))
        return SAFETY * torch.minimum(self.errors.abs().sum(0), 2 * together)

    def add(self, potentials: Tensor | None, values: Tensor) -> None:
        """Take what was found at the nodes that were `wanted`, and choose the next ones.

        Args:
            potentials: Where known, a function whose derivative along the path is the sum of the
                integrand's components, ``[K]``: its differences show what the nodes have missed.
            values: The integrand, ``[K, T]``.
        """
        known = self._store(potentials, values)
        before, now = self._level, Level.through(self.alphas, self.values)
        if before is None:
            # The coarsest level is compared with every other one of its own nodes.
            known[::2] = True
            before = Level.through(self.alphas[known], self.values[known])
        self._level = now
        self._error_model = self._error_model.after(before, now, known)
        # Levels are compared as wholes only if every interval was bisected: from the first level
        # on, whose nodes are equally spaced, that happens as long as the integrand is smooth.
        nested = torch.equal(known, torch.arange(len(known)) % 2 == 0)
        self.smooth = nested and is_smooth(before, now, self.values)
        self.integrals = better_of(before, now) if nested else now.cubics
        self.missed = missed(self.potentials, now.cubics, self.resolution)
        self.errors = self._error_model.errors(now.doubts, self.missed)
        if self.smooth:
            # Scaling errors down must not hide what the potential shows to be missing.
            errors = self._error_model.cancelled(self.errors)
            self.errors = admit_gap(errors, self.potentials, self.value, self.resolution)
        self.wanted = self._next_nodes(now.trapezoids)

    def samples(self, count: int = 32) -> Tensor:
        """Return integrals as they may really be, float64 ``[P, T]``; the first is the estimate.

        Each of the ``count`` others adds every interval's estimated error with a random sign,
        seeded.
        """
        shape = (count, len(self.errors))
        signs = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(0)) * 2.0 - 1
        return torch.cat([self.value[None], self.value + signs.double() @ self.errors])

    def is_plausible(self) -> bool:
        """Whether the error estimate can be believed.

        Not on the coarsest level, unless the integrand is smooth; not while it is as large as the
        integral; and not while the integrals miss a good part of the potential's changes.
        """
        if len(self.alphas) <= self.coarsest and not self.smooth:
            return False
        if self.error.sum() > LARGEST * self.value.abs().sum():
            return False
        if self.potentials is None:
            return True
        return bool(self.missed.sum() <= MISSED * self.potentials.diff().abs().sum())

    def _store(self, potentials: Tensor | None, values: Tensor) -> Tensor:
        """Keep what was found, in the order of the nodes; return which were known, bool ``[K]``."""
        known = len(self.alphas)
        self.alphas, order = torch.cat([self.alphas, self.wanted]).sort()
        values = values.double()
        self.values = torch.cat([self.values, values])[order] if known else values
        if potentials is not None:
            before = [] if self.potentials is None else [self.potentials]
            self.potentials = torch.cat([*before, potentials.double()])[order]
        return order < known

    def _next_nodes(self, trapezoids: Tensor) -> Tensor:
        """The middles of the roughest intervals, as many as may still be evaluated."""
        widths = self.alphas.diff()
        roughness = self._roughness(widths, trapezoids)
        # A smooth integrand is bisected everywhere: on equally spaced nodes its integral converges
        # at least as fast as nested trapezoids, and the next level can be compared as a whole.
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
    """Raise ValueError if the limit does not even allow the coarsest level."""
    if not isinstance(max_evaluations, int) or max_evaluations < coarsest:
        raise ValueError(
            f"max_evaluations must be at least the {coarsest} nodes of the coarsest level, got "
            f"{max_evaluations}. Use a fixed rule for fewer."
        )
