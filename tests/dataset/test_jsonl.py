"""Files of scored traces that survive crashes, and what a damaged one costs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from tiny import make_scored

from segattr.dataset import SchemaError, ScoredWriter, read_scored

ASKED = {"tau": 0.7}


def scored(name: str = "a", **changes):
    """Of a text of its own."""
    question = f"question {name}"
    digest = replace(make_scored().trace, question=question).digest
    changes = {"question": question, "digest": digest, **changes}
    return replace(make_scored(), id=name, asked=ASKED, **changes)


def line(name: str = "a", **changes) -> str:
    return json.dumps({**scored(name).to_record(), **changes})


def ids(path) -> list[str]:
    return [one.id for one in read_scored(path)]


def test_what_was_written_comes_back(tmp_path):
    path = tmp_path / "out.jsonl"
    given = scored(metadata={"text": "naïve 😀"})
    with ScoredWriter(path, ASKED) as writer:
        writer.write(given)
        assert list(read_scored(path)) == [given]  # before it is closed


def test_an_existing_file_is_not_touched_unasked(tmp_path):
    path = tmp_path / "out.jsonl"
    with ScoredWriter(path, ASKED) as writer:
        writer.write(scored())
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="resume=True to continue it, overwrite=True to"):
        ScoredWriter(path, ASKED)
    assert path.read_bytes() == before
    with ScoredWriter(path, ASKED, overwrite=True) as writer:
        assert path.read_bytes() == before  # there is nothing yet to put in its place
        writer.write(scored("b"))
        writer.write(scored("c"))
    assert ids(path) == ["b", "c"]


def test_resuming_knows_what_is_done_and_drops_half_a_line(tmp_path):
    path = tmp_path / "out.jsonl"
    for cut in (1, 9, 200, len(line("b")) - 5):
        path.write_text(line("a") + "\n" + line("b")[:-cut])
        with ScoredWriter(path, ASKED, resume=True) as writer:
            assert writer.holds(scored("a").trace)
            assert not writer.holds(scored("b").trace)
            writer.write(scored("c"))
        assert ids(path) == ["a", "c"]


def test_a_trace_is_known_by_its_texts(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text(line("a") + "\n")
    with ScoredWriter(path, ASKED, resume=True) as writer:
        assert writer.holds(replace(scored("a").trace, id="another"))
        assert not writer.holds(replace(scored("a").trace, answer="another"))
        assert not writer.wrote(scored("a").trace)
        writer.write(scored("b"))
        assert writer.wrote(replace(scored("b").trace, id=None))
        assert (writer.has_id("b"), writer.has_id("another")) == (True, False)


def test_an_id_is_written_once(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text(line("a") + "\n")
    with ScoredWriter(path, ASKED, resume=True) as writer:
        writer.write(scored("b"))
        for name in "ab":
            with pytest.raises(ValueError, match=f"got '{name}', which is another text in .*out"):
                writer.write(replace(scored("c"), id=name))
    assert ids(path) == ["a", "b"]


def test_a_file_that_was_asked_something_else_is_not_continued(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text(line() + "\n")
    with pytest.raises(ValueError, match=r"got tau=0.7 instead of 0.9"):
        ScoredWriter(path, {"tau": 0.9}, resume=True)


@pytest.mark.parametrize("content", ['{"hello": 1}\n', '{"hello": 1}', "notes", "a\nb", "\xff\n"])
def test_other_files_are_not_continued_or_cut(tmp_path, content):
    path = tmp_path / "notes.jsonl"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="line 1: the line must be a scored trace"):
        ScoredWriter(path, {}, resume=True)
    assert path.read_text(encoding="latin-1") == content
    with pytest.raises(ValueError, match="line 1: the line must be a scored trace"):
        list(read_scored(path, left_out=[]))


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    """A real limit on the file's size, in a process of its own."""
    path = tmp_path / "out.jsonl"
    (tmp_path / "in.jsonl").write_text(line())
    code = f"""
import resource, signal
from dataclasses import replace
from segattr.dataset import ScoredWriter, read_scored
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
(scored,) = read_scored({str(tmp_path / "in.jsonl")!r})
with ScoredWriter({str(path)!r}) as writer:
    writer.write(scored)
    try:
        writer.write(replace(scored, id="b", metadata={{"text": "x" * 5000}}))
    except OSError:
        print("refused")
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "refused\n"
    assert ids(path) == ["a"]
    assert path.read_bytes().endswith(b"}\n")


def test_nan_is_never_written(tmp_path):
    with (
        ScoredWriter(tmp_path / "out.jsonl") as writer,
        pytest.raises(ValueError, match="not JSON compliant"),
    ):
        writer.write(scored(metadata={"score": float("nan")}))
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_a_whole_record_counts_though_its_line_has_no_end(tmp_path):
    """As an editor may leave it; only what a crash cut short is passed over."""
    path = tmp_path / "scored.jsonl"
    path.write_text("\n".join([line("a"), line("b")]))
    assert ids(path) == ["a", "b"]
    with ScoredWriter(path, ASKED, resume=True) as writer:
        assert writer.holds(scored("b").trace)
        writer.write(scored("c"))
    assert ids(path) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (line("b", input_ids=[-1]), r"Expected `int` >= 0 - at `\$.input_ids\[0\]`"),
        (line("a"), "id must be unique, got 'a' as in line 1"),
        ("[" * 100_000, "the line must be a scored trace"),
        ("garbage", "the line must be a scored trace"),
        ("[1, 2]", "the line must be a scored trace"),
    ],
)
def test_a_damaged_record_is_left_out_by_name_and_the_others_read(tmp_path, bad, message):
    path = tmp_path / "scored.jsonl"
    path.write_text("\n".join([line("a"), bad, line("c"), ""]))
    left_out = []
    assert [one.id for one in read_scored(path, left_out)] == ["a", "c"]
    assert [one.line for one in left_out] == [2]
    with pytest.raises(ValueError, match=f"scored.jsonl, line 2: .*{message}"):
        list(read_scored(path))


@pytest.mark.parametrize("schema", [0, 2, "3", None])
def test_a_file_of_another_schema_is_refused_as_a_whole(tmp_path, schema):
    path = tmp_path / "scored.jsonl"
    path.write_text(line(schema=schema) + "\n")
    with pytest.raises(SchemaError, match="line 1: a scored trace must be of schema 3, got"):
        list(read_scored(path, left_out=[]))


def test_a_file_from_before_schemas_is_refused_by_name(tmp_path):
    path = tmp_path / "scored.jsonl"
    path.write_text('{"id": "a", "segments": [], "token_scores": [0.5], "settings": {}}\n')
    with pytest.raises(SchemaError, match=r"got None: another version .* Score the traces again"):
        list(read_scored(path, left_out=[]))
