"""What speaks against a trace's scores: flagged in its record, left out when asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segattr.attribution import DOUBTS, WIDE_GAP, Attribution, doubts_of
from segattr.checks import require_word
from segattr.trace import EncodedTrace

# Each is the name of what a trace should have, and what is so if it does not.
FLAGS = {
    "rise": "the answer is no likelier with the trace than at the baseline",
    "segments": "the trace is a single segment, so there is nothing to choose",
    **DOUBTS,
    "plain": "the trace spells out special tokens, which became control tokens",
}


class UnfitTraceError(ValueError):
    """A trace has flags that it was required not to have.

    Args:
        names: The flags, of `FLAGS`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self.names = names

    def __str__(self) -> str:
        return "; ".join(FLAGS[name] for name in self.names)


@dataclass(frozen=True)
class Requirements:
    """What a trace must have to be kept.

    Args:
        names: Of `FLAGS`. None by default, unlike the command's: what is called gives what it was
            asked for, and its flags say the rest.
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
        baseline = attribution.baseline_logprob
        flags = [
            *_known_before(attribution.encoded),
            *doubts_of(attribution.completeness_gap, attribution.converged, self.max_gap),
        ]
        if baseline is not None and not attribution.target_logprob > baseline:
            flags.append("rise")
        return [name for name in FLAGS if name in flags]

    def check_tokens(self, encoded: EncodedTrace) -> None:
        """Raise UnfitTraceError for what is known before anything is attributed."""
        self.check(_known_before(encoded))

    def check(self, flags: Sequence[str]) -> None:
        """Raise UnfitTraceError if a required name is among the flags."""
        if unwanted := [name for name in flags if name in self.names]:
            raise UnfitTraceError(unwanted)


def _known_before(encoded: EncodedTrace) -> list[str]:
    found = {"segments": len(encoded.segments) < 2, "plain": bool(encoded.control_tokens)}
    return [name for name, is_so in found.items() if is_so]
