"""One segment of a scored trace, and the types of numbers in scored files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec

ROUNDING = 1e-9

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Span = tuple[Count, Count]
Amount = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1 + ROUNDING)]


@dataclass(frozen=True)
class ScoredSegment:
    """One segment: where it is, its sums, its scores, and what became of it.

    Args:
        characters: Its half-open span in the reasoning.
        tokens: Its half-open span in ``input_ids``.
        signed: Sum of its token scores, in nats.
        absolute: Sum of their absolute values.
        squares: Sum of their squares.
        strength: Share of the trace's strength.
        consistency: Direction consistency; 1 means that all tokens push the same way.
        effective_tokens: How many tokens carry the attribution.
        important: Whether the scorer chose it.
        kept: Whether it carries loss.
        undecided: Whether the estimated error could change ``kept``; None without an estimate.
        signed_error: Estimated absolute error of ``signed``; None if none could be estimated. So
            are the next three.
        absolute_error: The same for ``absolute``.
        strength_error: The same for ``strength``.
        consistency_error: The same for ``consistency``.
    """

    characters: Span
    tokens: Span
    signed: float
    absolute: Amount
    squares: Amount
    strength: Share
    consistency: Share
    effective_tokens: Amount
    important: bool
    kept: bool
    undecided: bool | None = None
    signed_error: Amount | None = None
    absolute_error: Amount | None = None
    strength_error: Amount | None = None
    consistency_error: Amount | None = None
