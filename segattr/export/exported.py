"""What came of an export: counted row by row, so that it is true at every moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segattr.dataset.student import Fit
from segattr.trace import TraceTooLongError
from segattr.training.rows import ASSISTANT_MASKS, INPUT_IDS, Row


@dataclass
class Exported:
    """What was written and what was left out.

    Args:
        rows: Rows written.
        tokens: Tokens of all rows.
        with_loss: Tokens that carry loss.
        longest: Tokens of the longest row.
        too_long: Id of each trace that is longer than ``max_length``, and the error.
        failed: Id of each trace left out for another reason, and the error.
        cut: Ids of the traces that were cut to ``max_length``.
        as_tokens: Rows that the trainer would read otherwise as text; they are in a file of tokens
            instead.
        scored_with: What was asked when the first record was scored.
        fit: How well the segments fit the tokens of a student; None without one.
    """

    rows: int = 0
    tokens: int = 0
    with_loss: int = 0
    longest: int = 0
    too_long: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    as_tokens: int = 0
    scored_with: Mapping[str, Any] = field(default_factory=dict)
    fit: Fit | None = None

    @property
    def as_text(self) -> int:
        """Rows that are not in a file of tokens instead; of a format of tokens, all."""
        return self.rows - self.as_tokens

    def add(
        self, name: str, row: Row, *, as_tokens: bool, is_cut: bool, fit: Fit | None = None
    ) -> None:
        """Count the row of a trace, once it is written."""
        length = len(row[INPUT_IDS])
        self.rows += 1
        self.tokens += length
        self.with_loss += int(sum(row[ASSISTANT_MASKS]))
        self.longest = max(self.longest, length)
        self.as_tokens += as_tokens
        self.cut += [name] * is_cut
        if fit is not None:
            self.fit = fit if self.fit is None else self.fit + fit

    def leave_out(self, name: str, error: ValueError) -> None:
        """Note the id of a trace that gives no row."""
        left_out = self.too_long if isinstance(error, TraceTooLongError) else self.failed
        left_out.append((name, str(error)))
