"""``segattr calibrate``: a rule, and what it says about itself."""

from __future__ import annotations

import json
import re
import warnings

from segattr.cli.main import main
from segattr.dataset import read_scored
from segattr.demo import TRACES, load_demo
from segattr.engine.fingerprint import fingerprint
from segattr.ig.calibration import GRID


def test_calibrate_then_score_with_the_rule(tmp_path, capsys):
    rule, out = str(tmp_path / "rule.json"), str(tmp_path / "out.jsonl")
    options = ["--model", "bundled"]  # with the same scope in both commands
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
    score = ["score", str(few), *options, "--require", "none", "--out", out, "--rule", rule]
    assert main(score) == 0
    records = list(read_scored(out))
    assert len(records) == 2
    for record in records:
        assert re.fullmatch(r"rule\.json [0-9a-f]{12}", record.asked["rule"])
        assert record.ran["rule"] == ("fitted" if record.evaluations == 5 else "auto")
    assert main([*score[:-4], "--overwrite", *score[-4:], "--scope", "all"]) == 2
    assert "must have been fitted to this scope" in capsys.readouterr().err


def test_a_rule_that_gave_way_says_so_in_the_record(traces, tmp_path, capsys):
    facts = {"alphas": [0.5], "weights": [1.0], "largest_gap": 0.0, "validation": {}}
    facts |= {"format": "segattr rule 1", "scope": "all", "baseline": "token 0"}
    path, out = tmp_path / "rule.json", tmp_path / "out.jsonl"
    path.write_text(json.dumps({**facts, "fingerprint": fingerprint(load_demo()[0])}))
    options = ["--model", "bundled", "--max-evaluations", "9", "--agreement", "0.9"]
    options += ["--scope", "all", "--require", "none", "--out", str(out)]
    assert main(["score", str(traces), *options, "--rule", str(path)]) == 0
    said = capsys.readouterr().err
    cost = "1 gradient evaluation a trace; where it gives way, 9 gradient evaluations more"
    assert cost in " ".join(said.split())
    records = list(read_scored(out))
    assert len(records) == 3
    for record in records:
        assert (record.ran["agreement"], record.asked["agreement"]) == (0.9, 0.9)
        assert record.asked["rule"].startswith("rule.json ")
        assert (record.ran["rule"], record.ran["gave_way"]) == ("auto", "fitted")
        assert record.evaluations == 10  # one of the rule, nine of auto


def test_calibrate_needs_enough_traces_and_says_what_became_of_them(
    traces, tmp_path, capsys, monkeypatch
):
    """A singular path and no points beyond the grid, and too little room for one trace."""
    monkeypatch.setattr("segattr.ig.calibration.MOST", GRID)
    options = ["--model", "bundled", "--max-length", "300"]
    command = ["calibrate", str(traces), *options, "--scope", "all", "--baseline", "zero"]
    assert main([*command, "--out", str(tmp_path / "rule.json")]) == 2
    said = capsys.readouterr().err
    assert "traces must be at least 4 that converge, got" in said
    assert re.search(r":\d: left out: .*max_length", said)
    assert re.search(r"traces are left out: easy-0\d: the integral must converge", said)
    assert not (tmp_path / "rule.json").exists()
    assert main([*command, "--out", str(tmp_path / "no" / "rule.json")]) == 2
    assert "OUT must be in a folder one can write to" in capsys.readouterr().err


def test_calibrate_is_of_integrated_gradients_whatever_the_default_of_score(
    traces, tmp_path, capsys
):
    """On an engine without finite propagation; all traces are too long, so none is sampled."""
    command = ["calibrate", str(traces), "--model", "bundled", "--engine", "autograd"]
    assert main([*command, "--max-length", "10", "--out", str(tmp_path / "rule.json")]) == 2
    said = capsys.readouterr().err
    assert "traces must be at least 4 that converge, got 0" in said
    assert "secant" not in said
