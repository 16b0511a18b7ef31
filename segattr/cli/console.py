"""What every command prints with: progress and errors on stderr, and the exit codes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from segattr.report.terminal import Terminal

Item = TypeVar("Item")
OK, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
errors = Terminal(stderr=True)


class UserError(Exception):
    """Something the user can mend; printed without a traceback."""


def progress(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Pass the items on under a progress bar on stderr."""
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors) as bar:
        yield from bar.track(items, total=total)


def in_flags(message: str, names: Iterable[str]) -> str:
    """Say an error of the library in the words of the command.

    ``steps must be None with rule='auto'`` becomes ``--steps must be left out with --rule auto``.

    Args:
        message: What the library says.
        names: Its arguments that are options of the command.
    """
    for name in names:
        flag = "--" + name.replace("_", "-")
        message = re.sub(rf"\b{name}=True\b", flag, message)
        message = re.sub(rf"\b{name}='([^']*)'", rf"{flag} \1", message)
        message = re.sub(rf"\b{name}=(?=[\w.-])", f"{flag} ", message)
        message = re.sub(rf"^{name}\b", flag, message)
        if "_" in name:  # no word of the language
            message = re.sub(rf"(?<![\w-]){name}\b", flag, message)
    return message.replace("must be None", "must be left out")
