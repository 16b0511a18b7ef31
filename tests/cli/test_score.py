"""``segattr score``: files, messages and exit codes, as a user meets them."""

from __future__ import annotations

import copy
import json
import re
import signal
import statistics
import subprocess
import sys
import time

import pytest
from tiny import ROUGH, SCORE, make_model

from segattr.cli.main import main
from segattr.dataset import read_scored
from segattr.demo import TRACES
from segattr.quadrature.refinement import MAX_EVALUATIONS

AUTO = ["--model", "bundled", "--rule", "auto", "--scope", "all"]
FEW = [*AUTO, "--max-evaluations", "9", "--max-gap", "1e9"]


def test_score_then_show(traces, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert (
        main(["score", str(traces), *SCORE, "--out", str(out), "--tau", "0.5", "--beta", "1"]) == 0
    )
    summary = capsys.readouterr().err
    assert "3 scored" in summary
    assert "traces/min" in summary
    assert (
        "flagged gap, 3 traces: the completeness gap is wide" in summary
    )  # two points are far too few
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


def test_finite_propagation_end_to_end_is_the_default(traces, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    command = ["score", str(traces), "--model", "bundled", "--out", str(out)]
    assert main(command) == 0
    assert "1 evaluation in the median, a completeness gap of 0.0%" in capsys.readouterr().err
    records = list(read_scored(out))
    assert len(records) == 3
    for record in records:
        assert (record.method, record.evaluations) == ("finite-propagation", 1)
        assert (record.agreement, record.trustworthy) == (None, True)
        assert record.completeness_gap < 1e-4
        assert not record.flags
        ran = [record.ran[name] for name in ("rule", "steps", "split", "scope")]
        assert ran == ["secant", 1, "mean", "reasoning"]
        assert (record.asked["rule"], record.asked["scope"]) == ("secant", "reasoning")
        # What the filter would be is said, and what it was asked to be: off.
        assert record.scorer.beta == record.asked["beta"] == 1.0
    assert main([*command, "--resume"]) == 0
    assert main([*command, "--resume", "--rule", "secant", "--scope", "reasoning"]) == 0
    assert main([*command, "--resume", "--beta", "0.8"]) == 2
    assert main(["show", str(out), "--id", "easy-02"]) == 0
    assert "1 evaluation (secant), completeness gap 0.0%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "autograd"], "--engine must be 'fused' or 'auto' with --rule secant"),
        (["--tolerance", "0.1"], "--tolerance must be left out with --rule secant"),
        (["--max-evaluations", "9"], "It belongs to Integrated Gradients. Pass --rule auto."),
    ],
)
@pytest.mark.parametrize("named", [[], ["--rule", "secant"]])
def test_what_finite_propagation_cannot_do(named, options, message, traces, tmp_path, capsys):
    command = ["score", str(traces), "--model", "bundled", "--out", str(tmp_path / "out.jsonl")]
    assert main([*command, *named, *options]) == 2
    shown = capsys.readouterr()
    assert message in re.sub(r"[\s│]+", " ", shown.err + shown.out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--steps", "50"],
            "--steps must be left out with no rule named, got 50. Name one: --rule",
        ),
        (["--rule", "secant", "--steps", "0"], "--steps must be at least 1 with --rule secant"),
    ],
)
def test_a_number_of_steps_says_of_what(options, message, traces, tmp_path, capsys):
    command = ["score", str(traces), "--model", "bundled", "--out", str(tmp_path / "out.jsonl")]
    assert main([*command, *options]) == 2
    shown = capsys.readouterr()
    assert message in re.sub(r"[\s│]+", " ", shown.err + shown.out)


def test_a_model_that_it_cannot_run_is_told_what_can(traces, tokenizer, tmp_path, capsys):
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 4096}
    make_model("gpt2", **sizes).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    command = ["score", str(traces), "--model", str(tmp_path / "model"), "--require", "none"]
    command += ["--out", str(tmp_path / "out.jsonl")]
    assert main(command) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--rule secant must be able to run the model" in said
    assert "Pass --rule auto. That is Integrated Gradients, for any causal LM" in said
    assert main([*command, "--rule", "auto", "--max-evaluations", "9", "--resume"]) == 0
    assert {one.ran["engine"] for one in read_scored(tmp_path / "out.jsonl")} == {"autograd"}


def test_a_file_of_integrated_gradients_is_not_continued_with_the_default(traces, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    command = ["score", str(traces), "--model", "bundled", "--require", "none", "--out", str(out)]
    gradients = ["--rule", "auto", "--scope", "all", "--max-evaluations", "9"]
    assert main([*command, *gradients]) == 0
    assert main([*command, "--resume"]) == 2
    assert "rule='auto' instead of 'secant'" in " ".join(capsys.readouterr().err.split())
    assert main([*command, "--resume", *gradients[:2], *gradients[4:]]) == 2
    assert "scope='all' instead of 'reasoning'" in " ".join(capsys.readouterr().err.split())
    assert main([*command, "--resume", *gradients]) == 0


def test_the_segment_before_the_last_can_be_kept_too(traces, tmp_path):
    out = tmp_path / "out.jsonl"
    command = ["score", str(traces), *SCORE, "--out", str(out), "--beta", "0"]
    assert main([*command, "--keep-second-to-last"]) == 0
    for record in read_scored(out):
        assert record.scorer.keep_second_to_last
        inner = [False] * (len(record.segments) - 3)
        assert [s.kept for s in record.segments] == [True, *inner, True, True]


def test_the_scored_file_is_a_training_set(traces, tmp_path):
    from segattr import LossMaskCollator

    out = tmp_path / "out.jsonl"
    main(["score", str(traces), *SCORE, "--out", str(out)])
    batch = LossMaskCollator(0)([scored.row() for scored in read_scored(out)])
    assert batch["labels"].shape[0] == 3


def test_bad_lines_are_reported_and_the_others_scored(traces, tmp_path, capsys):
    good = traces.read_text().splitlines()
    taken = json.dumps({**json.loads(good[2]), "id": "easy-01"})
    lines = [good[0], '{"id": "broken', good[1], '{"question": "q"}', taken, good[0]]
    traces.write_text("\n".join(lines))
    out = tmp_path / "out.jsonl"
    assert main(["score", str(traces), *SCORE, "--out", str(out)]) == 1
    errors = capsys.readouterr().err
    assert "traces.jsonl:2: failed: the line must be JSON" in errors
    assert "traces.jsonl:4: failed: reasoning must be given" in errors
    assert "traces.jsonl:5: failed: id must be unique" in errors
    assert "2 scored, 3 failed, 1 duplicate" in errors
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


def test_a_file_of_another_agreement_is_not_continued(traces, tmp_path, capsys):
    out = str(tmp_path / "out.jsonl")
    command = ["score", str(traces), *FEW[:-2], "--require", "none", "--out", out]
    assert main([*command, "--agreement", "0.5"]) == 0
    records = list(read_scored(out))
    assert [record.ran["agreement"] for record in records] == [0.5] * 3
    assert main([*command, "--resume", "--agreement", "0.9"]) == 2
    assert "agreement=0.5 instead of 0.9" in capsys.readouterr().err
    assert main([*command, "--resume", "--agreement", "0.5"]) == 0
    assert "3 done before" in capsys.readouterr().err


def test_resume_knows_a_text_whatever_its_line_id_or_file(traces, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    records = [json.loads(line) for line in traces.read_text().splitlines()]
    first, second, third = [{**record, "id": None} for record in records]

    def score(*lines, to=traces):
        to.write_text("".join(json.dumps(line) + "\n" for line in lines))
        code = main(["score", str(to), *SCORE, "--out", str(out), "--resume"])
        return code, capsys.readouterr().err

    code, said = score(first)
    assert (code, "1 scored" in said) == (0, True)
    code, said = score(second, first, {**first, "id": "own"})  # "line 1" is another text now
    assert (code, "1 scored, 2 done before" in said) == (0, True)
    code, said = score(first, {**third, "id": "line 1"}, to=tmp_path / "more.jsonl")
    assert code == 1
    assert "more.jsonl:2: failed: id must be of one trace, got 'line 1', which is another" in said
    code, said = score({**third, "id": "c"}, to=tmp_path / "more.jsonl")
    assert code == 0
    scored = list(read_scored(out))
    assert [one.id for one in scored] == ["line 1", scored[1].digest, "c"]
    assert [one.reasoning for one in scored] == [record["reasoning"] for record in records]


def test_several_files_patterns_and_standard_input(traces, tmp_path):
    """A pipe can be read only once."""
    lines = traces.read_bytes().splitlines(keepends=True)
    traces.unlink()
    for name, line in zip(("a.json", "b.json"), lines, strict=False):
        (tmp_path / name).write_text(json.dumps([json.loads(line)], indent=1))
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "segattr", "score", "-", f"{tmp_path}/?.json"]
    command += [*SCORE, "--out", str(out)]
    given = lines[2] + b"broken\n"
    done = subprocess.run(command, input=given, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert b"-:2: failed: the line must be JSON" in done.stderr
    assert b"3 scored, 1 failed" in done.stderr
    assert [one.id for one in read_scored(out)] == ["easy-03", "easy-01", "easy-02"]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"[]"])
def test_no_traces_are_an_error_before_a_file_is_made(tmp_path, capsys, content):
    traces, out = tmp_path / "traces.jsonl", tmp_path / "out.jsonl"
    traces.write_bytes(content)
    assert main(["score", str(traces), *SCORE, "--out", str(out)]) == 2
    assert "TRACES must hold traces, got" in capsys.readouterr().err
    assert not out.exists()


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


def test_columns_layouts_and_marks_are_said_in_the_command(traces, tmp_path):
    record = json.loads(traces.read_text().splitlines()[0])
    thought = record.pop("reasoning")
    record |= {"solution": "Other.", "generations": ["no", f"<cot>\n{thought}</cot>So."]}
    record |= {"output": "1"}
    traces.write_text(json.dumps(record))
    out = tmp_path / "out.jsonl"
    arguments = ["--field", "reasoning=generations[1]", "--field", "response="]
    arguments += ["--marks", "<cot>", "</cot>", "--layout", "plain"]
    assert main(["score", str(traces), *SCORE, "--out", str(out), *arguments]) == 0
    (scored,) = read_scored(out)
    assert (scored.reasoning, scored.response) == (thought, "So.")
    assert main(["score", str(traces), *SCORE, "--out", str(out), *arguments, "--resume"]) == 0


def test_a_layout_that_is_none_is_refused(traces, tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "out.jsonl"), "--layout", "LIMO"]
    assert main(["score", str(traces), *SCORE, *arguments]) == 2
    assert "--layout must be one of 'auto', 'plain'" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["{}", "{}.none {}", "{}*", "-"])
def test_the_input_is_never_overwritten(traces, capsys, monkeypatch, given):
    before = traces.read_bytes()
    traces.with_name("traces.jsonl.none").write_bytes(before)
    paths = given.format(*[traces] * 2).split()
    with traces.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["score", *paths, *SCORE, "--out", str(traces), "--overwrite"]) == 2
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
    from segattr.cli import loading

    encode = loading.encode

    def fail_for_one(trace, *arguments, **settings):
        if trace.id == "easy-02":
            raise LookupError("system role not supported")
        return encode(trace, *arguments, **settings)

    monkeypatch.setattr(loading, "encode", fail_for_one)
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
    command = ["score", str(traces), *FEW[:-2], "--out", out]
    assert main([*command, "--tau", "0.5", "--require", "none"]) == 0
    summary = " ".join(capsys.readouterr().err.split())
    assert "3 traces have undecided segments" in summary
    records = list(read_scored(out))
    agreement = statistics.median(record.agreement for record in records)
    assert f", an expected agreement of {agreement:.1%}" in summary
    assert "flagged agreement, 3 traces: the scores did not converge, so more path" in summary
    for record in records:
        assert any(segment.undecided for segment in record.segments)
        assert record.converged is record.trustworthy is False
        assert "agreement" in record.flags
    assert main(["show", out, "--id", records[0].id]) == 0
    shown = capsys.readouterr().out
    assert f"kept segments expected to agree to {records[0].agreement:.1%}, not converged" in shown
    assert "\nflagged   the scores did not converge, so more path points may change" in shown
    assert "undecided" in shown


@pytest.mark.parametrize(
    ("options", "flag", "reason"),
    [
        (ROUGH, "gap", "the completeness gap is wide"),
        (FEW, "agreement", "the scores did not converge"),
    ],
)
def test_scores_that_cannot_be_trusted_are_left_out(
    traces, tmp_path, capsys, options, flag, reason
):
    out = tmp_path / "out.jsonl"
    command = ["score", str(traces), *options, "--out", str(out)]
    assert main(command) == 0
    assert list(read_scored(out)) == []
    said = " ".join(capsys.readouterr().err.split())
    assert f"traces.jsonl:3: left out: {reason}" in said
    assert "3 left out" in said
    assert f"left out for {flag}, 3 traces: {reason}" in said
    assert "See --max-evaluations" in said
    assert said.endswith("--require none also writes what was left out")


@pytest.mark.parametrize("options", [ROUGH, FEW])
@pytest.mark.parametrize("require", ["none", "", "rise,plain"])
def test_they_are_written_and_flagged_when_asked_for(traces, tmp_path, capsys, options, require):
    out = tmp_path / "out.jsonl"
    command = ["score", str(traces), *options, "--out", str(out), "--require", require]
    assert main(command) == 0
    records = list(read_scored(out))
    assert [record.trustworthy for record in records] == [False] * 3
    assert {flag for record in records for flag in record.flags} <= {"gap", "agreement"}
    said = capsys.readouterr().err
    assert "flagged " in said
    assert "left out" not in said


def test_the_widest_gap_that_is_asked_for_is_trusted(traces, tmp_path):
    out = tmp_path / "out.jsonl"
    assert main(["score", str(traces), *ROUGH, "--out", str(out), "--max-gap", "1e9"]) == 0
    assert [(scored.flags, scored.trustworthy) for scored in read_scored(out)] == [([], True)] * 3


@pytest.mark.parametrize(
    ("options", "cost"),
    [
        (ROUGH, "2 gradient evaluations a trace"),
        (FEW, "9 gradient evaluations a trace"),
        (AUTO, f"9 to {MAX_EVALUATIONS} gradient evaluations a trace"),
        (
            ["--model", "bundled"],
            "1 piece of finite propagation a trace, about 2 to 3 gradient evaluations",
        ),
    ],
)
def test_what_a_trace_costs_is_said_before_the_first(tmp_path, capsys, options, cost):
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{}\n")
    assert main(["score", str(broken), *options, "--out", str(tmp_path / "out.jsonl")]) == 1
    said = capsys.readouterr().err.split("\n")
    assert said[0] == f"segattr: {cost}"
    assert any("broken.jsonl:1: failed" in line for line in said[1:])


def as_file(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture
def flawed(records, tmp_path):
    """A good trace, one with a wrong answer, one of one segment, one that spells a token out."""
    good = records[0]
    return as_file(
        tmp_path / "flawed.jsonl",
        {**good, "id": "good"},
        {**good, "id": "wrong", "answer": "zebra zebra"},
        {**good, "id": "single", "reasoning": good["reasoning"].replace("\n\n", " ")},
        {**good, "id": "spelled", "reasoning": good["reasoning"] + " <eos> then."},
    )


def test_what_speaks_against_a_trace_is_flagged_counted_and_named(flawed, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert main(["score", flawed, *SCORE, "--max-gap", "1e9", "--out", str(out)]) == 0
    flags = {scored.id: scored.flags for scored in read_scored(out)}
    assert flags["good"] == []
    assert flags["wrong"] == ["rise"]
    assert flags["single"] == ["segments"]
    assert flags["spelled"] == ["plain"]
    errors = " ".join(capsys.readouterr().err.split())
    assert "flagged segments, 1 traces: the trace is a single segment" in errors
    assert "spelled spells out <eos>" in errors


def test_flagged_traces_are_left_out_when_asked(flawed, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    asked = ["--require", "rise,segments,plain", "--max-gap", "1e9"]
    assert main(["score", flawed, *SCORE, *asked, "--out", str(out)]) == 0
    assert [scored.id for scored in read_scored(out)] == ["good"]
    errors = " ".join(capsys.readouterr().err.split())
    assert "1 scored, 3 left out" in errors
    assert "flawed.jsonl:2: left out: the answer is no likelier" in errors
    out = tmp_path / "other.jsonl"
    assert main(["score", flawed, *SCORE, "--require", "gap", "--out", str(out)]) == 0
    assert list(read_scored(out)) == []
    assert main(["score", flawed, *SCORE, "--require", "rice", "--out", str(out)]) == 2
    assert "--require must be one of 'rise'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--segmenter", "paragraphs"], 8),
        (["--segmenter", "paragraphs", "--segment-tokens", "40"], None),
        (["--segmenter", "sentences"], None),
        (["--segmenter", "windows", "--segment-tokens", "8"], None),
        (["--segmenter", "entropy", "--segment-tokens", "8"], None),
    ],
)
def test_traces_may_be_cut_otherwise(traces, tmp_path, options, count):
    out = tmp_path / "out.jsonl"
    assert main(["score", str(traces), *SCORE, *options, "--out", str(out)]) == 0
    scored = next(iter(read_scored(out)))
    assert len(scored.segments) > 1
    assert count in (None, len(scored.segments))
    assert "".join(scored.texts) == scored.reasoning
    assert scored.asked["segmenter"] == options[1]


def test_marks_and_switches_are_options(traces, tmp_path):
    out = tmp_path / "out.jsonl"
    marks = ["--opening", "O\\n", "--closing", "[c]", "--end-of-turn", "[e]", "--stub", "[s]"]
    switches = ["--chat-template-kwargs", '{"thinking": true}']
    assert main(["score", str(traces), *SCORE, *marks, *switches, "--out", str(out)]) == 0
    asked = next(iter(read_scored(out))).asked
    assert asked["chat_template_kwargs"] == {"thinking": True}
    assert [asked[name] for name in ("opening", "closing", "stub")] == ["O\n", "[c]", "[s]"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--segmenter", "words"], "--segmenter must be one of"),
        (["--segmenter", "windows"], "--segment-tokens must be given for windows"),
        (["--segment-tokens", "9"], "read by other segmenters than keywords"),
        (["--segmenter", "sentences", "--segment-tokens", "0"], "must be at least 1, got 0"),
        (["--chat-template-kwargs", "[1]"], "--chat-template-kwargs must be a JSON object"),
        (["--max-gap", "nan"], "--max-gap must be at least 0"),
    ],
)
def test_bad_options_of_the_text(traces, tmp_path, capsys, options, message):
    out = ["--out", str(tmp_path / "out.jsonl")]
    assert main(["score", str(traces), *SCORE, *options, *out]) == 2
    words = capsys.readouterr().err.replace("│", " ").split()  # of a box around the message
    assert message in " ".join(words)


def test_a_keywords_file_may_start_with_a_byte_order_mark(traces, tmp_path):
    keywords, out = tmp_path / "keywords.txt", tmp_path / "out.jsonl"
    keywords.write_text("\\n\\nWait\n", encoding="utf-8-sig")
    options = ["--keywords", str(keywords), "--out", str(out)]
    assert main(["score", str(traces), *SCORE, *options]) == 0
    assert next(iter(read_scored(out))).asked["keywords"] == ["\n\nWait"]


def test_max_length_may_exceed_the_models_context(traces, tokenizer, tmp_path, capsys):
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 32}
    make_model("llama", **sizes).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    out = tmp_path / "out.jsonl"
    command = ["score", str(traces), "--model", str(tmp_path / "model"), *SCORE[2:]]
    assert main([*command, "--out", str(out)]) == 1
    assert "must fit the model's context = 32" in " ".join(capsys.readouterr().err.split())
    assert main([*command, "--max-length", "4096", "--out", str(out)]) == 0
    assert len(list(read_scored(out))) == 3


def test_the_first_trace_may_have_the_switch_that_the_template_wants(tokenizer, tmp_path, capsys):
    own = copy.deepcopy(tokenizer)
    own.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if "
        "add_generation_prompt %}<assistant>{{ '<think>' if thinking else '</think>' }}{% endif %}"
    )
    own.save_pretrained(tmp_path / "own")
    record = {"question": "What is 1 plus 2?", "reasoning": "Okay.", "answer": "3"}
    command = ["score", *SCORE, "--tokenizer", str(tmp_path / "own"), "--out"]
    asking = as_file(tmp_path / "a.jsonl", {**record, "chat_template_kwargs": {"thinking": True}})
    assert main([*command, str(tmp_path / "a"), asking]) == 0
    text = tokenizer.decode(next(iter(read_scored(tmp_path / "a"))).input_ids)
    assert text.startswith("<user>What is 1 plus 2?<assistant><think>Okay.")
    silent = as_file(tmp_path / "b.jsonl", record)
    capsys.readouterr()
    assert main([*command, str(tmp_path / "b"), silent]) == 2
    assert "the prompt must leave the thinking open" in " ".join(capsys.readouterr().err.split())
