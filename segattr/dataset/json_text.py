"""JSON text to records: one object a line, or arrays and objects that spread over lines.

Reads piece by piece, so that a file may be larger than memory. One object a line survives any bad
line; what spreads over lines can be read up to its first mistake.
"""

from __future__ import annotations

import codecs
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import chain
from typing import Any

HEAD = 2**16  # bytes in which a file must look like JSON
PIECE = 2**20
NEARBY = 16  # no literal or escape that a piece may cut in two is longer
SPACE = " \t\n\r"
CONTROL = bytes({*range(32)} - {*b"\t\n\f\r"})  # in no text
# What reading a damaged file raises; those of pyarrow are among them.
DAMAGED = (OSError, EOFError, zlib.error)


@dataclass(frozen=True)
class BadLine:
    """A line (or a record of a file without lines) that holds no trace, and why."""

    line: int
    error: str
    file: str | None = None


Numbered = tuple[int, "dict[str, Any] | BadLine"]


def read_json(stream: BufferedIOBase) -> tuple[str, Iterator[Numbered]]:
    """Read the records of a UTF-8 stream.

    Args:
        stream: One JSON object a line; or objects over several lines, or arrays of objects.

    Returns:
        What the records are numbered by, from 1, ``"line"`` or ``"record"``; and the records.

    Raises:
        ValueError: If the stream begins with something else.
    """
    head, looks_right = _head(stream)
    first = next((line.strip() for line in head if line.strip()), b"")
    if not looks_right and first:
        raise ValueError(f"the file must hold JSON objects, Parquet or Arrow, got {_what(first)}")
    if first.startswith(b"[") or first == b"{":
        return "record", iter(_Values(chain(head, iter(lambda: stream.read1(HEAD), b""))))
    if head and not head[-1].endswith(b"\n"):
        head.append(head.pop() + stream.readline())
    return "line", _lines(chain(head, stream))


def _head(stream: BufferedIOBase) -> tuple[list[bytes], bool]:
    """The lines up to the first that looks like JSON, and whether there is one."""
    head: list[bytes] = []
    left = HEAD
    while left > 0 and (line := stream.readline(left)):
        left -= len(line)
        line = line if head else line.removeprefix(codecs.BOM_UTF8)
        head.append(line)
        if line.lstrip().startswith((b"{", b"[")):
            return head, 0 not in line[:4]  # in UTF-16 every other byte is 0
        if line.translate(None, CONTROL) != line:
            break
    return head, False


def _what(first: bytes) -> str:
    """What a file begins with that is no JSON, and the remedy."""
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or 0 in first[:2]:
        return "UTF-16 or a binary file. Convert it to UTF-8."
    try:
        text = first.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or first.translate(None, CONTROL) != first:
        return f"a binary file that begins with 0x{first[:4].hex()}. Unpack or convert it."
    return f"text that begins with {text[:40]!r}. Write one JSON object a line."


def _lines(lines: Iterable[bytes]) -> Iterator[Numbered]:
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        try:
            yield number, _parse_line(raw)
        except ValueError as error:
            yield number, BadLine(number, str(error))


def _parse_line(raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode()
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
            f"the line must be JSON, got {error.msg.removesuffix(' at')} at column {error.colno}."
        ) from None
    if not isinstance(record, dict):
        raise ValueError(
            f"the line must be a JSON object, got {type(record).__name__}. Write one trace a line."
        )
    return record


def _refuse_constant(name: str) -> None:
    raise ValueError(f"the line must be JSON, got {name}. Use null.")


class _Values:
    """The objects of a text in which a value may spread over lines, those in arrays included."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._text, self._at = "", 0
        self._line, self._column = 1, 1  # of the text's first character
        self._pieces = iter(pieces)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._broken: Exception | None = None  # why there is no more text
        self._constants: list[str] = []
        self._json = json.JSONDecoder(parse_constant=self._constants.append)

    def __iter__(self) -> Iterator[Numbered]:
        number = 0
        try:
            for number, value in enumerate(self._values(), start=1):
                if self._constants:
                    error = f"the record must be JSON, got {self._constants[0]}. Use null."
                    yield number, BadLine(number, error)
                elif isinstance(value, dict):
                    yield number, value
                else:
                    error = f"the record must be a JSON object, got {type(value).__name__}."
                    yield number, BadLine(number, error)
        except ValueError as error:
            remedy = "What follows is not read: mend it, or write one object a line."
            yield number + 1, BadLine(number + 1, f"{error}. {remedy}")

    def _values(self) -> Iterator[Any]:
        while char := self._next():
            if char != "[":
                yield self._value()
                continue
            self._at += 1
            char = self._next()
            while char != "]":
                yield self._value()
                char = self._next()
                if char not in (",", "]"):
                    raise self._error("Expecting ',' or ']'", self._at, cut=not char)
                self._at += char == ","
            self._at += 1
        if self._broken:
            raise self._error("nothing", self._at, cut=True)

    def _next(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            rest = self._text[self._at : self._at + NEARBY].lstrip(SPACE)
            if rest:
                self._at = self._text.index(rest[0], self._at)
                return rest[0]
            self._at = min(self._at + NEARBY, len(self._text))
            if self._at == len(self._text) and not self._grow():
                return ""

    def _value(self) -> Any:
        self._next()
        while True:
            self._constants.clear()
            try:
                value, stop = self._json.raw_decode(self._text, self._at)
            except RecursionError:
                raise self._error("brackets nested too deep", self._at) from None
            except json.JSONDecodeError as error:
                cut = error.pos > len(self._text) - NEARBY or error.msg.startswith("Unterminated")
                if not cut or not self._grow():
                    raise self._error(error.msg, error.pos, cut) from None
                continue
            if stop < len(self._text) or not self._grow():  # a number might go on
                self._at = stop
                return value

    def _grow(self) -> bool:
        """Let go of what was read, and at least double what is left; false at the end."""
        pieces, wanted = [self._text[self._at :]], max(PIECE, len(self._text) - self._at)
        while wanted > 0 and (piece := self._piece()):
            pieces.append(piece)
            wanted -= len(piece)
        if len(pieces) == 1:
            return False
        self._line, self._column = self._position(self._at)
        self._text, self._at = "".join(pieces), 0
        return True

    def _piece(self) -> str:
        """More text; empty at the end."""
        while self._broken is None:
            try:
                raw = next(self._pieces, b"")
                text = self._decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                found = error.object[error.start : error.start + 1].hex()
                self._broken = ValueError(f"the file must be UTF-8, got byte 0x{found}")
                return error.object[: error.start].decode()
            except DAMAGED as error:
                self._broken = ValueError(f"the file must be whole, got {error}")
                return ""
            if text or not raw:
                return text
        return ""

    def _position(self, at: int) -> tuple[int, int]:
        """Line and column of a character of the text, from 1."""
        lines = self._text.count("\n", 0, at)
        if lines:
            return self._line + lines, at - self._text.rfind("\n", 0, at)
        return self._line, self._column + at

    def _error(self, what: str, at: int, cut: bool = False) -> ValueError:
        """Why this is no JSON; if it is cut short, why there is no more text."""
        if cut and self._broken:
            line, column = self._position(len(self._text))
            return ValueError(f"{self._broken} at line {line}, column {column}")
        line, column = self._position(at)
        return ValueError(
            f"the file must be JSON, got {what.removesuffix(' at')} at line {line}, column {column}"
        )
