"""Reading traces line by line, and files that survive crashes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from segattr import Trace
from segattr.dataset.jsonl import BadLine, ScoredWriter, read_scored, read_traces
from segattr.dataset.record import RECORD_KEYS

GOOD = {"id": "a", "question": "q", "reasoning": "r", "answer": "1"}
RECORD = {"id": "a", **dict.fromkeys(sorted(RECORD_KEYS - {"id"})), "settings": {"tau": 0.7}}


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
    found = dict(read_traces(path))
    assert [line for line, item in found.items() if isinstance(item, Trace)] == [1, 9]
    assert found[9].id == "line 9"
    errors = {line: item.error for line, item in found.items() if isinstance(item, BadLine)}
    assert errors.keys() == {2, 4, 5, 6, 7, 8}
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
        *(("segments", value, "segments must be a list of strings") for value in (12, True, 2.5)),
        ("segments", {"r": 1}, "segments must be a list of strings"),
        ("segments", [1, 2], "segments must be a list of strings"),
        *(("messages", [{**CHAT[0], "role": role}, CHAT[1]], "role must be text, got")
          for role in (["x"], {}, 1, None)),
        ("messages", [CHAT[0], {**CHAT[1], "role": ["assistant"]}], "role must be text, got"),
        ("messages", [{"from": ["gpt"], "value": "q"}, CHAT[1]], "role must be text, got"),
        ("messages", [{**CHAT[0], "content": 3}, CHAT[1]], "question must be a string or chat"),
        ("messages", [CHAT[0], {**CHAT[1], "content": ["r"]}], "content must be a string"),
        ("reasoning", ["r"], "reasoning must be text"),
        ("answer", [1], "answer must be text"),
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


def test_written_records_come_back(tmp_path):
    path = tmp_path / "out.jsonl"
    with ScoredWriter(path, {"tau": 0.7}) as writer:
        writer.write({**RECORD, "text": "naïve 😀"})
        assert [record["text"] for record in read_scored(path)] == [
            "naïve 😀"
        ]  # before it is closed


def test_an_existing_file_is_not_touched_unasked(tmp_path):
    path = tmp_path / "out.jsonl"
    with ScoredWriter(path, {"tau": 0.7}) as writer:
        writer.write(RECORD)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="--resume to continue it, --overwrite to replace it"):
        ScoredWriter(path, {"tau": 0.7})
    assert path.read_bytes() == before
    with ScoredWriter(path, {"tau": 0.7}, overwrite=True) as writer:
        assert path.read_bytes() == before  # there is nothing yet to put in its place
        writer.write({**RECORD, "id": "b"})
        writer.write({**RECORD, "id": "c"})
    assert [record["id"] for record in read_scored(path)] == ["b", "c"]


def test_resuming_knows_what_is_done_and_drops_half_a_line(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(RECORD) + "\n" + json.dumps({**RECORD, "id": "b"})[:-9])
    with ScoredWriter(path, {"tau": 0.7}, resume=True) as writer:
        assert writer.done == {"a"}
        writer.write({**RECORD, "id": "c"})
    assert [record["id"] for record in read_scored(path)] == ["a", "c"]


def test_a_file_with_other_settings_is_not_continued(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text(json.dumps(RECORD) + "\n")
    with pytest.raises(ValueError, match=r"got tau=0.7 instead of 0.9"):
        ScoredWriter(path, {"tau": 0.9}, resume=True)


@pytest.mark.parametrize("content", ['{"hello": 1}\n', '{"hello": 1}', "notes", "a\nb", "\xff\n"])
def test_other_files_are_not_continued_or_cut(tmp_path, content):
    path = tmp_path / "notes.jsonl"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="must hold scored traces, got something else"):
        ScoredWriter(path, {}, resume=True)
    assert path.read_text(encoding="latin-1") == content


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    """A real limit on the file's size, in a process of its own."""
    path = tmp_path / "out.jsonl"
    code = f"""
import resource, signal
from segattr.dataset.jsonl import ScoredWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
record = {RECORD!r}
with ScoredWriter({str(path)!r}, {{}}) as writer:
    writer.write(record)
    try:
        writer.write({{**record, "text": "x" * 2000}})
    except OSError:
        print("refused")
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "refused\n"
    assert [record["id"] for record in read_scored(path)] == ["a"]
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[" * 100_000, "brackets nested too deep"),
        (b'{"id": "a", "score": NaN}', "got NaN, which is none"),
    ],
)
def test_json_that_is_none(tmp_path, line, message):
    ((_, bad),) = read_traces(write(tmp_path / "traces.jsonl", line))
    assert message in bad.error


def test_nan_is_never_written(tmp_path):
    with (
        ScoredWriter(tmp_path / "out.jsonl", {}) as writer,
        pytest.raises(ValueError, match="not JSON compliant"),
    ):
        writer.write({**RECORD, "score": float("nan")})
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_a_whole_record_counts_though_its_line_has_no_end(tmp_path):
    """As an editor may leave it; only what a crash cut short is passed over."""
    path = tmp_path / "scored.jsonl"
    lines = [json.dumps({**RECORD, "id": name}) for name in "ab"]
    path.write_text("\n".join(lines))
    assert [record["id"] for record in read_scored(path)] == ["a", "b"]
    with ScoredWriter(path, RECORD["settings"], resume=True) as writer:
        assert writer.done == {"a", "b"}
        writer.write({**RECORD, "id": "c"})
    assert [record["id"] for record in read_scored(path)] == ["a", "b", "c"]


def test_a_record_without_settings_is_none(tmp_path):
    path = tmp_path / "scored.jsonl"
    path.write_text(json.dumps(RECORD) + "\n" + json.dumps({**RECORD, "settings": None}) + "\n")
    with pytest.raises(ValueError, match="got something else in line 2"):
        list(read_scored(path))
