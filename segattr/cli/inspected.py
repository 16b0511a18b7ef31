"""What ``segattr inspect`` counts over all traces."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from segattr.trace import EncodedTrace, Trace


@dataclass
class Inspected:
    """Counts of what was read and of what was refused.

    Args:
        max_length: Most tokens that a trace may have; None sets no limit.
    """

    max_length: int | None = None
    layouts: Counter[str] = field(default_factory=Counter)
    refused: dict[str, list[str]] = field(default_factory=dict)
    segments: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    without_response: int = 0
    spelled: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """Traces that were read."""
        return len(self.segments)

    @property
    def total(self) -> int:
        """All records."""
        return self.count + sum(map(len, self.refused.values()))

    def add(self, layout: str, trace: Trace, segments: int, encoded: EncodedTrace | None) -> None:
        """Count a trace that was read."""
        self.layouts[layout] += 1
        self.segments.append(segments)
        self.without_response += trace.response is None
        if encoded is not None:
            self.lengths.append(len(encoded.input_ids))
            self.spelled.update(encoded.control_tokens)

    def refuse(self, place: Any, error: Exception) -> None:
        """Remember why a record cannot be read; the same reason for others counts as one."""
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        reason = f"{kind}{error}"
        known = next((other for other in self.refused if _plain(other) == _plain(reason)), reason)
        self.refused.setdefault(known, []).append(str(place))

    def lines(self) -> Iterator[str]:
        """The summary."""
        layouts = ", ".join(f"{count} as {name}" for name, count in self.layouts.items())
        yield f"{self.count} of {self.total} traces can be read{': ' + layouts if layouts else ''}"
        if self.count:
            single = sum(count < 2 for count in self.segments)
            yield (
                f"segments: {statistics.median(self.segments):g} in the median, "
                f"{max(self.segments)} at most; {single} traces have only one"
            )
            yield f"{self.without_response} traces have no response after the reasoning"
        if self.lengths:
            limit = self.max_length
            above = "" if limit is None else f"; {sum(n > limit for n in self.lengths)} above it"
            yield (
                f"tokens to attribute: {statistics.median(self.lengths):g} in the median, "
                f"{max(self.lengths)} at most, {sum(self.lengths):,} in all{above}"
            )
        for token, count in self.spelled.items():
            yield f"{count} traces spell out {token}, which becomes a control token"
        for reason, places in self.refused.items():
            more = f" and {len(places) - 1} more" if len(places) > 1 else ""
            yield f"refused, {places[0]}{more}: {reason}"


def _plain(reason: str) -> str:
    """A reason without what differs from record to record: numbers and quoted texts."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "", reason)
