"""JSONL in, JSONL out: errors that name the line, and files that survive a crash."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from segattr.dataset.record import RECORD_KEYS
from segattr.trace import Trace

RECORD_START = b'{"id": '


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
    raise ValueError(f"the line must be JSON, got {name}, which is none. Use null.")


class ScoredWriter:
    """Appends scored traces to a JSONL file, each line whole or not at all.

    Args:
        path: The file; made if it does not exist.
        settings: What this run uses; a file written with other settings is not continued.
        resume: Continue an existing file. A last line that a crash cut short is removed.
        overwrite: Replace an existing file.

    Raises:
        FileExistsError: If the file has content and neither ``resume`` nor ``overwrite`` is set.
        ValueError: If it was written with other settings, or is not a file of scored traces.
        OSError: If it cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        settings: Mapping[str, Any],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.settings = json.loads(json.dumps(settings))
        self.done: set[str] = set()
        self.written = 0
        self._replace = overwrite
        has_content = self.path.exists() and self.path.stat().st_size > 0
        if has_content and not (resume or overwrite):
            raise FileExistsError(
                f"{path} must be a new file, got one with content. Pass --resume to continue it, "
                "--overwrite to replace it."
            )
        if has_content and not overwrite:
            self.done = {str(record["id"]) for record in self._previous()}
            _drop_partial_line(self.path)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed in __exit__)

    def _previous(self) -> Iterator[dict[str, Any]]:
        for record in read_scored(self.path):
            for name, value in self.settings.items():
                if record["settings"].get(name) != value:
                    raise ValueError(
                        f"{self.path} must have been written with the same settings, got "
                        f"{name}={record['settings'].get(name)!r} instead of {value!r}. "
                        "Use these settings, or another file."
                    )
            yield record

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; it is in the file when this returns.

        A file to overwrite is emptied now, not before there is something to put in its place.

        Raises:
            OSError: If it cannot be written in full; then nothing of it is left in the file.
            ValueError: If the record is not valid JSON.
        """
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        if self._replace:
            self._file.truncate(0)
            self._replace = False
        size = self.path.stat().st_size
        try:
            if self._file.write(line) != len(line):
                raise OSError("the disk is full")
        except OSError:
            self._file.truncate(size)
            raise
        self.written += 1

    def __enter__(self) -> ScoredWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def read_scored(path: str | Path) -> Iterator[dict[str, Any]]:
    """Read the records that `ScoredWriter` wrote.

    A last line without an end, which a crash in the middle of writing leaves, is passed over unless
    it is whole.

    Raises:
        ValueError: If a line is not one of them; names the line.
    """
    with open(path, "rb") as file:
        for line, raw in enumerate(file, start=1):
            try:
                record = json.loads(raw)
            except ValueError:  # neither JSON nor UTF-8
                if not raw.endswith(b"\n"):
                    return
                record = None
            whole = isinstance(record, dict) and record.keys() >= RECORD_KEYS
            if not whole or not isinstance(record["settings"], dict):
                raise ValueError(
                    f"{path} must hold scored traces, got something else in line {line}. Check "
                    "the path."
                )
            yield record


def _drop_partial_line(path: Path) -> None:
    """Cut off a record that a crash left half written; any other unfinished line is an error.

    A whole record that lacks its line's end only, gets it.
    """
    with open(path, "rb+") as file:
        end = sum(len(raw) for raw in file if raw.endswith(b"\n"))
        file.seek(end)
        rest = file.read()
        if _is_json(rest):
            file.write(b"\n")
            return
        if rest[: len(RECORD_START)] != RECORD_START[: len(rest)]:
            raise ValueError(
                f"{path} must hold scored traces, got something else in its last line. Check the "
                "path."
            )
        file.truncate(end)


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except ValueError:
        return False
    return True
