"""What a run remembers of its outcomes, and the summary it prints."""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segattr.dataset.flags import FLAGS

if TYPE_CHECKING:
    from segattr.dataset.runner import Kind, Outcome


REMEDIES = {
    "rise": "Is it the right answer, and the model that can read them?",
    "segments": "See --segmenter and --keywords.",
    "gap": "See --max-evaluations, a fixed --rule with more --steps, --scope and --max-gap; with "
    "--rule secant, --dtype.",
    "agreement": "See --max-evaluations, --agreement, --scope and --baseline.",
    "plain": "See --split-special-tokens.",
}


@dataclass
class Tally:
    """What is remembered of a run's outcomes: a few numbers each."""

    kinds: Counter[Kind] = field(default_factory=Counter)
    seconds: float = 0.0
    lengths: list[int] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    evaluations: list[int] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)
    undecided: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    segments: list[int] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.kinds[outcome.kind] += 1
        self.seconds += outcome.seconds
        self.left_out.update(outcome.flags)
        if (scored := outcome.scored) is None:
            return
        self.lengths.append(len(scored.input_ids))
        kept, tokens = scored.reasoning_tokens
        self.kept.append(kept / max(1, tokens))
        if scored.completeness_gap is not None:
            self.gaps.append(scored.completeness_gap)
        if scored.agreement is not None:
            self.agreements.append(scored.agreement)
        self.evaluations.append(scored.evaluations)
        self.undecided += any(segment.undecided for segment in scored.segments)
        self.flags.update(scored.flags)
        self.segments.append(len(scored.segments))

    def lines(self) -> Iterator[str]:
        """The summary."""
        counts = [f"{count} {kind.value}" for kind, count in self.kinds.items()]
        yield ", ".join(counts)
        if self.lengths:
            yield from self._of_the_scored()
        for what, flags in (("flagged", self.flags), ("left out for", self.left_out)):
            for flag, count in flags.items():
                yield f"{what} {flag}, {count} traces: {FLAGS[flag]}. {REMEDIES[flag]}"
        if self.left_out:
            yield "--require none also writes what was left out"

    def _of_the_scored(self) -> Iterator[str]:
        yield (
            f"{60 * len(self.lengths) / self.seconds:.1f} traces/min, "
            f"longest {max(self.lengths)} tokens, peak memory {_peak_memory() / 2**30:.2f} GiB"
        )
        yield (
            f"{statistics.mean(self.kept):.0%} of the reasoning kept on average, "
            f"{statistics.median(self.segments):g} segments a trace in the median"
        )
        count = statistics.median(self.evaluations)
        yield f"{count:g} evaluation{'s' * (count != 1)} in the median{self._trust()}"
        if self.undecided:
            yield f"{self.undecided} traces have undecided segments: see --agreement"

    def _trust(self) -> str:
        """What the methods can tell of their errors."""
        gap, agreement = "", ""
        if self.gaps:
            gap = f", a completeness gap of {statistics.median(self.gaps):.1%}"
        if self.agreements:
            agreement = f", an expected agreement of {statistics.median(self.agreements):.1%}"
        return gap + agreement


def _peak_memory() -> int:
    """Bytes: of the GPU if one was used, else of this process."""
    import psutil
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
