"""Loss weights other than the paper's mask: by strength, the top tokens, or random segments.

All go to ``training_row(encoded, weights=...)``. Axes: ``S`` segments, ``N`` reasoning tokens.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from segattr.attribution import Attribution
from segattr.scores import SegmentScorer, SegmentScores
from segattr.trace import EncodedTrace
from segattr.training.rows import require_encoded, require_scores_of


def strength_weights(
    scores: SegmentScores, *, temperature: float = 1.0, bounds: tuple[float, float] = (0.25, 4.0)
) -> Tensor:
    """Return soft weights that grow with a segment's strength (AIR's step weighting).

    Equal to ``clip(S * softmax(z / temperature), *bounds)`` with z the standardised strength, so
    all weights are 1 if all segments are equally strong. No segment is dropped; multiply by
    ``scores.kept`` to weight the kept ones only.

    Args:
        scores: The scores of one trace.
        temperature: Above 1 flattens the weights, below 1 sharpens them.
        bounds: Lowest and highest weight; the lowest is above 0.

    Returns:
        float64 ``[S]``.

    Raises:
        ValueError: If an argument is out of range.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be above 0, got {temperature}.")
    lowest, highest = bounds
    if not 0 < lowest <= 1 <= highest:
        raise ValueError(f"bounds must be 0 < lowest <= 1 <= highest, got {bounds}.")
    strength = scores.strength.double()
    spread = strength.std(correction=0)
    centred = strength - strength.mean()
    # Equal strengths differ by rounding alone, which must not be blown up to a spread of 1.
    standard = centred / spread if spread > 1e-12 else torch.zeros_like(centred)
    return (len(strength) * (standard / temperature).softmax(0)).clamp(lowest, highest)


def top_tokens(
    attribution: Attribution,
    share: float = 0.45,
    *,
    signed: bool = False,
    keep_ends: bool = True,
    keep_second_to_last: bool = False,
) -> Tensor:
    """Return 1 for the reasoning tokens of the highest attribution, 0 for the others.

    The paper's token-level baselines: a mask that ignores segments.

    Args:
        attribution: The attribution of one trace.
        share: Which part of the reasoning tokens to choose, in (0, 1]; their number is rounded up.
        signed: Rank by the attribution itself, not by its absolute value.
        keep_ends: Also choose all of the first and the last segment.
        keep_second_to_last: Also choose all of the segment before the last.

    Returns:
        float64 ``[N]``. Among equals the earlier token is chosen.

    Raises:
        ValueError: If the share is out of range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}. It is a share of the tokens.")
    start, stop = attribution.encoded.reasoning
    values = attribution.token_scores[start:stop].double()
    order = (values if signed else values.abs()).argsort(descending=True, stable=True)
    chosen = torch.zeros(stop - start, dtype=torch.float64)
    # 1e-9: 0.45 * 100 is above 45 by rounding.
    chosen[order[: math.ceil(share * (stop - start) - 1e-9)]] = 1
    segments = attribution.encoded.segments
    for index in _always_kept(len(segments), keep_ends, keep_second_to_last):
        a, b = segments[index]
        chosen[a - start : b - start] = 1
    return chosen


def random_segments(
    encoded: EncodedTrace,
    scores: SegmentScores,
    *,
    seed: int = 0,
    keep_ends: bool = True,
    keep_second_to_last: bool = False,
) -> Tensor:
    """Draw as many segments as are important, without replacement.

    The paper's control: the scores say how many segments to choose, chance says which.

    Args:
        encoded: The trace.
        scores: Its scores; only the number of important segments is used.
        seed: Seeds the draw, together with the tokens of prompt and reasoning; nothing else does,
            so the draw is the same in every run and on every machine.
        keep_ends: Also choose the first and the last segment.
        keep_second_to_last: Also choose the segment before the last.

    Returns:
        bool ``[S]``.

    Raises:
        TypeError: If an argument is another kind of object.
        ValueError: If the scores are those of another trace.
    """
    require_encoded(encoded)
    require_scores_of(encoded, scores)
    tokens = encoded.input_ids[: encoded.reasoning[1]].numpy().tobytes()
    digest = hashlib.sha256(f"{seed} ".encode() + tokens).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    order = torch.randperm(len(encoded.segments), generator=generator)
    chosen = torch.zeros(len(encoded.segments), dtype=torch.bool)
    chosen[order[: int(scores.important.sum())]] = True
    chosen[_always_kept(len(chosen), keep_ends, keep_second_to_last)] = True
    return chosen


def _always_kept(count: int, keep_ends: bool, keep_second_to_last: bool) -> list[int]:
    scorer = SegmentScorer(keep_ends=keep_ends, keep_second_to_last=keep_second_to_last)
    return scorer.always_kept(count)
