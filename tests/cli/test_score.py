"""``segattr score``: files, messages and exit codes, as a user meets them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pytest
from tiny import SCORE

from segattr.cli.main import main
from segattr.dataset import read_scored
from segattr.demo import TRACES


def test_score_then_show(traces, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert (
        main(["score", str(traces), *SCORE, "--out", str(out), "--tau", "0.5", "--beta", "1"]) == 0
    )
    summary = capsys.readouterr().err
    assert "3 scored" in summary
    assert "traces/min" in summary
    assert "% (above 5% for 3 traces)" in summary  # two points are far too few
    records = list(read_scored(out))
    assert [record.id for record in records] == ["easy-01", "easy-02", "easy-03"]
    for record in records:
        assert sum(segment.strength for segment in record.segments) == pytest.approx(1)
        assert (record.evaluations, record.scorer.tau, record.ran["rule"]) == (2, 0.5, "midpoint")

    assert main(["show", str(out), "--id", "easy-02"]) == 0
    shown = capsys.readouterr().out
    assert "trace easy-02" in shown
    for number, segment in enumerate(records[1].segments, start=1):
        assert records[1].texts[number - 1].strip("\n") in shown
        mark = "+" if segment.kept else "-"
        assert f"{mark} {number:>3}  " in shown
        assert f"strength {segment.strength:6.1%}  consistency {segment.consistency:.2f}" in shown


def test_the_scored_file_is_a_training_set(traces, tmp_path):
    from segattr import LossMaskCollator

    out = tmp_path / "out.jsonl"
    main(["score", str(traces), *SCORE, "--out", str(out)])
    batch = LossMaskCollator(0)([scored.row() for scored in read_scored(out)])
    assert batch["labels"].shape[0] == 3


def test_bad_lines_are_reported_and_the_others_scored(traces, tmp_path, capsys):
    good = traces.read_text().splitlines()
    traces.write_text("\n".join([good[0], '{"id": "broken', good[1], '{"question": "q"}', good[0]]))
    out = tmp_path / "out.jsonl"
    assert main(["score", str(traces), *SCORE, "--out", str(out)]) == 1
    errors = capsys.readouterr().err
    assert "traces.jsonl:2: failed: the line must be JSON" in errors
    assert "traces.jsonl:4: failed: reasoning must be given" in errors
    assert "traces.jsonl:5: failed: id must be unique" in errors
    assert "2 scored, 3 failed" in errors
    assert len(list(read_scored(out))) == 2


@pytest.mark.parametrize(("policy", "code"), [("error", 1), ("skip", 0)])
def test_traces_that_are_too_long(traces, tmp_path, capsys, policy, code):
    arguments = ["score", str(traces), *SCORE, "--out", str(tmp_path / "out.jsonl")]
    assert main([*arguments, "--max-length", "100", "--too-long", policy]) == code
    errors = capsys.readouterr().err
    assert "must fit max_length = 100 tokens, got" in errors
    assert "3 too long" in errors


def test_resume_scores_the_rest(traces, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    arguments = ["score", str(traces), *SCORE, "--out", str(out)]
    main(arguments)
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    assert main(arguments) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0
    assert "done before" in capsys.readouterr().err
    assert out.read_bytes() == whole
    assert main([*arguments, "--resume", "--tau", "0.9"]) == 2
    assert "tau=0.7 instead of 0.9" in capsys.readouterr().err


def test_own_keywords_and_fields(traces, tmp_path):
    record = json.loads(traces.read_text().splitlines()[0])
    record["cot"] = record.pop("reasoning")
    traces.write_text(json.dumps(record))
    keywords = tmp_path / "keywords.txt"
    keywords.write_text("\\n\\nWait\n")
    out = tmp_path / "out.jsonl"
    arguments = ["--keywords", str(keywords), "--field", "reasoning=cot"]
    assert main(["score", str(traces), *SCORE, "--out", str(out), *arguments]) == 0
    (scored,) = read_scored(out)
    assert len(scored.segments) == record["cot"].count("\n\nWait") + 1


def test_the_input_is_never_overwritten(traces, capsys):
    before = traces.read_bytes()
    assert main(["score", str(traces), *SCORE, "--out", str(traces), "--overwrite"]) == 2
    assert "must be another file than TRACES" in capsys.readouterr().err
    assert traces.read_bytes() == before


def test_overwrite_keeps_the_old_file_until_there_is_something_new(traces, tmp_path):
    out = tmp_path / "out.jsonl"
    arguments = ["score", str(traces), *SCORE, "--out", str(out)]
    main(arguments)
    before = out.read_bytes()
    assert main([*arguments, "--overwrite", "--model", "no-such-model"]) == 2
    assert out.read_bytes() == before
    assert main([*arguments, "--overwrite", "--tau", "0.5"]) == 0
    assert len(list(read_scored(out))) == 3


def test_whatever_one_trace_raises_the_others_are_scored(traces, tmp_path, capsys, monkeypatch):
    """A chat template that refuses a role raises an error of its own kind."""
    from segattr.cli import score

    encode = score.encode

    def fail_for_one(trace, *arguments, **settings):
        if trace.id == "easy-02":
            raise LookupError("system role not supported")
        return encode(trace, *arguments, **settings)

    monkeypatch.setattr(score, "encode", fail_for_one)
    out = tmp_path / "out.jsonl"
    assert main(["score", str(traces), *SCORE, "--out", str(out)]) == 1
    errors = capsys.readouterr().err
    assert "traces.jsonl:2: failed: LookupError: system role not supported" in errors
    assert [record.id for record in read_scored(out)] == ["easy-01", "easy-03"]


@pytest.mark.slow(reason="waits for a process to score")
def test_interrupt_leaves_a_readable_file(tmp_path):
    """A real process, a real SIGINT in the middle."""
    traces, out = tmp_path / "traces.jsonl", tmp_path / "out.jsonl"
    records = [json.loads(line) for line in TRACES.read_text().splitlines()]
    many = [{**record, "id": f"{record['id']}-{i}"} for i in range(20) for record in records]
    traces.write_text("".join(json.dumps(record) + "\n" for record in many))
    command = [sys.executable, "-m", "segattr", "score", str(traces), *SCORE, "--out", str(out)]
    # A shell's background jobs ignore SIGINT, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 60
    while not (out.exists() and out.read_bytes().count(b"\n") >= 2):
        assert time.monotonic() < deadline, "nothing was written in time"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    scored = list(read_scored(out))
    assert 2 <= len(scored) < len(many)
    said = int(re.search(r"holds (\d+) more traces. Continue with --resume", errors)[1])
    assert said in (len(scored) - 1, len(scored))  # it may come between a line and its count


def test_undecided_segments_are_counted_and_shown(traces, tmp_path, capsys):
    out = str(tmp_path / "out.jsonl")
    options = ["--model", "bundled"]
    command = ["score", str(traces), *options, "--out", out, "--max-evaluations", "9"]
    assert main([*command, "--tau", "0.5"]) == 0
    assert "traces have undecided segments" in capsys.readouterr().err
    records = list(read_scored(out))
    unsure = [r for r in records if any(segment.undecided for segment in r.segments)]
    assert unsure
    assert all(record.converged is False for record in unsure)
    assert main(["show", out, "--id", unsure[0].id]) == 0
    shown = capsys.readouterr().out
    assert "not converged" in shown
    assert "undecided" in shown
