"""Segment scores: strength, direction consistency, and which segments are kept.

    strength_m    = sum |a_t| / sqrt(N_m), as a share of the sum over segments         Eqs. 3-4
    consistency_m = |sum a_t| / sum |a_t|                                              Eq. 5
    important     = the fewest strongest segments whose strengths reach tau,
                    without those of a consistency above beta                          Eqs. 6-7

Equations of arXiv 2602.00425. Axes: ``S`` segments, ``P`` samples, ``T`` tokens.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from segattr.attribution import Attribution
from segattr.checks import require_type, require_word
from segattr.scores.scores import SegmentScores, jaccard
from segattr.scores.sums import SegmentSums, Spans, segment_sums

WIDER = "Use a wider dtype, such as dtype=torch.float32"
NORMALIZATIONS = {"sqrt-length": 0.5, "length": 1.0, "none": 0.0}
# Highest consistency of an important segment by method; others have the first.
BETA = {"integrated-gradients": 0.8, "finite-propagation": 1.0}


class UndecidedWarning(UserWarning):
    """The attribution is not exact enough for the agreement that was asked for."""


@dataclass(frozen=True)
class SegmentScorer:
    """Score the segments of an attribution and choose those worth training on.

    Args:
        tau: Share of the total strength that the important segments reach, in (0, 1].
        beta: Highest direction consistency of an important segment, in [0, 1]; 1 switches the
            filter off (the paper's "high strength" variant). ``None``: 0.8, the paper's; but 1
            for finite propagation, whose important segments are all consistent.
        normalization: What a segment's sum is divided by: sqrt-length (as the paper), length, or
            none.
        keep_ends: Also keep the first and the last segment.
        keep_second_to_last: Also keep the segment before the last, as the released code does
            and the paper does not.

    Raises:
        ValueError: If a value is out of range or a word unknown.
    """

    tau: float = 0.7
    beta: float | None = None
    normalization: str = "sqrt-length"
    keep_ends: bool = True
    keep_second_to_last: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.tau <= 1:
            raise ValueError(
                f"tau must be in (0, 1], got {self.tau}. It is a share of the total strength."
            )
        if self.beta is not None and not 0 <= self.beta <= 1:
            raise ValueError(
                f"beta must be in [0, 1], got {self.beta}. 1 keeps segments of any consistency."
            )
        require_word("normalization", self.normalization, NORMALIZATIONS)

    def for_method(self, method: str) -> SegmentScorer:
        """Return this scorer with its ``beta`` as a number.

        Args:
            method: As `Attribution.method`.
        """
        if self.beta is not None:
            return self
        return replace(self, beta=BETA.get(method, BETA["integrated-gradients"]))

    def score(self, attribution: Attribution) -> SegmentScores:
        """Score one trace; warn (`UndecidedWarning`) if its error may change what is kept.

        Without a warning, the agreement with this scorer is at least the one that the attribution
        was asked for; where none was asked for, no segment is undecided.

        Returns:
            Values for all ``S`` segments. An empty segment, or one without attribution, has
            strength and consistency 0.

        Raises:
            ValueError: If a token score is not finite, or no segment has any attribution.
            TypeError: If this is no attribution.
        """
        require_type(
            "attribution", attribution, Attribution, "Pass what FastIG(model).attribute returned."
        )
        scorer = self.for_method(attribution.method)
        spans = attribution.encoded.segments
        scores = scorer.score_tokens(attribution.token_scores, spans)
        if (samples := attribution.segment_samples) is None:
            return scores
        if samples.shape[1] != len(spans):
            raise ValueError(
                f"segment_samples must be of the {len(spans)} segments, got {samples.shape[1]}. "
                "Attribute the trace with these segments, or replace segment_samples by None."
            )
        scores = replace(scores, **scorer.judge(samples, spans))
        asked = attribution.settings.get("agreement")
        if scores.agreement is not None and scores.agreement < (1.0 if asked is None else asked):
            warnings.warn(_doubt(attribution, scores), UndecidedWarning, stacklevel=2)
        return scores

    def score_tokens(self, token_scores: Tensor, spans: Spans) -> SegmentScores:
        """Score segments of token scores of any origin.

        Args:
            token_scores: Signed, on CPU, ``[T]``.
            spans: ``S`` half-open token ranges.

        Raises:
            ValueError: As `score`.
        """
        if not token_scores.isfinite().all():
            at = int((~token_scores.isfinite()).nonzero()[0])
            raise ValueError(
                f"token_scores must be finite, got {token_scores[at]} at token {at}. Attribute "
                "the trace again."
            )
        return self.select(segment_sums(token_scores, spans))

    def select(self, sums: SegmentSums) -> SegmentScores:
        """Score segments by their sums alone, for another tau, beta or normalization.

        Args:
            sums: The sums of one trace, ``[S]``.

        Raises:
            ValueError: If no segment has any attribution.
        """
        if sums.absolute.sum() == 0:
            raise ValueError(
                "segments must have some attribution, got 0 for every token. "
                "Does the answer depend on the reasoning at all? Drop this trace, or use another "
                "baseline."
            )
        effective_tokens = sums.absolute**2 / sums.squares.where(sums.squares > 0, 1.0)
        strength, consistency, important, kept = self._select(
            sums.signed, sums.absolute, sums.lengths
        )
        return SegmentScores(strength, consistency, effective_tokens, important, kept)

    def judge(self, samples: Tensor, spans: Spans) -> dict[str, Any]:
        """Return what is undecided among samples of an attribution, and how far the scores vary.

        Args:
            samples: As `Attribution.segment_samples`, ``[P, S, 2]``.
            spans: The segments.

        Returns:
            ``undecided``, ``agreement``, ``strength_error`` and ``consistency_error`` of
            `SegmentScores`. Samples that are NaN leave everything undecided except the segments
            that are kept anyway.
        """
        if samples.isnan().any():
            undecided = torch.ones(len(spans), dtype=torch.bool)
            undecided[self.always_kept(len(spans))] = False
            unknown = torch.full((len(spans),), torch.inf, dtype=torch.float64)
            return {
                "undecided": undecided,
                "agreement": 0.0 if undecided.any() else 1.0,
                "strength_error": unknown,
                "consistency_error": unknown,
            }
        lengths = torch.tensor([stop - start for start, stop in spans])
        strength, consistency, _, kept = self._select(samples[..., 0], samples[..., 1], lengths)
        return {
            "undecided": (kept[1:] != kept[0]).any(0),
            "agreement": fmean(jaccard(sample, kept[0]) for sample in kept[1:]),
            "strength_error": (strength[1:] - strength[0]).abs().amax(0),
            "consistency_error": (consistency[1:] - consistency[0]).abs().amax(0),
        }

    def always_kept(self, count: int) -> list[int]:
        """Return which of so many segments are kept whatever their scores."""
        ends = [0, count - 1] if self.keep_ends else []
        return ends + [count - 2] * (self.keep_second_to_last and count > 1)

    def _select(self, signed: Tensor, absolute: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Strength, consistency, important and kept from the segments' sums, all ``[..., S]``."""
        divisors = lengths.clamp_min(1).double() ** NORMALIZATIONS[self.normalization]
        strength = absolute / divisors
        strength = strength / strength.sum(-1, keepdim=True).clamp_min(1e-300)
        consistency = signed.abs() / absolute.where(absolute > 0, 1.0)
        beta = BETA["integrated-gradients"] if self.beta is None else self.beta
        important = self._strongest(strength) & (consistency <= beta)
        kept = important.clone()
        kept[..., self.always_kept(len(lengths))] = True
        return strength, consistency, important, kept

    def _strongest(self, strength: Tensor) -> Tensor:
        """The fewest strongest segments that reach tau; among equals the earlier one first."""
        order = strength.argsort(dim=-1, descending=True, stable=True)
        sorted_strength = strength.gather(-1, order)
        before = sorted_strength.cumsum(-1) - sorted_strength
        # 1e-12: the sum of all shares may fall short of tau = 1 by rounding.
        return torch.zeros_like(order, dtype=torch.bool).scatter(
            -1, order, before < self.tau - 1e-12
        )


def _doubt(attribution: Attribution, scores: SegmentScores) -> str:
    """What the warning says."""
    assert attribution.segment_samples is not None
    assert scores.undecided is not None
    numbers = ", ".join(map(str, scores.undecided.nonzero().flatten().tolist()))
    trace = "" if attribution.encoded.id is None else f" of trace {attribution.encoded.id!r}"
    reason = "the estimated error of the attribution may change whether they are kept"
    remedy = "Raise max_evaluations, or leave the trace out"
    if attribution.segment_samples.isnan().any():
        reason = "the path points are too few, or miss too much of F, to estimate an error from"
        remedy = "Raise max_evaluations, or use another baseline"
        if attribution.settings.get("rounding") is not None:
            remedy = f"{WIDER}, or another baseline"
    elif attribution.settings.get("stopped_by_rounding"):
        reason = f"rounding in {attribution.settings['dtype']} may change whether they are kept"
        remedy = f"{WIDER}, or leave the trace out"
    elif attribution.converged:
        remedy = "Give FastIG this scorer and no tolerance"
    return (
        f"segments {numbers}{trace} are undecided after {attribution.evaluations} evaluations "
        f"(expected agreement of the kept segments {scores.agreement:.1%}): {reason}. {remedy}."
    )
