"""The command as a user runs it: exit codes, files, messages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import pytest

from segattr.cli.main import main
from segattr.dataset.jsonl import read_scored
from segattr.demo import ASSETS, TRACES

PLACES = {"--model": str(ASSETS / "model"), "--tokenizer": str(ASSETS / "tokenizer")}
MODEL = [*(part for option in PLACES.items() for part in option), "--rule", "midpoint"]
MODEL += ["--steps", "2"]


@pytest.fixture
def traces(tmp_path):
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(TRACES.read_text().splitlines(keepends=True)[:3]))
    return path


def test_score_then_show(traces, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert (
        main(["score", str(traces), *MODEL, "--out", str(out), "--tau", "0.5", "--beta", "1"]) == 0
    )
    summary = capsys.readouterr().err
    assert "3 scored" in summary
    assert "traces/min" in summary
    assert "in the median, above 5% for 3 traces" in summary  # two points are far too few
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
    main(["score", str(traces), *MODEL, "--out", str(out)])
    batch = LossMaskCollator(0)([scored.row() for scored in read_scored(out)])
    assert batch["labels"].shape[0] == 3


def test_bad_lines_are_reported_and_the_others_scored(traces, tmp_path, capsys):
    good = traces.read_text().splitlines()
    traces.write_text("\n".join([good[0], '{"id": "broken', good[1], '{"question": "q"}', good[0]]))
    out = tmp_path / "out.jsonl"
    assert main(["score", str(traces), *MODEL, "--out", str(out)]) == 1
    errors = capsys.readouterr().err
    assert "traces.jsonl:2: failed: the line must be JSON" in errors
    assert "traces.jsonl:4: failed: reasoning must be given" in errors
    assert "traces.jsonl:5: failed: id must be unique" in errors
    assert "2 scored, 3 failed" in errors
    assert len(list(read_scored(out))) == 2


@pytest.mark.parametrize(("policy", "code"), [("error", 1), ("skip", 0)])
def test_traces_that_are_too_long(traces, tmp_path, capsys, policy, code):
    arguments = ["score", str(traces), *MODEL, "--out", str(tmp_path / "out.jsonl")]
    assert main([*arguments, "--max-length", "100", "--too-long", policy]) == code
    errors = capsys.readouterr().err
    assert "must fit max_length = 100 tokens, got" in errors
    assert "3 too long" in errors


def test_resume_scores_the_rest(traces, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    arguments = ["score", str(traces), *MODEL, "--out", str(out)]
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"traces": "missing.jsonl"}, "TRACES must be a regular file"),
        ({"--out": "no/such/folder/out.jsonl"}, "No such file or directory"),
        ({"--model": "no-such-model"}, "--model no-such-model could not be loaded"),
        ({"--tau": "2"}, "tau must be in"),
        ({"--rule": "midpoint", "--steps": "0"}, "needs at least 1 points"),
        ({"--steps": "5"}, "steps must be None with rule='auto', got 5"),
        ({"--max-evaluations": "8"}, "max_evaluations must be at least the 9 nodes"),
        ({"--tolerance": "0"}, "tolerance must be above 0, got 0"),
        ({"--rule": "missing.json"}, "No such file or directory: 'missing.json'"),
        ({"--baseline": "nonsense"}, "baseline must be one of"),
        ({"--device": "nonsense"}, "could not be loaded: RuntimeError"),
        ({"--max-memory": "inf"}, "infinity"),
        (
            {"--backend": "triton", "--device": "cpu"},
            "backend='triton' needs a CUDA tensor and Triton",
        ),
        ({"--max-length": "-5"}, "--max-length must be at least 1, got -5"),
        ({"--prompt-template": "Q: {q}"}, "--prompt-template must hold {question}"),
        ({"--keywords": "/dev/null"}, "--keywords must hold keywords"),
        ({"--keywords": "nonsense"}, "--keywords must be paper or retro-search or a file"),
    ],
)
def test_what_cannot_be_done_exits_with_2(traces, tmp_path, capsys, monkeypatch, change, message):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    options = {**PLACES, "--out": str(tmp_path / "out.jsonl"), **change}
    path = tmp_path / options.pop("traces", traces)
    arguments = ["score", str(path), *(part for option in options.items() for part in option)]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_pickled_weights_are_not_loaded(traces, tmp_path, capsys, demo):
    import shutil

    import torch

    folder = tmp_path / "pickled"
    shutil.copytree(ASSETS / "model", folder)
    (folder / "model.safetensors").unlink()
    torch.save(demo[0].state_dict(), folder / "pytorch_model.bin")
    out = tmp_path / "out.jsonl"
    arguments = ["score", str(traces), *MODEL, "--model", str(folder), "--out", str(out)]
    assert main(arguments) == 2
    assert "could not be loaded: OSError" in capsys.readouterr().err
    assert main([*arguments, "--unsafe-weights"]) == 0


@pytest.mark.parametrize("damage", ["renamed", "three missing", "another shape"])
def test_a_checkpoint_that_does_not_match_is_not_scored(traces, tmp_path, capsys, damage):
    """transformers would fill the gaps with random weights, and score with them."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "damaged"
    shutil.copytree(ASSETS / "model", folder)
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    if damage == "renamed":
        weights = {f"_orig_mod.{name}": weight for name, weight in weights.items()}
    elif damage == "three missing":
        weights = {name: weights[name] for name in names[3:]}
    else:
        weights[names[-1]] = weights[names[-1]][:-1].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    out = tmp_path / "out.jsonl"
    assert main(["score", str(traces), *MODEL, "--model", str(folder), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "could not be loaded" in said
    if damage == "renamed":
        assert "has extra" in said
        assert "_orig_mod.model.embed_tokens.weight" in said
    else:
        assert names[0 if damage == "three missing" else -1] in said
    assert not out.read_bytes()


def test_own_keywords_and_fields(traces, tmp_path):
    record = json.loads(traces.read_text().splitlines()[0])
    record["cot"] = record.pop("reasoning")
    traces.write_text(json.dumps(record))
    keywords = tmp_path / "keywords.txt"
    keywords.write_text("\\n\\nWait\n")
    out = tmp_path / "out.jsonl"
    arguments = ["--keywords", str(keywords), "--field", "reasoning=cot"]
    assert main(["score", str(traces), *MODEL, "--out", str(out), *arguments]) == 0
    (scored,) = read_scored(out)
    assert len(scored.segments) == record["cot"].count("\n\nWait") + 1


def test_show_refuses_what_it_cannot_show(tmp_path, capsys, traces):
    assert main(["show", str(tmp_path / "missing.jsonl")]) == 2
    assert main(["show", str(traces)]) == 2
    assert "line 1: the line must be a scored trace, got something else" in capsys.readouterr().err
    out = tmp_path / "out.jsonl"
    main(["score", str(traces), *MODEL, "--out", str(out)])
    capsys.readouterr()
    assert main(["show", str(out), "--id", "nonsense"]) == 2
    assert "(easy-01, easy-02, easy-03), got 'nonsense'" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["score"], ["show"], ["demo"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])
    assert exit_.value.code == 0
    assert "usage: segattr" in capsys.readouterr().out


def test_the_input_is_never_overwritten(traces, capsys):
    before = traces.read_bytes()
    assert main(["score", str(traces), *MODEL, "--out", str(traces), "--overwrite"]) == 2
    assert "must be another file than TRACES" in capsys.readouterr().err
    assert traces.read_bytes() == before


def test_overwrite_keeps_the_old_file_until_there_is_something_new(traces, tmp_path):
    out = tmp_path / "out.jsonl"
    arguments = ["score", str(traces), *MODEL, "--out", str(out)]
    main(arguments)
    before = out.read_bytes()
    assert main([*arguments, "--overwrite", "--model", "no-such-model"]) == 2
    assert out.read_bytes() == before
    assert main([*arguments, "--overwrite", "--tau", "0.5"]) == 0
    assert len(list(read_scored(out))) == 3


def test_whatever_one_trace_raises_the_others_are_scored(traces, tmp_path, capsys, monkeypatch):
    """A chat template that refuses a role raises an error of its own kind."""
    from segattr import encoding

    encode = encoding.encode

    def fail_for_one(trace, *arguments, **settings):
        if trace.id == "easy-02":
            raise LookupError("system role not supported")
        return encode(trace, *arguments, **settings)

    monkeypatch.setattr(encoding, "encode", fail_for_one)
    out = tmp_path / "out.jsonl"
    assert main(["score", str(traces), *MODEL, "--out", str(out)]) == 1
    errors = capsys.readouterr().err
    assert "traces.jsonl:2: failed: LookupError: system role not supported" in errors
    assert [record.id for record in read_scored(out)] == ["easy-01", "easy-03"]


def test_names_with_brackets_are_shown_as_they_are(traces, tmp_path, capsys):
    record = json.loads(traces.read_text().splitlines()[0])
    traces.write_text(json.dumps({**record, "id": "a[/b]"}))
    out = tmp_path / "out.jsonl"
    assert main(["score", str(traces), *MODEL, "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["show", str(out)]) == 0
    assert "trace a[/b]" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_show_into_a_closed_pipe(traces, tmp_path, encoding):
    """``segattr show OUT | head -1``, also where blocks cannot be printed."""
    out = tmp_path / "out.jsonl"
    main(["score", str(traces), *MODEL, "--out", str(out)])
    command = f"{sys.executable} -m segattr show {out} | head -1; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("trace easy-01")


def test_no_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as exit_:
        main([])
    assert exit_.value.code == 2


@pytest.mark.slow(reason="waits for a process to score")
def test_interrupt_leaves_a_readable_file(tmp_path):
    """A real process, a real SIGINT in the middle."""
    traces, out = tmp_path / "traces.jsonl", tmp_path / "out.jsonl"
    records = [json.loads(line) for line in TRACES.read_text().splitlines()]
    many = [{**record, "id": f"{record['id']}-{i}"} for i in range(20) for record in records]
    traces.write_text("".join(json.dumps(record) + "\n" for record in many))
    command = [sys.executable, "-m", "segattr", "score", str(traces), *MODEL, "--out", str(out)]
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


def test_calibrate_then_score_with_the_rule(tmp_path, capsys):
    rule, out = str(tmp_path / "rule.json"), str(tmp_path / "out.jsonl")
    options = [*(part for option in PLACES.items() for part in option), "--scope", "reasoning"]
    command = ["calibrate", str(TRACES), *options, "--out", rule, "--points", "5", "--use", "6"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a reference may not converge
        assert main(command) == 0
    printed = capsys.readouterr().out
    assert "rule.json: 5 points; on " in printed
    assert "kept segments agree to" in printed
    assert main(command) == 2
    assert "OUT must be a new file" in capsys.readouterr().err

    few = tmp_path / "traces.jsonl"
    few.write_text("".join(TRACES.read_text().splitlines(keepends=True)[:2]))
    score = ["score", str(few), *options, "--out", out, "--rule", rule]
    assert main(score) == 0
    for record in read_scored(out):
        assert re.fullmatch(r"rule\.json [0-9a-f]{12}", record.asked["rule"])
        assert record.ran["rule"] == ("calibrated" if record.evaluations == 5 else "auto")
    assert main([*score[:-4], "--overwrite", *score[-4:], "--scope", "all"]) == 2
    assert "must have been fitted to this scope" in capsys.readouterr().err


def test_calibrate_needs_enough_traces_and_says_what_became_of_them(traces, tmp_path, capsys):
    """A random token as the baseline and too little room for one trace."""
    options = [*(part for option in PLACES.items() for part in option), "--max-length", "300"]
    command = ["calibrate", str(traces), *options, "--baseline", "zero"]
    assert main([*command, "--out", str(tmp_path / "rule.json")]) == 2
    said = capsys.readouterr().err
    assert "traces must be at least 4 that converge, got" in said
    assert re.search(r":\d: left out: .*max_length", said)
    assert re.search(r"traces are left out: easy-0\d: the integral must converge", said)
    assert not (tmp_path / "rule.json").exists()
    assert main([*command, "--out", str(tmp_path / "no" / "rule.json")]) == 2
    assert "OUT must be in a folder one can write to" in capsys.readouterr().err


def test_undecided_segments_are_counted_and_shown(traces, tmp_path, capsys):
    out = str(tmp_path / "out.jsonl")
    options = [*(part for option in PLACES.items() for part in option)]
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
