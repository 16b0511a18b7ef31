"""What paths lead to, and the records there: files told by their first bytes, or standard input."""

from __future__ import annotations

import glob
import gzip
import io
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from segattr.dataset.json_text import BadLine, Numbered, read_json
from segattr.dataset.tables import MAGIC, import_pyarrow, read_table, saved_files

STDIN = "-"
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
SKIPPABLE = b"\x2a\x4d\x18"  # after one byte: what some writers of zstd begin with


@dataclass(frozen=True)
class Place:
    """Where a record stands.

    Args:
        file: The path, as it was given.
        unit: What the number counts: ``"line"`` or ``"record"``.
        number: From 1.
        name: What a trace without an id is called.
        read: Share of all input that had been read, in [0, 1]; None if nobody can know.
    """

    file: str
    unit: str
    number: int
    name: str
    read: float | None = None

    def __str__(self) -> str:
        if self.unit == "line":
            return f"{self.file}:{self.number}"
        return f"{self.file}, {self.unit} {self.number}"


@dataclass(frozen=True)
class Source:
    """A file, or standard input.

    Args:
        path: The path, as it was given.
        size: Bytes; None for what can be read only once, such as a pipe.
    """

    path: str
    size: int | None


@dataclass(frozen=True)
class Reading:
    """The records of a source that is open; ``share`` tells how much was read up to a number."""

    unit: str
    records: Iterator[Numbered]
    share: Callable[[int], float]


def list_files(paths: str | Path | Iterable[str | Path]) -> list[str]:
    """Return the files that paths lead to, as `find_sources` does, without a look into them."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise ValueError("paths must name a file, got none. Name some, or - for standard input.")
    found = [file for path in given for file in _files(path)]
    if found.count(STDIN) > 1:
        raise ValueError("paths must have standard input, -, once, got it twice. Name it once.")
    return found


def find_sources(paths: str | Path | Iterable[str | Path]) -> list[Source]:
    """Find what can be read, and look at the first bytes of each file.

    Args:
        paths: Files, folders that ``save_to_disk`` wrote, ``"-"`` for standard input, and strings
            with ``*``, ``?`` or ``[`` that match some; or one of these.

    Raises:
        ValueError: If one leads to nothing that can be read.
        OSError: If there is no such file.
        ImportError: If one needs a library that is not installed.
    """
    sources = [Source(path, _size(path)) for path in list_files(paths)]
    for source in sources:
        if source.size is not None:
            _require_readable(source)
    return sources


def read_records(sources: Sequence[Source]) -> Iterator[tuple[Place, dict[str, Any] | BadLine]]:
    """Read the records of sources, one source after the other.

    What is damaged comes out as a `BadLine` where it stops, and the next source is read.
    """
    names = _short_names([source.path for source in sources])
    total = sum(source.size or 0 for source in sources)
    known = total > 0 and all(source.size is not None for source in sources)
    before = 0
    for source, name in zip(sources, names, strict=True):
        prefix = f"{name}, " if len(sources) > 1 else ""
        size = source.size or 0
        for unit, number, record, share in _numbered(source):
            read = (before + share * size) / total if known else None
            place = Place(source.path, unit, number, f"{prefix}{unit} {number}", read)
            if isinstance(record, BadLine):
                record = replace(record, file=source.path)
            yield place, record
        before += size


def _short_names(paths: Sequence[str]) -> list[str]:
    """The ends of the paths, with as many folders as it takes to tell them apart."""
    parts = [Path(path).parts for path in paths]
    for count in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len({*names}) == len({*paths}):
            return names
    return list(paths)


def _files(path: str | Path) -> list[str]:
    """The files that one path leads to."""
    if os.path.isdir(path):
        return saved_files(Path(path))
    if isinstance(path, Path) or not {*"*?["} & {*path} or os.path.exists(path):
        return [str(path)]
    matches = sorted(glob.glob(path, recursive=True))
    if not matches:
        raise ValueError(f"{path} must match some files, got none. Is the folder right?")
    return [file for match in matches for file in (_files(Path(match)))]


def _size(path: str) -> int | None:
    if path == STDIN:
        return None
    facts = os.stat(path)
    return facts.st_size if stat.S_ISREG(facts.st_mode) else None


def _require_readable(source: Source) -> None:
    """Raise unless the file begins like something that can be read."""
    try:
        with _open(source):
            pass
    except Exception as error:  # whatever libraries find wrong with a file
        if isinstance(error, ImportError) or getattr(error, "filename", None):
            raise
        raise ValueError(f"{source.path}: {_why(error)}") from None


def _numbered(source: Source) -> Iterator[tuple[str, int, dict[str, Any] | BadLine, float]]:
    """Unit, number, record and the share read; of a damaged source up to where it stops."""
    unit, number = "line", 0
    try:
        with _open(source) as reading:
            unit = reading.unit
            for number, record in reading.records:
                yield unit, number, record, reading.share(number)
    except Exception as error:  # whatever libraries find wrong with a file, the others are read
        stop = number + 1
        yield unit, stop, BadLine(stop, f"{_why(error)} What follows in it is not read."), 1.0


def _why(error: Exception) -> str:
    if type(error) in (ValueError, ImportError):  # our own words
        return str(error)
    return f"the file must be whole, got {str(error).rstrip('.')}."


@contextmanager
def _open(source: Source) -> Iterator[Reading]:
    size = source.size
    with ExitStack() as stack:
        file: Any = sys.stdin.buffer
        if source.path != STDIN:
            file = stack.enter_context(open(source.path, "rb"))
        start = file.peek(8)
        kind = next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), None)
        if kind is None:
            unit, records = read_json(stack.enter_context(_unpacked(file, start)))
            yield Reading(unit, records, lambda _: file.tell() / size if size else 1.0)
        elif size is None:
            raise ValueError(f"a stream must hold JSON, got {kind}. Give the name of the file.")
        else:
            yield Reading("record", *read_table(source.path, kind))


@contextmanager
def _unpacked(file: BinaryIO, start: bytes) -> Iterator[Any]:
    if start.startswith(GZIP):
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield unpacked
    elif start.startswith(ZSTD) or start[1:4] == SKIPPABLE:
        pyarrow = import_pyarrow()
        source = pyarrow.PythonFile(file, mode="r")
        with io.BufferedReader(pyarrow.CompressedInputStream(source, "zstd")) as stream:
            yield stream
    else:
        yield file
