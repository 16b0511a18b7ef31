"""``segattr demo``: score the bundled traces with the bundled model and show one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from segattr.cli.console import OK, UserError, in_flags
from segattr.cli.options import optional
from segattr.demo.showcase import run_demo


@dataclass(frozen=True)
class Demo:
    """Score the bundled traces, compare with what is known about their segments, and show one.

    Takes some seconds on a CPU; nothing is downloaded.
    """

    id: Annotated[str, arg(metavar="ID")] = "easy-01"
    """Which trace to show."""
    out: Annotated[Path | None, optional("OUT.jsonl")] = None
    """Also write the scored traces to this new file."""

    def run(self) -> int:
        try:
            run_demo(self.id, self.out)
        except FileExistsError:
            raise UserError(
                f"--out must be a new file, got {self.out}, which has content."
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(in_flags(str(error), ["id"])) from None
        return OK
