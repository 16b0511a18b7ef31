"""What speaks against a trace's scores: flagged in its record, left out when asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segattr.attribution import Attribution
from segattr.checks import require_word
from segattr.trace import EncodedTrace

WIDE_GAP = 0.05  # the integral misses so much of F(x) - F(x') that the scores deserve more points
# Each is the name of what a trace should have, and what is so if it does not.
FLAGS = {
    "rise": "the answer is no likelier with the trace than at the baseline",
    "segments": "the trace is a single segment, so there is nothing to choose",
    "gap": "the completeness gap is wide, so the scores are no good estimate",
    "plain": "the trace spells out special tokens, which became control tokens",
}


class UnfitTraceError(ValueError):
    """A trace has a flag that it was required not to have."""


@dataclass(frozen=True)
class Requirements:
    """What a trace must have to be kept.

    Args:
        names: Of `FLAGS`.
        max_gap: The widest completeness gap that is no flag, relative.

    Raises:
        ValueError: If a name is unknown, or ``max_gap`` below 0.
    """

    names: Sequence[str] = ()
    max_gap: float = WIDE_GAP

    def __post_init__(self) -> None:
        for name in self.names:
            require_word("require", name, FLAGS)
        if not self.max_gap >= 0:
            raise ValueError(f"max_gap must be at least 0, got {self.max_gap}. Such as 0.05.")

    def flags(self, attribution: Attribution) -> list[str]:
        """Return those of `FLAGS` that an attributed trace has."""
        baseline, gap = attribution.baseline_logprob, attribution.completeness_gap
        found = {
            "rise": baseline is not None and not attribution.target_logprob > baseline,
            "gap": gap is not None and not gap <= self.max_gap,
        }
        flags = {*_known_before(attribution.encoded), *(name for name in found if found[name])}
        return [name for name in FLAGS if name in flags]

    def check_tokens(self, encoded: EncodedTrace) -> None:
        """Raise UnfitTraceError for what is known before anything is attributed."""
        self.check(_known_before(encoded))

    def check(self, flags: Sequence[str]) -> None:
        """Raise UnfitTraceError if a required name is among the flags."""
        if reasons := [FLAGS[name] for name in flags if name in self.names]:
            raise UnfitTraceError("; ".join(reasons))


def _known_before(encoded: EncodedTrace) -> list[str]:
    found = {"segments": len(encoded.segments) < 2, "plain": bool(encoded.control_tokens)}
    return [name for name, is_so in found.items() if is_so]
