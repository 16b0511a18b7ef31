"""Files of scored traces: one JSON object a line, whole or not at all, also after a crash."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from segattr.dataset.json_text import BadLine
from segattr.dataset.record import SchemaError, ScoredTrace
from segattr.trace import Trace

RECORD_START = b'{"schema": '
MARKS = {"schema", "token_scores"}  # records have one of them, those without a schema the latter


class ScoredWriter:
    """Appends scored traces to a JSONL file, each line whole or not at all.

    Args:
        path: The file; made if it does not exist.
        asked: What this run was asked for; a file that was asked something else is not continued.
        resume: Continue an existing file. A last line that a crash cut short is removed.
        overwrite: Replace an existing file.

    Raises:
        FileExistsError: If the file has content and neither ``resume`` nor ``overwrite`` is set.
        ValueError: If it was asked something else, or is not a file of scored traces.
        OSError: If it cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        asked: Mapping[str, Any] | None = None,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.asked = json.loads(json.dumps(asked or {}))
        self.written = 0
        self._replace = overwrite
        self._before: set[bytes] = set()  # digests
        self._now: set[bytes] = set()
        self._ids: set[str] = set()
        has_content = self.path.exists() and self.path.stat().st_size > 0
        if has_content and not (resume or overwrite):
            raise FileExistsError(
                f"{path} must be a new file, got one with content. Pass resume=True to continue "
                "it, overwrite=True to replace it."
            )
        if has_content and not overwrite:
            for scored in read_scored(self.path):
                self._require_same(scored)
                self._before.add(bytes.fromhex(scored.digest))
                self._ids.add(scored.id)
            _drop_partial_line(self.path)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed in __exit__)

    def _require_same(self, scored: ScoredTrace) -> None:
        for name, value in self.asked.items():
            if (found := scored.asked.get(name)) != value:
                raise ValueError(
                    f"{self.path} must have been written with the same options, got "
                    f"{name}={found!r} instead of {value!r}. Use these, or another file."
                )

    def holds(self, trace: Trace) -> bool:
        """Whether the file holds these texts, under whatever id."""
        return self.wrote(trace) or bytes.fromhex(trace.digest) in self._before

    def wrote(self, trace: Trace) -> bool:
        """Whether this run put them there."""
        return bytes.fromhex(trace.digest) in self._now

    def has_id(self, name: str) -> bool:
        """Whether the file holds a trace of this name."""
        return name in self._ids

    def require_new_id(self, name: str) -> None:
        """Raise ValueError if the file holds a trace of this name."""
        if self.has_id(name):
            raise ValueError(
                f"id must be of one trace, got {name!r}, which is another text in {self.path}. "
                "Rename one of them, or write another file."
            )

    def write(self, scored: ScoredTrace) -> None:
        """Append one scored trace; it is in the file when this returns.

        A file to overwrite is emptied now, not before there is something to put in its place.

        Raises:
            OSError: If it cannot be written in full; then nothing of it is left in the file.
            ValueError: If it holds what JSON cannot, or the file has its id.
        """
        self.require_new_id(scored.id)
        text = json.dumps(scored.to_record(), ensure_ascii=False, allow_nan=False)
        line = text.encode() + b"\n"
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
        self._now.add(bytes.fromhex(scored.digest))
        self._ids.add(scored.id)

    def __enter__(self) -> ScoredWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def read_scored(path: str | Path, left_out: list[BadLine] | None = None) -> Iterator[ScoredTrace]:
    """Read the scored traces of a file.

    A last line that a crash in the middle of writing cut short is passed over.

    Args:
        path: A file that `ScoredWriter` wrote.
        left_out: Takes the records that are damaged, each with its line and the reason, while the
            others are read; without it, the first one is an error.

    Raises:
        ValueError: If the file holds something else, or records of another version of segattr, or a
            record is damaged and ``left_out`` is None; names the line.
        OSError: If the file cannot be read.
    """
    lines: dict[str, int] = {}
    with open(path, "rb") as file:
        for line, raw in enumerate(file, start=1):
            try:
                record = json.loads(raw)
            except (ValueError, RecursionError):  # neither JSON nor UTF-8, or brackets without end
                if not raw.endswith(b"\n") and _starts_like_a_record(raw):
                    return
                record = None
            is_record = isinstance(record, dict) and not MARKS.isdisjoint(record)
            try:
                if not is_record:
                    raise ValueError("the line must be a scored trace, got something else.")
                scored = ScoredTrace.from_record(record)
                if (first := lines.setdefault(scored.id, line)) != line:
                    raise ValueError(f"id must be unique, got {scored.id!r} as in line {first}.")
            except SchemaError as error:
                raise SchemaError(f"{path}, line {line}: {error}") from None
            except ValueError as error:
                # What is no scored file at all says so in its first line.
                if left_out is None or (line == 1 and not is_record):
                    raise ValueError(f"{path}, line {line}: {error}") from None
                left_out.append(BadLine(line, str(error)))
            else:
                yield scored


def _starts_like_a_record(raw: bytes) -> bool:
    return raw[: len(RECORD_START)] == RECORD_START[: len(raw)]


def _drop_partial_line(path: Path) -> None:
    """Cut off a record that a crash left half written; give a whole one its line end."""
    with open(path, "rb+") as file:
        stop = sum(len(raw) for raw in file if raw.endswith(b"\n"))
        file.seek(stop)
        rest = file.read()
        if _is_json(rest):
            file.write(b"\n")
        elif _starts_like_a_record(rest):
            file.truncate(stop)


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except ValueError:
        return False
    return True
