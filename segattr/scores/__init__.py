"""Segment scores: strength, direction consistency, and which segments are kept."""

from segattr.scores.scorer import SegmentScorer, UndecidedWarning
from segattr.scores.scores import SegmentScores, jaccard
from segattr.scores.sums import SegmentSums, segment_samples, segment_sums

__all__ = [
    "SegmentSums",
    "segment_sums",
    "segment_samples",
    "SegmentScores",
    "jaccard",
    "SegmentScorer",
    "UndecidedWarning",
]
