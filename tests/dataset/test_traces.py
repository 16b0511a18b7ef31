"""Reading traces: what is bad is named, and the others are read."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest

from segattr import Trace
from segattr.dataset import BadLine, read_traces

GOOD = {"id": "a", "question": "q", "reasoning": "r", "answer": "1"}


def write(path, *lines: bytes | dict):
    path.write_bytes(
        b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    )
    return path


def test_bad_lines_are_named_and_the_others_read(tmp_path):
    path = write(
        tmp_path / "traces.jsonl",
        GOOD,
        b'{"id": "b", "question": ',
        b"",
        {**GOOD, "id": "c", "answer": ""},
        {"id": "d", "question": "q", "answer": "1"},
        b'{"id": "e", "question": "caf\xe9"}',
        b"[1, 2]",
        {**GOOD, "reasoning": "another"},
        {**GOOD, "id": None},
    )
    found = {place.number: item for place, item in read_traces(path)}
    assert [line for line, item in found.items() if isinstance(item, Trace)] == [1, 9]
    assert found[9].id == "line 9"
    errors = {line: item.error for line, item in found.items() if isinstance(item, BadLine)}
    assert errors.keys() == {2, 4, 5, 6, 7, 8}
    assert found[2].file == str(path)
    assert "must be JSON, got Expecting value at column 24" in errors[2]
    assert "answer must not be empty" in errors[4]
    assert "reasoning must be given" in errors[5]
    assert "must be UTF-8, got byte 0xe9 at column 29" in errors[6]
    assert "must be a JSON object, got list" in errors[7]
    assert "id must be unique, got 'a' again after line 1" in errors[8]


CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        *(("segments", value, "a list of strings or spans") for value in (12, True, 2.5)),
        ("segments", {"r": 1}, "segments must be a list of strings or spans"),
        ("segments", [1, 2], "segments must be a list of strings or spans"),
        *(("messages", [{**CHAT[0], "role": role}, CHAT[1]], "role must be text, got")
          for role in (["x"], {}, 1, None)),
        ("messages", [CHAT[0], {**CHAT[1], "role": ["assistant"]}], "role must be text, got"),
        ("messages", [{"from": ["gpt"], "value": "q"}, CHAT[1]], "role must be text, got"),
        ("messages", [{**CHAT[0], "content": 3}, CHAT[1]], "question must be a string or chat"),
        ("messages", [CHAT[0], {**CHAT[1], "content": ["r"]}], "content must be a string"),
        ("reasoning", ["r"], "reasoning must be text"),
        ("answer", [1, 2], "answer must be text"),
        ("answer", True, "answer must be text"),
        ("question", {"text": "q"}, "question must be a string or chat"),
        ("response", 1.5, "response must be text"),
    ],
)  # fmt: skip
def test_nothing_a_line_holds_stops_the_others(tmp_path, field, value, message):
    record = {key: GOOD[key] for key in GOOD if field != "messages" or key in ("id", "answer")}
    bad, good = dict(read_traces(write(tmp_path / "t", {**record, field: value}, GOOD))).values()
    assert message in bad.error
    assert good.id == "a"


def test_an_answer_of_many_digits_is_text(tmp_path):
    digits = "1" + "0" * 400
    line = json.dumps(GOOD).replace('"1"', digits).encode()
    ((_, trace),) = read_traces(write(tmp_path / "t", line))
    assert trace.answer == digits


def test_an_error_that_nobody_foresaw_is_one_line_s(tmp_path, monkeypatch):
    def fail(record, fields):
        raise LookupError("no such thing")

    monkeypatch.setattr(Trace, "from_record", fail)
    bad = [item for _, item in read_traces(write(tmp_path / "t", GOOD, GOOD))]
    assert [item.error for item in bad] == ["LookupError: no such thing"] * 2


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path):
    path = tmp_path / "traces.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n")
    assert [trace.id for _, trace in read_traces(path)] == ["a"]


def test_an_id_belongs_to_one_text_in_all_files(tmp_path):
    a = write(tmp_path / "a.jsonl", GOOD, {**GOOD, "id": None})
    b = write(tmp_path / "b.jsonl", GOOD, {**GOOD, "answer": "2"}, {**GOOD, "id": None})
    found = [item for _, item in read_traces([a, b])]
    assert [item.id for item in found if isinstance(item, Trace)] == [
        "a",
        "a.jsonl, line 2",
        "a",
        "b.jsonl, line 3",
    ]
    (bad,) = (item for item in found if isinstance(item, BadLine))
    assert (bad.file, bad.line) == (str(b), 2)
    assert bad.error == f"id must be unique, got 'a' again after {a}:1. Rename one of them."


def test_other_arguments_go_to_the_record(tmp_path, monkeypatch):
    def read(record, fields, *, layout):
        return Trace(record["question"], layout, fields["answer"])

    monkeypatch.setattr(Trace, "from_record", read)
    ((_, trace),) = read_traces(write(tmp_path / "t", GOOD), {"answer": "2"}, layout="x")
    assert (trace.reasoning, trace.answer) == ("x", "2")


def test_a_mistake_in_the_paths_is_said_at_once(tmp_path):
    with pytest.raises(ValueError, match="must match some files"):
        read_traces(str(tmp_path / "*.jsonl"))


@pytest.mark.slow(reason="reads 200,000 lines")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """Measured in a process of its own."""
    path = tmp_path / "traces.jsonl.gz"
    line = json.dumps({**GOOD, "id": None, "reasoning": "r" * 200}).encode() + b"\n"
    code = f"""
import psutil
from segattr.dataset import read_traces
used = []
for place, trace in read_traces({str(path)!r}):
    if place.number in (1000, 200_000):
        used.append(psutil.Process().memory_info().rss)
print(used[1] - used[0])
"""
    path.write_bytes(gzip.compress(line * 200_000, compresslevel=1))
    command = [sys.executable, "-c", code]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 2**21  # of 50 MB


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": ' + b"[" * 100_000, "brackets nested too deep"),
        (b'{"id": "a", "score": NaN}', "the line must be JSON, got NaN. Use null"),
    ],
)
def test_json_that_is_none(tmp_path, line, message):
    ((_, bad),) = read_traces(write(tmp_path / "traces.jsonl", line))
    assert message in bad.error
