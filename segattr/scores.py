"""Segment scores: strength, direction consistency, and which segments are kept.

    strength_m    = sum |a_t| / sqrt(N_m), as a share of the sum over segments         Eqs. 3-4
    consistency_m = |sum a_t| / sum |a_t|                                              Eq. 5
    important     = the fewest strongest segments whose strengths reach tau,
                    without those of a consistency above beta                          Eqs. 6-7

Equations of arXiv 2602.00425. Axes: ``S`` segments, ``P`` samples, ``T`` tokens.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from segattr.attribution import Attribution
from segattr.engine import ops
from segattr.trace import EncodedTrace

NORMALIZATIONS = {"sqrt-length": 0.5, "length": 1.0, "none": 0.0}
KEPT = ("important", "random")
Spans = Sequence[tuple[int, int]]


class UndecidedWarning(UserWarning):
    """The attribution is not exact enough to decide which segments are kept."""


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
        undecided: bool ``[S]``, whose ``kept`` the attribution's estimated error may change; None
            where the method estimates none, as are the next two.
        strength_error: Estimated absolute error of the strength, float64 ``[S]``.
        consistency_error: Likewise of the consistency.
    """

    strength: Tensor
    consistency: Tensor
    effective_tokens: Tensor
    important: Tensor
    kept: Tensor
    undecided: Tensor | None = None
    strength_error: Tensor | None = None
    consistency_error: Tensor | None = None


class SegmentScorer:
    """Score the segments of an attribution and choose those worth training on.

    Args:
        tau: Cumulative strength the important segments must reach, in (0, 1].
        beta: Highest direction consistency of an important segment, in [0, 1]; 1 switches the
            filter off (the paper's "high strength" variant).
        normalization: What a segment's sum is divided by: ``"sqrt-length"`` (as the paper),
            ``"length"``, ``"none"``.
        keep_ends: Also keep the first and the last segment.
        select: What is kept: the ``"important"`` segments, or as many drawn at ``"random"``
            (the paper's control; ``important`` and ``undecided`` still speak of the former).
        seed: Of the random draw, which depends on nothing else but prompt and reasoning.

    Raises:
        ValueError: If a value is out of range or a word unknown.
    """

    def __init__(
        self,
        tau: float = 0.7,
        beta: float = 0.8,
        normalization: str = "sqrt-length",
        keep_ends: bool = True,
        *,
        select: str = "important",
        seed: int = 0,
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
        if select not in KEPT:
            raise ValueError(f"select must be one of {', '.join(map(repr, KEPT))}, got {select!r}.")
        self.tau = tau
        self.beta = beta
        self.normalization = normalization
        self.keep_ends = keep_ends
        self.select = select
        self.seed = seed

    def score(self, attribution: Attribution) -> SegmentScores:
        """Score one trace; warn (`UndecidedWarning`) if its error may change what is kept.

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
        strength, consistency, important, kept = self._select(signed, absolute, spans)
        if self.select == "random":
            kept = self._random(attribution.encoded, int(important.sum()))
        effective_tokens = absolute**2 / squares.where(squares > 0, 1.0)
        scores = SegmentScores(strength, consistency, effective_tokens, important, kept)
        if (samples := attribution.segment_samples) is None:
            return scores
        if samples.shape[1] != len(spans):
            raise ValueError(
                f"segment_samples must be of the {len(spans)} segments, got {samples.shape[1]}. "
                "Attribute the trace with these segments, or replace segment_samples by None."
            )
        scores = replace(scores, **self.judge(samples, spans))
        if scores.undecided is not None and scores.undecided.any():
            warnings.warn(_doubt(attribution, scores.undecided), UndecidedWarning, stacklevel=2)
        return scores

    def judge(self, samples: Tensor, spans: Spans) -> dict[str, Tensor]:
        """Return what is undecided among samples of an attribution, and how far the scores vary.

        Args:
            samples: As `Attribution.segment_samples`, ``[P, S, 2]``.
            spans: The segments.

        Returns:
            ``undecided``, ``strength_error`` and ``consistency_error`` of `SegmentScores`. Samples
            that are NaN leave everything undecided but the ends that are kept anyway.
        """
        if samples.isnan().any():
            undecided = torch.ones(len(spans), dtype=torch.bool)
            if self.keep_ends:
                undecided[[0, -1]] = False
            unknown = torch.full((len(spans),), torch.inf, dtype=torch.float64)
            return {
                "undecided": undecided,
                "strength_error": unknown,
                "consistency_error": unknown,
            }
        strength, consistency, _, kept = self._select(samples[..., 0], samples[..., 1], spans)
        return {
            "undecided": (kept[1:] != kept[0]).any(0),
            "strength_error": (strength[1:] - strength[0]).abs().amax(0),
            "consistency_error": (consistency[1:] - consistency[0]).abs().amax(0),
        }

    def _select(self, signed: Tensor, absolute: Tensor, spans: Spans) -> tuple[Tensor, ...]:
        """Strength, consistency, important and kept from the segments' sums, all ``[..., S]``."""
        lengths = torch.tensor([max(1, stop - start) for start, stop in spans], dtype=torch.float64)
        strength = absolute / lengths ** NORMALIZATIONS[self.normalization]
        strength = strength / strength.sum(-1, keepdim=True).clamp_min(1e-300)
        consistency = signed.abs() / absolute.where(absolute > 0, 1.0)
        important = self._strongest(strength) & (consistency <= self.beta)
        return strength, consistency, important, self._with_ends(important)

    def _with_ends(self, chosen: Tensor) -> Tensor:
        kept = chosen.clone()
        if self.keep_ends:
            kept[..., [0, -1]] = True
        return kept

    def _random(self, encoded: EncodedTrace, count: int) -> Tensor:
        """So many segments, drawn without replacement, and the ends, bool ``[S]``."""
        tokens = encoded.input_ids[: encoded.reasoning[1]].numpy().tobytes()
        digest = hashlib.sha256(f"{self.seed} ".encode() + tokens).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        chosen = torch.zeros(len(encoded.segments), dtype=torch.bool)
        chosen[torch.randperm(len(chosen), generator=generator)[:count]] = True
        return self._with_ends(chosen)

    def _strongest(self, strength: Tensor) -> Tensor:
        """The fewest strongest segments that reach tau; among equals the earlier one first."""
        order = strength.argsort(dim=-1, descending=True, stable=True)
        sorted_strength = strength.gather(-1, order)
        before = sorted_strength.cumsum(-1) - sorted_strength
        # 1e-12: the sum of all shares may fall short of tau = 1 by rounding.
        return torch.zeros_like(order, dtype=torch.bool).scatter(
            -1, order, before < self.tau - 1e-12
        )


def _doubt(attribution: Attribution, undecided: Tensor) -> str:
    """What the warning says."""
    assert attribution.segment_samples is not None
    numbers = ", ".join(map(str, undecided.nonzero().flatten().tolist()))
    trace = "" if attribution.encoded.id is None else f" of trace {attribution.encoded.id!r}"
    reason = "the estimated error of the attribution may change whether they are kept"
    remedy = "Raise max_evaluations, or leave the trace out"
    if attribution.segment_samples.isnan().any():
        reason = "the path points are too few, or miss too much of F, to estimate an error from"
        remedy = "Raise max_evaluations, or use another baseline"
    elif attribution.converged:
        remedy = "Give FastIG this scorer and no tolerance"
    return (
        f"segments {numbers}{trace} are undecided after {attribution.evaluations} evaluations: "
        f"{reason}. {remedy}."
    )


def segment_samples(scores: Tensor, spans: Spans) -> Tensor:
    """Return the segments' sums of samples of token scores, signed and absolute.

    Args:
        scores: float64 on CPU, ``[P, T]``.
        spans: The segments.

    Returns:
        float64 ``[P, S, 2]``.
    """
    starts, stops = (torch.tensor(places) for places in zip(*spans, strict=True))
    sums = []
    for values in (scores, scores.abs()):
        before = F.pad(values.cumsum(-1), (1, 0))
        sums.append(before[:, stops] - before[:, starts])
    return torch.stack(sums, -1)


def jaccard(one: Tensor, other: Tensor) -> float:
    """Return how much two sets of segments, bool ``[S]``, agree: in [0, 1]; two empty ones do."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0
