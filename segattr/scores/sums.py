"""Sums of token scores over segments: all that a scorer reads of an attribution.

Axes: ``S`` segments, ``P`` samples, ``T`` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class SegmentSums:
    """All that a scorer reads of the token scores: their sums over each segment.

    Args:
        signed: Sum of the scores, float64 ``[..., S]``.
        absolute: Sum of their absolute values, likewise.
        squares: Sum of their squares, likewise.
        lengths: Tokens of each segment, int64 ``[S]``.
    """

    signed: Tensor
    absolute: Tensor
    squares: Tensor
    lengths: Tensor


def segment_sums(token_scores: Tensor, spans: Spans) -> SegmentSums:
    """Sum token scores over segments, in float64.

    Args:
        token_scores: Any float dtype on CPU, ``[..., T]``.
        spans: ``S`` half-open token ranges. An empty one sums to 0.
    """
    values = token_scores.double()
    parts = [values[..., start:stop] for start, stop in spans]
    return SegmentSums(
        signed=torch.stack([part.sum(-1) for part in parts], -1),
        absolute=torch.stack([part.abs().sum(-1) for part in parts], -1),
        squares=torch.stack([part.square().sum(-1) for part in parts], -1),
        lengths=torch.tensor([stop - start for start, stop in spans]),
    )


def segment_samples(token_scores: Tensor, spans: Spans) -> Tensor:
    """Return the segments' signed and absolute sums of samples of token scores.

    Args:
        token_scores: One sample a row, on CPU, ``[P, T]``.
        spans: The segments.

    Returns:
        float64 ``[P, S, 2]``.
    """
    sums = segment_sums(token_scores, spans)
    return torch.stack([sums.signed, sums.absolute], -1)
