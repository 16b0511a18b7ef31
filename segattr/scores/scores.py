"""What a scorer found about the segments of a trace.

Axis: ``S`` segments.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

MARKS_SHOWN = 60


@dataclass(frozen=True, eq=False, repr=False)
class SegmentScores:
    """What the scorer found, one value per segment, on CPU.

    Args:
        strength: Share of the trace's strength, float64 ``[S]``; sums to 1.
        consistency: float64 ``[S]`` in [0, 1]; 1 means that all tokens push the same way.
        effective_tokens: How many tokens carry the attribution: ``(sum |a|)^2 / sum a^2``, float64
            ``[S]``. Where it is small, consistency means little: a few tokens agree by chance.
        important: The paper's set, bool ``[S]``.
        kept: What carries loss: the important segments, and those that the scorer always keeps,
            bool ``[S]``.
        undecided: Segments whose ``kept`` could change within the attribution's estimated error,
            bool ``[S]``. None if the method estimates no error; so are the next three.
        agreement: Jaccard index in [0, 1] that is expected between the kept segments and those of
            the exact attribution: its mean over the attribution's samples. 0 if the error could
            not be estimated, unless every segment is kept in any case.
        strength_error: Estimated absolute error of the strength, float64 ``[S]``.
        consistency_error: Estimated absolute error of the consistency, float64 ``[S]``.
    """

    strength: Tensor
    consistency: Tensor
    effective_tokens: Tensor
    important: Tensor
    kept: Tensor
    undecided: Tensor | None = None
    agreement: float | None = None
    strength_error: Tensor | None = None
    consistency_error: Tensor | None = None

    def __repr__(self) -> str:
        marks = "".join("+" if kept else "-" for kept in self.kept.tolist()[:MARKS_SHOWN])
        more = "..." if len(self.kept) > MARKS_SHOWN else ""
        undecided = ""
        if self.undecided is not None:
            undecided = f", {int(self.undecided.sum())} undecided, agreement {self.agreement:.1%}"
        return (
            f"SegmentScores({len(self.kept)} segments, {int(self.kept.sum())} kept {marks}{more}, "
            f"{int(self.important.sum())} important{undecided}, strongest "
            f"{float(self.strength.max()):.1%} at {int(self.strength.argmax())})"
        )


def jaccard(one: Tensor, other: Tensor) -> float:
    """Return how much two sets of segments, bool ``[S]``, agree: in [0, 1]; two empty ones do."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0
