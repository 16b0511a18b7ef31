"""Rules that need no fitting: a fixed number of path points, or as many as are needed.

Axes: ``K`` path points, ``T`` tokens, ``S`` segments, ``P`` samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from segattr.engine.reference import compute_dtype
from segattr.ig.path import Path
from segattr.quadrature.fixed import nodes_and_weights
from segattr.quadrature.integral import require_tolerance
from segattr.quadrature.refinement import (
    MAX_EVALUATIONS,
    Refinement,
    refine,
    require_max_evaluations,
)
from segattr.scores import SegmentScorer, segment_samples

PAPER = SegmentScorer()
GRADIENTS, DIFFERENCES = "integrated-gradients", "finite-propagation"
Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Findings:
    """What a rule found on one path; see `Attribution`, which takes it all over.

    Args:
        token_scores: ``[T]``, float32 or better.
        settings: How the rule really ended; see `settings_of`.
        converged: Whether the rule is sure of the scores. None if it cannot tell; so are the next
            two.
        token_error: Estimated absolute error of each score, ``[T]``.
        segment_samples: The segments' sums as they may really be, float64 ``[P, S, 2]``.
    """

    token_scores: Tensor
    settings: Mapping[str, Any]
    converged: bool | None = None
    token_error: Tensor | None = None
    segment_samples: Tensor | None = None


class IntegrationRule(Protocol):
    """Where on a path gradients are evaluated, and what is made of them."""

    @property
    def method(self) -> str:
        """What it computes: `GRADIENTS`, or `DIFFERENCES`, which the fused engine alone has."""
        ...

    @property
    def scorer(self) -> SegmentScorer | None:
        """Whose kept segments it makes certain, if it does."""
        ...

    def require(self, model: Any, baseline: str, scope: str) -> None:
        """Raise ValueError if it was fitted to another model, baseline or scope."""
        ...

    def integrate(self, path: Path, spans: Spans) -> Findings:
        """Integrate along a path.

        Args:
            path: The path of one trace.
            spans: The trace's segments.
        """
        ...


def settings_of(rule: str, **known: Any) -> dict[str, Any]:
    """Return how a rule ended, for `Attribution.settings`: the same keys for every rule.

    Args:
        rule: Name of the rule.
        known: ``steps`` (path points, or pieces, of a rule that has a fixed number), ``split`` of
            ``"secant"``, ``scorer``, ``tolerance`` and ``max_evaluations`` of ``"auto"``, and which
            rule it ``gave_way`` for.
    """
    keys = ("steps", "split", "scorer", "tolerance", "max_evaluations", "gave_way")
    return {"rule": rule, **dict.fromkeys(keys), **known}


@dataclass(frozen=True)
class Fixed:
    """A textbook rule, or one of the paper's two.

    Args:
        name: ``"riemann"``, ``"linspace"``, ``"midpoint"``, ``"trapezoid"`` or
            ``"gauss-legendre"``.
        num_points: Path points, each one gradient evaluation.

    Raises:
        ValueError: If the name is unknown, or the points are too few.
    """

    name: str
    num_points: int = 50
    method = GRADIENTS

    def __post_init__(self) -> None:
        nodes_and_weights(self.name, self.num_points)

    def __str__(self) -> str:
        return f"{self.name}, {self.num_points} points"

    @property
    def scorer(self) -> None:
        return None

    def require(self, model: Any, baseline: str, scope: str) -> None:
        """Fits every model."""

    def integrate(self, path: Path, spans: Spans) -> Findings:
        """Sum the integrands at the path points; see `IntegrationRule`."""
        scores = weighted_sum(path, *nodes_and_weights(self.name, self.num_points))
        return Findings(scores, settings_of(self.name, steps=self.num_points))


@dataclass(frozen=True)
class Adaptive:
    """9 path points, then more where the integrand is rough, until the estimated error is small.

    Args:
        scorer: It stops when the error cannot change which segments this scorer keeps. ``None``:
            only the tolerance counts.
        tolerance: It also stops when no segment's strength or consistency is off by more, by its
            own estimate. ``None``: only the kept segments count.
        max_evaluations: Most path points, at least 9. At this number it stops, and says that it
            has not converged.

    Raises:
        ValueError: If a number is out of range, or neither scorer nor tolerance is given.
    """

    scorer: SegmentScorer | None = PAPER
    tolerance: float | None = None
    max_evaluations: int = MAX_EVALUATIONS
    method = GRADIENTS

    def __post_init__(self) -> None:
        require_max_evaluations(self.max_evaluations)
        if self.tolerance is not None:
            require_tolerance(self.tolerance)
        elif self.scorer is None:
            raise ValueError("tolerance must be given with scorer=None, got None. Pass either.")

    def __str__(self) -> str:
        bound = "" if self.tolerance is None else f", tolerance {self.tolerance:g}"
        return f"auto, at most {self.max_evaluations} points{bound}"

    def require(self, model: Any, baseline: str, scope: str) -> None:
        """Fits every model."""

    def integrate(self, path: Path, spans: Spans) -> Findings:
        """Refine until the kept segments are certain, or the scores within the tolerance."""

        def settled(refinement: Refinement) -> bool:
            return self._settled(segment_samples(refinement.samples(), spans), spans)

        dtype = path.engine.dtype
        wide = compute_dtype(dtype)
        refinement = Refinement(self.max_evaluations, resolution=torch.finfo(dtype).eps)
        refine(path.evaluate, settled, refinement)
        samples = segment_samples(refinement.samples(), spans)
        if not refinement.is_plausible():
            samples[1:] = torch.nan
        return Findings(
            refinement.value.to(wide),
            self._settings(),
            refinement.converged,
            refinement.error.to(wide),
            samples,
        )

    def _settled(self, samples: Tensor, spans: Spans) -> bool:
        verdict = (self.scorer or PAPER).judge(samples, spans)
        if self.scorer is not None and not verdict["undecided"].any():
            return True
        if self.tolerance is None:
            return False
        errors = torch.cat([verdict["strength_error"], verdict["consistency_error"]])
        return bool(errors.max() <= self.tolerance)

    def _settings(self) -> dict[str, Any]:
        return settings_of(
            "auto",
            scorer=self.scorer and dict(vars(self.scorer.for_method(GRADIENTS))),
            tolerance=self.tolerance,
            max_evaluations=self.max_evaluations,
        )


def weighted_sum(path: Path, alphas: Tensor, weights: Tensor) -> Tensor:
    """Return the token scores of a rule with given path points and rule weights, ``[T]``.

    Args:
        path: The path of one trace.
        alphas: Path points, float64 ``[K]``.
        weights: Rule weights, float64 ``[K]``.
    """
    _, values = path.evaluate(alphas)
    return (weights @ values.double()).to(values.dtype)
