"""Files of traces: records to traces, and errors that name the place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from segattr.dataset.json_text import BadLine
from segattr.dataset.sources import Place, find_sources, read_records
from segattr.trace import Trace


def read_traces(
    paths: str | Path | Iterable[str | Path],
    fields: Mapping[str, str | None] | None = None,
    **reading: Any,
) -> Iterator[tuple[Place, Trace | BadLine]]:
    """Read the traces of files, in constant memory but for their ids.

    What a file is, is found from its first bytes, whatever its name: UTF-8 JSON with one object a
    line, an array of objects, or objects that spread over lines, all of these also in gzip or zstd;
    Parquet; Arrow. Blank lines are passed over. What is bad comes out as a `BadLine`, in its place,
    and the others are read all the same; in an array only up to a mistake in its JSON.

    A trace without ``id`` is called by its place: ``"line 12"`` (``"record 12"`` where a record has
    no line of its own), with several files ``"more.jsonl, line 12"``.

    Args:
        paths: One or several files, folders that ``save_to_disk`` of ``datasets`` wrote, patterns
            such as ``"shards/*.jsonl.gz"`` (sorted; a `Path` is taken as it is), or ``"-"`` for
            standard input.
        fields: Your names for the fields; see `Trace.from_record`.
        reading: Other arguments of `Trace.from_record`.

    Returns:
        ``(Place, Trace or BadLine)``, one after the other.

    Raises:
        ValueError: If a path leads to nothing that can be read; before anything is.
        OSError: If there is no such file.
        ImportError: If Parquet, Arrow or zstd is read without pyarrow.
    """
    return _traces(read_records(find_sources(paths)), fields, reading)


def _traces(
    records: Iterable[tuple[Place, Mapping[str, Any] | BadLine]],
    fields: Mapping[str, str | None] | None,
    reading: Mapping[str, Any],
) -> Iterator[tuple[Place, Trace | BadLine]]:
    first: dict[str, tuple[bytes, Place]] = {}
    for place, record in records:
        if isinstance(record, BadLine):
            yield place, record
            continue
        try:
            trace = Trace.from_record(record, fields, **reading)
            if trace.id is None:
                trace = replace(trace, id=place.name)
            else:
                _require_own_id(trace, place, first)
        except ValueError as error:
            yield place, BadLine(place.number, str(error), place.file)
        except Exception as error:  # whatever a line holds, the others are read
            yield place, BadLine(place.number, f"{type(error).__name__}: {error}", place.file)
        else:
            yield place, trace


def _require_own_id(trace: Trace, place: Place, first: dict[str, tuple[bytes, Place]]) -> None:
    """Raise if another text had this id before; the same text may come again."""
    digest = bytes.fromhex(trace.digest)
    known, where = first.setdefault(str(trace.id), (digest, place))
    if known != digest:
        at = f"{where.unit} {where.number}" if where.file == place.file else str(where)
        raise ValueError(
            f"id must be unique, got {trace.id!r} again after {at}. Rename one of them."
        )
