"""JSON in all its spellings, whole and damaged, in one piece and in many."""

from __future__ import annotations

import io
import json

import pytest

from segattr.dataset import json_text
from segattr.dataset.json_text import BadLine, read_json

RECORDS = [{"a": 'caf\xe9 \U0001f914 "\\"', "n": [1, {"b": None}]}, {"a": "]},{["}, {"a": ""}]


def read(text: bytes) -> tuple[str, list]:
    unit, records = read_json(io.BufferedReader(io.BytesIO(text)))
    return unit, [(n, r.error if isinstance(r, BadLine) else r) for n, r in records]


def lines(records) -> str:
    return "\n".join(map(json.dumps, records))


@pytest.fixture(params=[1, 3, 2**20], ids=str)
def piece(request, monkeypatch):
    """How much is read at a time: every place in a text is the end of a piece once."""
    monkeypatch.setattr(json_text, "PIECE", request.param)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        (lines(RECORDS), "line"),
        (json.dumps(RECORDS), "record"),
        (json.dumps(RECORDS, indent=2, ensure_ascii=False), "record"),
        ("\n ".join(json.dumps(record, indent=1) for record in RECORDS), "record"),
        (json.dumps(RECORDS[:1]) + "\r\n[]\n" + json.dumps(RECORDS[1:]), "record"),
    ],
    ids=["lines", "array", "pretty array", "pretty objects", "arrays"],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"\n \n"])
def test_records_in_every_spelling(piece, text, unit, mark):
    skipped = 2 if unit == "line" and mark == b"\n \n" else 0
    expected = [(number + skipped, record) for number, record in enumerate(RECORDS, start=1)]
    assert read(mark + text.encode()) == (unit, expected)


@pytest.mark.parametrize("text", [b"", b"\n\n", b"[]", b" [ ] ", b"\xef\xbb\xbf"])
def test_nothing_is_no_error(text):
    assert read(text)[1] == []


REMEDY = ". What follows is not read: mend it, or write one object a line."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'[{"a": 1}, 5, "x", [{}], {"a": 2}]',
         [{"a": 1}, *("the record must be a JSON object, got " + kind + "."
                      for kind in ("int", "str", "list")), {"a": 2}]),
        (b'[{"a": NaN}, {"a": 2}]', ["the record must be JSON, got NaN. Use null.", {"a": 2}]),
        (b'[{"a": 1},\n {"a": 2}', [{"a": 1}, {"a": 2},
         "the file must be JSON, got Expecting ',' or ']' at line 2, column 10" + REMEDY]),
        (b'[{"a": 1}, {"a": "cut', [{"a": 1},
         "the file must be JSON, got Unterminated string starting at line 1, column 18"
         + REMEDY]),
        (b'[{"a": 1},\n{"a": 2} {"a": 3}]', [{"a": 1}, {"a": 2},
         "the file must be JSON, got Expecting ',' or ']' at line 2, column 10" + REMEDY]),
        (b'[{"a": 1}, ]', [{"a": 1},
         "the file must be JSON, got Expecting value at line 1, column 12" + REMEDY]),
        (b'[{"a": 1}]\n]', [{"a": 1},
         "the file must be JSON, got Expecting value at line 2, column 1" + REMEDY]),
        (b'[{"a": 1},\n{"a": "caf\xe9"}]', [{"a": 1},
         "the file must be UTF-8, got byte 0xe9 at line 2, column 11" + REMEDY]),
        (b'[{"a": 1}, {"a": "caf\xc3', [{"a": 1},
         "the file must be UTF-8, got byte 0xc3 at line 1, column 22" + REMEDY]),
        (b"[" * 100_000,
         ["the file must be JSON, got brackets nested too deep at line 1, column 2" + REMEDY]),
    ],
    ids=["no objects", "NaN", "no end", "cut in a string", "no comma", "comma too many",
         "bracket too many", "Latin-1", "cut in a character", "deep"],
)  # fmt: skip
def test_an_array_is_read_up_to_its_first_mistake(text, expected):
    assert read(text) == ("record", list(enumerate(expected, start=1)))


def test_a_mistake_at_the_start_of_a_large_array_is_found_there(monkeypatch):
    """Not after all of it was read in the hope of an end."""
    monkeypatch.setattr(json_text, "PIECE", 2**10)
    stream = io.BufferedReader(io.BytesIO(b'[{"a": 1 "b": 2},' + b'{"a": 1},' * 10**5))
    ((_, bad),) = read_json(stream)[1]
    assert "Expecting ',' delimiter at line 1, column 10" in bad.error
    assert stream.tell() < 10**5


def test_a_line_longer_than_the_look_ahead_is_one_line():
    record = {"a": "x" * 2 * json_text.HEAD}
    assert read(lines([record, *RECORDS]).encode())[1][0] == (1, record)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"id,question\n" * 10**4, "got text that begins with 'id,question'. Write one JSON"),
        (b"version https://git-lfs", "got text that begins with 'version https://git-lfs'"),
        (b"\x89PNG\r\n\x1a\n\0", "got a binary file that begins with 0x89504e47. Unpack or conv"),
        (b"a.jsonl\0\0" + lines(RECORDS).encode(), "got a binary file that begins with 0x612e6a"),
        *((lines(RECORDS).encode(code), "got UTF-16 or a binary file. Convert it to UTF-8.")
          for code in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
    ],
    ids=["csv", "pointer", "png", "tar", "utf-16", "utf-16-le", "utf-16-be", "utf-32"],
)  # fmt: skip
def test_what_is_no_json_is_one_error(text, message):
    with pytest.raises(ValueError, match="the file must hold JSON objects") as raised:
        read(text)
    assert message in str(raised.value)


def test_garbage_before_the_first_object_is_one_bad_line_each():
    unit, found = read(b"# made by hand\n" + lines(RECORDS).encode())
    assert (unit, found[1:]) == ("line", list(enumerate(RECORDS, start=2)))
    assert found[0] == (1, "the line must be JSON, got Expecting value at column 1.")
