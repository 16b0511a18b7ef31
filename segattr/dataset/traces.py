"""Files of traces: one JSON object a line, and errors that name the line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from segattr.trace import Trace


@dataclass(frozen=True)
class BadLine:
    """A line that holds no trace, and why."""

    line: int
    error: str


def read_traces(
    path: str | Path, fields: Mapping[str, str] | None = None
) -> Iterator[tuple[int, Trace | BadLine]]:
    """Read traces from a UTF-8 JSONL file, one JSON object a line; blank lines are passed over.

    A trace without ``id`` is called by its line, ``"line 12"``. Bad lines come out as `BadLine`, in
    their place, and the others are read all the same.

    Args:
        path: The file.
        fields: Your names for the fields; see `Trace.from_record`.

    Yields:
        ``(line number from 1, Trace or BadLine)``.
    """
    first_line: dict[str, int] = {}
    with open(path, "rb") as file:
        for line, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            try:
                trace = _parse(raw, line, fields)
                if (first := first_line.setdefault(str(trace.id), line)) != line:
                    raise ValueError(
                        f"id must be unique, got {trace.id!r} again after line {first}. Rename "
                        "one of them."
                    )
            except ValueError as error:
                yield line, BadLine(line, str(error))
            except Exception as error:  # whatever a line holds, the others are read
                yield line, BadLine(line, f"{type(error).__name__}: {error}")
            else:
                yield line, trace


def _parse(raw: bytes, line: int, fields: Mapping[str, str] | None) -> Trace:
    try:
        text = raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        found = raw[error.start : error.start + 1].hex()
        raise ValueError(
            f"the file must be UTF-8, got byte 0x{found} at column {error.start + 1}. Convert it."
        ) from None
    try:
        record = json.loads(text.rstrip(), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("the line must be JSON, got brackets nested too deep.") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"the line must be JSON, got {error.msg} at column {error.colno}."
        ) from None
    if not isinstance(record, dict):
        raise ValueError(
            f"the line must be a JSON object, got {type(record).__name__}. Write one trace a line."
        )
    trace = Trace.from_record(record, fields)
    return replace(trace, id=f"line {line}") if trace.id is None else trace


def _refuse_constant(name: str) -> None:
    raise ValueError(f"the line must be JSON, got {name}. Use null.")
