"""Rules that need no fitting: a fixed number of path points, or as many as are needed.

Axes: ``K`` path points, ``T`` tokens, ``S`` segments, ``P`` samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from segattr.attribution import WIDE_GAP, completeness_gap
from segattr.engine.reference import compute_dtype
from segattr.ig.path import Path
from segattr.ig.rounding import noise_of
from segattr.quadrature.fixed import nodes_and_weights
from segattr.quadrature.integral import require_tolerance
from segattr.quadrature.refinement import (
    COARSEST,
    MAX_EVALUATIONS,
    Refinement,
    refine,
    require_max_evaluations,
)
from segattr.scores import SegmentScorer, segment_samples

PAPER = SegmentScorer()
AGREEMENT = 0.95  # what is expected of the kept segments, as a Jaccard index
GRADIENTS, DIFFERENCES = "integrated-gradients", "finite-propagation"
Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Findings:
    """What a rule found on one path; see `Attribution`, which takes it all over.

    Args:
        token_scores: ``[T]``, float32 or better.
        settings: How the rule really ended; see `settings_of`.
        converged: Whether the rule reached what it was asked for. None if it cannot tell; so are
            the next two.
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
        """Whose kept segments it makes agree, if it does."""
        ...

    @property
    def cost(self) -> str:
        """What one trace takes, in words: such as ``"50 gradient evaluations a trace"``."""
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
            ``"secant"``, ``scorer``, ``agreement``, ``tolerance`` and ``max_evaluations`` of
            ``"auto"``, which rule it ``gave_way`` for; the share of the token scores that
            ``rounding`` may be (a standard deviation, in L2; None where it is unknown or too small
            to matter), and whether it was ``stopped_by_rounding``.
    """
    keys = ("steps", "split", "scorer", "agreement", "tolerance", "max_evaluations", "gave_way")
    noise = ("rounding", "stopped_by_rounding")
    return {"rule": rule, **dict.fromkeys((*keys, *noise)), **known}


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

    @property
    def cost(self) -> str:
        return f"{self.num_points} gradient evaluation{'s' * (self.num_points != 1)} a trace"

    def require(self, model: Any, baseline: str, scope: str) -> None:
        """Fits every model."""

    def integrate(self, path: Path, spans: Spans) -> Findings:
        """Sum the integrands at the path points; see `IntegrationRule`."""
        scores = weighted_sum(path, *nodes_and_weights(self.name, self.num_points))
        return Findings(scores, settings_of(self.name, steps=self.num_points))


@dataclass(frozen=True)
class Adaptive:
    """9 path points, then more where the integrand is rough, until the estimated error is small.

    It goes on while the completeness gap is wider than `WIDE_GAP`.

    The error includes the rounding of gradients in 16 bits. Where that is all that is left, it
    stops, too, without having converged: a wider dtype helps then, and more points hardly do.

    Args:
        scorer: Whose kept segments must agree. ``None``: only the tolerance counts.
        tolerance: It also stops when no segment's strength or consistency is off by more, by its
            own estimate. ``None``: only the kept segments count.
        max_evaluations: Most path points, at least 9. At this number it stops, and says that it
            has not converged.
        agreement: It stops when the kept segments are expected to agree so well with those of the
            exact integral, in (0, 1]: the mean Jaccard index over the samples of the estimated
            error, `SegmentScores.agreement`. 1: when no sample keeps other segments. ``None``:
            `AGREEMENT` with a scorer; there is no agreement without one.

    Raises:
        ValueError: If a number is out of range, neither scorer nor tolerance is given, or an
            agreement without a scorer.
    """

    scorer: SegmentScorer | None = PAPER
    tolerance: float | None = None
    max_evaluations: int = MAX_EVALUATIONS
    agreement: float | None = None
    method = GRADIENTS

    def __post_init__(self) -> None:
        require_max_evaluations(self.max_evaluations)
        _require_agreement(self.agreement, self.scorer)
        if self.tolerance is not None:
            require_tolerance(self.tolerance)
        elif self.scorer is None:
            raise ValueError("tolerance must be given with scorer=None, got None. Pass either.")

    def __str__(self) -> str:
        agreement = "" if self.asked is None else f", agreement {self.asked:g}"
        bound = "" if self.tolerance is None else f", tolerance {self.tolerance:g}"
        return f"auto{agreement}{bound}, at most {self.max_evaluations} points"

    @property
    def asked(self) -> float | None:
        """The agreement at which it stops; None without a scorer."""
        return AGREEMENT if self.agreement is None and self.scorer is not None else self.agreement

    @property
    def cost(self) -> str:
        least = "" if self.max_evaluations == COARSEST else f"{COARSEST} to "
        return f"{least}{self.max_evaluations} gradient evaluations a trace"

    def require(self, model: Any, baseline: str, scope: str) -> None:
        """Fits every model."""

    def integrate(self, path: Path, spans: Spans) -> Findings:
        """Refine until the kept segments agree, or the scores are within the tolerance."""

        def settled(refinement: Refinement) -> bool:
            samples = segment_samples(refinement.samples(), spans)
            return _is_complete(refinement) and self._settled(samples, spans)

        dtype = path.engine.dtype
        wide = compute_dtype(dtype)
        eps, noise = torch.finfo(dtype).eps, noise_of(dtype)
        refinement = Refinement(self.max_evaluations, resolution=eps, noise=noise)
        refine(path.evaluate, settled, refinement)
        samples = segment_samples(refinement.samples(), spans)
        if not refinement.is_plausible():
            samples[1:] = torch.nan
        return Findings(
            refinement.value.to(wide),
            {
                **self._settings(),
                "rounding": refinement.rounding,
                "stopped_by_rounding": refinement.noisy,
            },
            refinement.converged,
            refinement.error.to(wide),
            samples,
        )

    def _settled(self, samples: Tensor, spans: Spans) -> bool:
        verdict = (self.scorer or PAPER).judge(samples, spans)
        if self.asked is not None and verdict["agreement"] >= self.asked:
            return True
        if self.tolerance is None:
            return False
        errors = torch.cat([verdict["strength_error"], verdict["consistency_error"]])
        return bool(errors.max() <= self.tolerance)

    def _settings(self) -> dict[str, Any]:
        return settings_of(
            "auto",
            scorer=self.scorer and dict(vars(self.scorer.for_method(GRADIENTS))),
            agreement=self.asked,
            tolerance=self.tolerance,
            max_evaluations=self.max_evaluations,
        )


def _is_complete(refinement: Refinement) -> bool:
    """Whether the scores so far add up to the change of F, but for a narrow gap."""
    assert refinement.potentials is not None
    change = float(refinement.potentials[-1] - refinement.potentials[0])
    return completeness_gap(refinement.value, change) <= WIDE_GAP


def _require_agreement(agreement: float | None, scorer: SegmentScorer | None) -> None:
    if agreement is None:
        return
    if scorer is None:
        raise ValueError(
            f"agreement must be None with scorer=None, got {agreement}. Pass the scorer whose kept "
            "segments should agree."
        )
    if not 0 < agreement <= 1:
        raise ValueError(
            f"agreement must be in (0, 1], got {agreement}. 1 leaves no segment undecided."
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
