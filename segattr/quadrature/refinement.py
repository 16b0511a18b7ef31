"""Adaptive integration along a path: bisect where the integrand is rough, and know the error.

Axes: ``K`` nodes, ``I = K - 1`` intervals, ``T`` components, ``P`` samples.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from segattr.quadrature.errors import DEVIATIONS, SAFETY, ErrorModel, admit_gap, missed
from segattr.quadrature.level import Level, better_of, is_smooth
from segattr.quadrature.noise import TINY, Noise, Scatter

COARSEST = 9
MAX_EVALUATIONS = 129
# Intervals bisected at once: more waste evaluations, fewer trust an error estimate too soon.
BISECTED = 3
# Share of the potential's variation that integrals may miss; beyond, no error estimate is believed.
MISSED = 0.1
# An estimate that is a larger share of the integral than this is not believed.
LARGEST = 0.9
NARROWEST = 2.0**-30  # interval that is bisected

NOISELESS = Noise()

Evaluate = Callable[[Tensor], tuple[Tensor | None, Tensor]]


class Refinement:
    """The nodes of one path, what is known there, and where to look next.

    Args:
        max_evaluations: Limit on nodes.
        resolution: Relative rounding error of the potential; see `add`.
        coarsest: Number of equally spaced nodes to begin with, odd, at least 5.
        noise: Rounding errors of the integrand: they count as errors of the integral, but not as a
            reason to bisect.

    Attributes:
        alphas: Nodes, float64 ``[K]``, ascending; none before the first round.
        values: The integrand there, float64 ``[K, T]``.
        potentials: The potential there, float64 ``[K]``, or None.
        integrals: Over each interval, float64 ``[I, T]``.
        errors: Their estimated errors without noise, signed, float64 ``[I, T]``.
        missed: What the cubics miss of the potential's differences beyond rounding, float64
            ``[I]``.
        scatter: What noise makes of the integrals; None before the first round.
        smooth: Whether the integrand is smooth, as far as equally spaced nodes can tell.
        wanted: Nodes to evaluate next, float64; empty when there may be no more.
        converged: Whether `refine` found what it waited for.
        noisy: Whether `refine` gave up because noise is all that is left.
    """

    def __init__(
        self,
        max_evaluations: int = MAX_EVALUATIONS,
        resolution: float = 0.0,
        coarsest: int = COARSEST,
        noise: Noise = NOISELESS,
    ) -> None:
        require_max_evaluations(max_evaluations, coarsest)
        self.max_evaluations = max_evaluations
        self.coarsest = coarsest
        self.resolution = resolution
        self.noise = noise
        self.alphas = torch.empty(0, dtype=torch.float64)
        self.values = torch.empty(0, 0, dtype=torch.float64)
        self.potentials: Tensor | None = None
        self.integrals = torch.empty(0, 0, dtype=torch.float64)
        self.errors = torch.empty(0, 0, dtype=torch.float64)
        self.missed = torch.empty(0, dtype=torch.float64)
        self.smooth = False
        self.wanted = torch.linspace(0, 1, coarsest, dtype=torch.float64)
        self.scatter: Scatter | None = None
        self.converged = False
        self.noisy = False
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
        bound = SAFETY * torch.minimum(self.errors.abs().sum(0), 2 * together)
        return bound if self.scatter is None else bound + DEVIATIONS * self.scatter.value

    @property
    def rounding(self) -> float | None:
        """The standard deviation of its noise, as a share of it in L2; None where unknown."""
        if self.scatter is None or self.noise == NOISELESS:
            return None
        return float(self.scatter.value.norm() / self.value.norm().clamp_min(TINY))

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
        scatter = self.scatter = Scatter.of(self.noise, self.alphas, self.values)
        self._error_model = self._error_model.after(before, now, known, scatter.parts)
        # Levels are compared as wholes only if every interval was bisected: from the first level
        # on, whose nodes are equally spaced, that happens as long as the integrand is smooth.
        nested = torch.equal(known, torch.arange(len(known)) % 2 == 0)
        self.smooth = nested and is_smooth(before, now, self.values)
        self.integrals = better_of(before, now) if nested else now.cubics
        sums = scatter.part_sums
        self.missed = missed(self.potentials, now.cubics, self.resolution, sums)
        self.errors = self._error_model.errors(now.doubts, self.missed, scatter.parts)
        if self.smooth:
            # Scaling errors down must not hide what the potential shows to be missing.
            errors = self._error_model.cancelled(self.errors)
            total = scatter.total
            self.errors = admit_gap(errors, self.potentials, self.value, self.resolution, total)
        self.wanted = self._next_nodes(now.trapezoids)

    def samples(self, count: int = 32) -> Tensor:
        """Return integrals as they may really be, float64 ``[P, T]``; the first is the estimate.

        Each of the ``count`` others adds every interval's estimated error with a random sign, and
        random noise; seeded.
        """
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, (count, len(self.errors)), generator=generator) * 2.0 - 1
        others = self.value + signs.double() @ self.errors
        if self.noise != NOISELESS:
            others += self.noise.samples(count, self.alphas, self.values, generator)
        return torch.cat([self.value[None], others])

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

    def is_noise(self) -> bool:
        """Whether the noise is larger than all other errors, as the samples have them.

        More nodes would hardly help then.
        """
        if self.scatter is None or self.noise == NOISELESS:
            return False
        return bool(self.errors.norm() <= self.scatter.value.norm())

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
        worthwhile = (widths > NARROWEST) & ~self._is_noise_there()
        roughest = roughest[worthwhile[roughest]]
        chosen = roughest[: min(count, self.max_evaluations - len(self.alphas))]
        return (self.alphas[chosen] + widths[chosen] / 2).sort().values

    def _is_noise_there(self) -> Tensor:
        """Whether an interval's noise is larger than its error, if that can be believed, ``[I]``.

        A smooth integrand is bisected everywhere or nowhere.
        """
        assert self.scatter is not None
        if self.smooth or not self.is_plausible():
            return torch.zeros(len(self.errors), dtype=torch.bool)
        return self.errors.norm(dim=1) < self.scatter.parts.norm(dim=1)

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
    """Evaluate and bisect until ``settled``, out of evaluations or down to noise; return it all.

    Args:
        evaluate: Takes nodes ``[K]``, returns potentials ``[K]`` (or None) and values ``[K, T]``.
        settled: Asked after each round whose error estimate can be believed.
        refinement: Where to begin.
    """
    while len(refinement.wanted) and not (refinement.converged or refinement.noisy):
        refinement.add(*evaluate(refinement.wanted))
        plausible = refinement.is_plausible()
        refinement.converged = plausible and settled(refinement)
        refinement.noisy = plausible and not refinement.converged and refinement.is_noise()
    return refinement


def require_max_evaluations(max_evaluations: int, coarsest: int = COARSEST) -> None:
    """Raise ValueError if the limit does not even allow the coarsest level."""
    if not isinstance(max_evaluations, int) or max_evaluations < coarsest:
        raise ValueError(
            f"max_evaluations must be at least the {coarsest} nodes of the coarsest level, got "
            f"{max_evaluations}. Use a fixed rule for fewer."
        )
