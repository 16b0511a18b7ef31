"""``segattr show``: print one scored trace."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from segattr.cli.console import OK, UserError, errors
from segattr.cli.options import optional
from segattr.dataset.jsonl import read_scored
from segattr.dataset.record import ScoredTrace
from segattr.dataset.traces import BadLine
from segattr.report.terminal import Terminal, print_trace

NAMED = 8  # ids that an error names


@dataclass(frozen=True)
class Show:
    """Print a scored trace: kept segments bright (+), dropped ones dim (-).

    Each has its strength (share of the total) and its direction consistency (1: all its tokens push
    the same way).
    """

    scored: Annotated[Positional[Path], arg(metavar="OUT.jsonl")]
    """A file that segattr score wrote."""
    id: Annotated[str | None, optional("ID")] = None
    """Which trace; the first if left out."""

    def run(self) -> int:
        wanted, ids = self._find()
        if wanted is None:
            known = ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "") or "none"
            raise UserError(
                f"--id must be one of the {len(ids)} traces of {self.scored} ({known}), got "
                f"{self.id!r}."
            )
        console = Terminal()
        with console.capture() as printed:
            print_trace(wanted, console)
            if self.id is None and len(ids) > 1:
                console.print(f"1 of {len(ids)} traces; choose with --id ID", style="dim")
        sys.stdout.write(printed.get())
        sys.stdout.flush()
        return OK

    def _find(self) -> tuple[ScoredTrace | None, list[str]]:
        """The trace, and the ids of all."""
        ids: list[str] = []
        wanted: ScoredTrace | None = None
        left_out: list[BadLine] = []
        try:
            for scored in read_scored(self.scored, left_out):
                ids.append(scored.id)
                if wanted is None and self.id in (None, scored.id):
                    wanted = scored
        except (OSError, ValueError) as error:
            raise UserError(str(error)) from None
        for bad in left_out:
            errors.print(f"{self.scored}:{bad.line}: left out: {bad.error}")
        return wanted, ids
