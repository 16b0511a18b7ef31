"""The traces that a command was given: opened before a model is, and never written to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from segattr.cli.console import UserError
from segattr.cli.options import Source
from segattr.cli.text_options import TextOptions
from segattr.dataset.json_text import BadLine
from segattr.dataset.sources import STDIN, Place, list_files
from segattr.dataset.traces import read_traces
from segattr.trace import Trace

Item = tuple[Place, Trace | BadLine]


@contextmanager
def readable(paths: Sequence[str]) -> Iterator[str]:
    """Say in the words of the command what is wrong with files; gives their names.

    Raises:
        UserError: If there are none, or one cannot be read.
    """
    if not paths:
        raise UserError("TRACES must name files, got none. Name some, or - for standard input.")
    try:
        yield ", ".join(paths)
    except OSError as error:
        raise UserError(
            f"TRACES must be files that can be read, got {error.filename}: {error.strerror}."
        ) from None
    except (ValueError, ImportError) as error:
        raise UserError(f"TRACES: {error}") from None


def open_traces(source: Source, text: TextOptions) -> tuple[Trace | None, Iterator[Item]]:
    """Open the files and read up to the first trace; the others are read when they are asked for.

    Returns:
        The first trace, or None if it is a bad line, and all of them.

    Raises:
        UserError: If a file cannot be read, or there are no traces.
    """
    with readable(source.traces) as given:
        traces = read_traces(source.traces, text.fields(), **text.reading())
        first = next(traces, None)
    if first is None:
        raise UserError(f"TRACES must hold traces, got {given} without any.")
    trace = first[1]
    return None if isinstance(trace, BadLine) else trace, chain([first], traces)


def require_other_file(out: Path, source: Source) -> None:
    """Raise UserError if one of the traces' files is where to write."""
    if str(out) == STDIN:
        raise UserError("OUT must be a file, got -. Name one; --resume reads it.")
    if out.is_dir():
        raise UserError(f"OUT must be a file, got the folder {out}.")
    if not out.exists():
        return
    for path in list_files(source.traces):
        facts = os.fstat(sys.stdin.fileno()) if path == STDIN else os.stat(path)
        if os.path.samestat(facts, out.stat()):
            raise UserError(f"OUT must be another file than TRACES, got {out} for both.")
