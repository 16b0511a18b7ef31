"""Segment scores: strength, direction consistency, and which segments are kept.

    strength_m    = sum |a_t| / sqrt(N_m), as a share of the sum over segments         Eqs. 3-4
    consistency_m = |sum a_t| / sum |a_t|                                              Eq. 5
    important     = the fewest strongest segments whose strengths reach tau,
                    without those of a consistency above beta                          Eqs. 6-7

Equations of arXiv 2602.00425. Axes: ``S`` segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segattr import ops
from segattr.attribution import Attribution

NORMALIZATIONS = {"sqrt-length": 0.5, "length": 1.0, "none": 0.0}


@dataclass(frozen=True)
class SegmentScores:
    """What the scorer found, one value per segment, on CPU.

    Args:
        strength: float64 ``[S]``, share of the trace's strength; sums to 1.
        consistency: float64 ``[S]`` in [0, 1]; 1 means that all tokens push the same way.
        effective_tokens: float64 ``[S]``, ``(sum |a|)^2 / sum a^2``: how many tokens carry the
            attribution. Consistency means little where this is small: a few tokens agree by chance.
        important: bool ``[S]``, the paper's set.
        kept: bool ``[S]``, what carries loss: the important segments, and the first and last one.
    """

    strength: Tensor
    consistency: Tensor
    effective_tokens: Tensor
    important: Tensor
    kept: Tensor


class SegmentScorer:
    """Score the segments of an attribution and choose those worth training on.

    Args:
        tau: Cumulative strength the important segments must reach, in (0, 1].
        beta: Highest direction consistency of an important segment, in [0, 1]; 1 switches the
            filter off.
        normalization: What a segment's sum is divided by: ``"sqrt-length"`` (as the paper),
            ``"length"``, ``"none"``.
        keep_ends: Also keep the first and the last segment.

    Raises:
        ValueError: If a value is out of range or a word unknown.
    """

    def __init__(
        self,
        tau: float = 0.7,
        beta: float = 0.8,
        normalization: str = "sqrt-length",
        keep_ends: bool = True,
    ) -> None:
        if not 0 < tau <= 1:
            raise ValueError(
                f"tau must be in (0, 1], got {tau}. It is a share of the total strength."
            )
        if not 0 <= beta <= 1:
            raise ValueError(
                f"beta must be in [0, 1], got {beta}. 1 keeps segments of any consistency."
            )
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"normalization must be one of {', '.join(map(repr, NORMALIZATIONS))}, got "
                f"{normalization!r}."
            )
        self.tau = tau
        self.beta = beta
        self.normalization = normalization
        self.keep_ends = keep_ends

    def score(self, attribution: Attribution) -> SegmentScores:
        """Score one trace.

        Returns:
            Values for all ``S`` segments. An empty segment, or one without attribution, has
            strength and consistency 0.

        Raises:
            ValueError: If a token score is not finite, or no segment has any attribution.
        """
        spans = attribution.encoded.segments
        tokens = attribution.token_scores.double()
        if not tokens.isfinite().all():
            at = int((~tokens.isfinite()).nonzero()[0])
            raise ValueError(
                f"token_scores must be finite, got {tokens[at]} at token {at}. Attribute the "
                "trace again."
            )
        segment_sum = ops.choose("auto", tokens).segment_sum
        signed, absolute = segment_sum(tokens, spans)
        if absolute.sum() == 0:
            raise ValueError(
                "segments must have some attribution, got 0 for every token. "
                "Does the answer depend on the reasoning at all? Drop this trace, or use another "
                "baseline."
            )
        squares, _ = segment_sum(tokens.square(), spans)
        lengths = torch.tensor([max(1, stop - start) for start, stop in spans], dtype=torch.float64)
        strength = absolute / lengths ** NORMALIZATIONS[self.normalization]
        strength = strength / strength.sum()
        consistency = signed.abs() / absolute.where(absolute > 0, 1.0)
        important = self._strongest(strength) & (consistency <= self.beta)
        kept = important.clone()
        if self.keep_ends:
            kept[[0, -1]] = True
        return SegmentScores(
            strength, consistency, absolute**2 / squares.where(squares > 0, 1.0), important, kept
        )

    def _strongest(self, strength: Tensor) -> Tensor:
        """The fewest strongest segments that reach tau; among equals the earlier one first."""
        order = strength.argsort(descending=True, stable=True)
        before = strength[order].cumsum(0) - strength[order]
        strongest = torch.zeros(len(strength), dtype=torch.bool)
        # 1e-12: the sum of all shares may fall short of tau = 1 by rounding.
        strongest[order[before < self.tau - 1e-12]] = True
        return strongest
