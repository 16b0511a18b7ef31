"""What paths lead to: files told by their bytes, and damage that costs no more than it must."""

from __future__ import annotations

import gzip
import json
import os
import threading

import pyarrow
import pytest

from segattr.dataset.json_text import BadLine
from segattr.dataset.sources import find_sources, list_files, read_records

RECORDS = [{"n": n, "text": os.urandom(40).hex()} for n in range(3000)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def read(*paths) -> list:
    return list(read_records(find_sources(paths)))


def zstd(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


SKIPPED = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"  # a frame of zstd without data


@pytest.mark.parametrize(
    ("pack", "name"),
    [
        (lambda content: content, "plain.parquet"),
        (gzip.compress, "named.jsonl"),
        (lambda content: gzip.compress(content[:500]) + gzip.compress(content[500:]), "two.gz"),
        (lambda content: gzip.compress(b"\xef\xbb\xbf" + content), "marked.gz"),
        (zstd, "z.jsonl.zst"),
        (lambda content: zstd(content[:500]) + zstd(content[500:]), "two.zst"),
        (lambda content: SKIPPED + zstd(content), "skipped.zst"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("form", ["lines", "array"])
def test_a_file_is_what_its_bytes_say(tmp_path, pack, name, form):
    content = LINES if form == "lines" else json.dumps(RECORDS, indent=1).encode()
    (tmp_path / name).write_bytes(pack(content))
    found = read(tmp_path / name)
    assert [record for _, record in found] == RECORDS
    shares = [place.read for place, _ in found]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_empty_files_hold_nothing(tmp_path):
    for name, content in (("a", b""), ("b.gz", gzip.compress(b"")), ("c.zst", zstd(b""))):
        (tmp_path / name).write_bytes(content)
    assert read(*sorted(tmp_path.iterdir())) == []


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
@pytest.mark.parametrize("form", ["lines", "array"])
def test_a_packed_file_cut_short_is_read_as_far_as_it_goes(tmp_path, pack, form):
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    content = LINES if form == "lines" else json.dumps(RECORDS).encode()
    packed = pack(content)
    cut.write_bytes(packed[: len(packed) * 3 // 4])
    whole.write_bytes(b'{"n": 1}')
    *good, (place, bad), (_, last) = read(cut, whole)
    assert [record for _, record in good] == RECORDS[: len(good)]
    assert len(good) > len(RECORDS) / 4
    assert (place.number, bad.line, bad.file) == (len(good) + 1, len(good) + 1, str(cut))
    assert "the file must be whole, got" in bad.error
    assert last == {"n": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(LINES)[:9], "the file must be whole, got Compressed file ended before"),
        (b"\x1f\x8b not gzip", "the file must be whole, got Unknown compression method"),
        (b"PAR1 and no more", "the file must be whole, got Parquet magic bytes not found"),
        (b"ARROW1 and no more", "the file must be whole, got"),
        (b"\xff\xff\xff\xff and no more", "the file must be whole, got"),
        (gzip.compress(b"PAR1\0\0\0"), "must hold JSON objects, Parquet or Arrow, got a binary fi"),
        (b"BZh91AY", "got text that begins with 'BZh91AY'. Write one JSON object a line."),
    ],
)
def test_an_unreadable_file_is_one_error_before_any_is_read(tmp_path, content, message):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_bytes(LINES)
    bad.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.jsonl: ") as raised:
        find_sources([good, bad])
    assert message in str(raised.value)


def test_a_file_that_goes_away_costs_the_others_nothing(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(b'{"n": 1}')
    sources = find_sources([tmp_path / "a", tmp_path / "b"])
    (tmp_path / "a").unlink()
    (_, bad), (_, good) = read_records(sources)
    assert "No such file" in bad.error
    assert good == {"n": 1}


def test_places_name_the_file_only_where_there_are_several(tmp_path):
    (tmp_path / "deep").mkdir()
    paths = [tmp_path / "a.jsonl", tmp_path / "b.json", tmp_path / "deep" / "a.jsonl"]
    for path in paths:
        path.write_bytes(b'[{"n": 1}]' if path.suffix == ".json" else b'\n{"n": 1}')
    ((alone, _),) = read(paths[0])
    assert (alone.name, str(alone)) == ("line 2", f"{paths[0]}:2")
    found = [place for place, _ in read(*paths[:2])]
    assert [place.name for place in found] == ["a.jsonl, line 2", "b.json, record 1"]
    assert str(found[1]) == f"{paths[1]}, record 1"
    ends = [place.name.partition(",")[0] for place, _ in read(*paths)]
    assert ends == [f"{tmp_path.name}/a.jsonl", f"{tmp_path.name}/b.json", "deep/a.jsonl"]
    assert [place.read for place, _ in read(*paths[::2])] == [0.5, 1]


def test_patterns_are_sorted_and_must_match(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "c[1].jsonl", "c1.jsonl"):
        (tmp_path / name).write_bytes(b'{"n": 1}')

    def names(path) -> list[str]:
        return [os.path.basename(file) for file in list_files(path)]

    assert names(f"{tmp_path}/[ab].jsonl") == ["a.jsonl", "b.jsonl"]
    assert names(f"{tmp_path}/c[1].jsonl") == ["c[1].jsonl"]  # a file before a pattern
    assert names(tmp_path / "*.jsonl") == ["*.jsonl"]  # a Path is taken as it is
    with pytest.raises(ValueError, match=r"d\*\.jsonl must match some files, got none"):
        list_files(f"{tmp_path}/d*.jsonl")


def test_mistakes_in_the_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_sources(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="got another folder"):
        find_sources(tmp_path)
    with pytest.raises(ValueError, match="paths must name a file, got none"):
        find_sources([])
    with pytest.raises(ValueError, match="standard input, -, once, got it twice"):
        find_sources(["-", "-"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (LINES, RECORDS),
        (gzip.compress(LINES), RECORDS),
        (json.dumps(RECORDS).encode(), RECORDS),
        (b"id,question\n", "got text that begins with 'id,question'"),
        (b"PAR1", "a stream must hold JSON, got Parquet. Give the name of the file."),
    ],
    ids=["lines", "gzip", "array", "csv", "parquet"],
)
def test_a_pipe_is_read_once(tmp_path, content, expected):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    found = read(pipe)
    writer.join(timeout=10)
    assert not writer.is_alive()
    assert all(place.read is None for place, _ in found)
    records = [record for _, record in found]
    if isinstance(expected, str):
        (bad,) = records
        assert isinstance(bad, BadLine)
        assert expected in bad.error
    else:
        assert records == expected
