"""What every command prints with: progress and errors on stderr, and the exit codes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
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


def progress(traces: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Pass so many traces on under a progress bar on stderr."""
    steps = ((trace, count / total) for count, trace in enumerate(traces, start=1))
    return progress_by_share(steps, what)


def progress_by_share(items: Iterable[tuple[Item, float | None]], what: str) -> Iterator[Item]:
    """Pass items on under a progress bar on stderr, which counts them.

    Args:
        items: Each with the share of the work, in [0, 1], that is done with it; None where nobody
            can know.
        what: What is going on.
    """
    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.fields[count]} traces"),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors) as bar:
        task = bar.add_task(what, total=None, count=0)
        for count, (item, share) in enumerate(items, start=1):
            yield item
            total = None if share is None else 1.0
            bar.update(task, total=total, completed=share, count=count)


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
