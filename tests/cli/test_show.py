"""``segattr show``: what it prints, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tiny import SCORE

from segattr.cli.main import main


def test_show_refuses_what_it_cannot_show(tmp_path, capsys, traces):
    assert main(["show", str(tmp_path / "missing.jsonl")]) == 2
    assert main(["show", str(traces)]) == 2
    assert "line 1: the line must be a scored trace, got something else" in capsys.readouterr().err
    out = tmp_path / "out.jsonl"
    main(["score", str(traces), *SCORE, "--out", str(out)])
    capsys.readouterr()
    assert main(["show", str(out), "--id", "nonsense"]) == 2
    assert "(easy-01, easy-02, easy-03), got 'nonsense'" in capsys.readouterr().err


def test_names_with_brackets_are_shown_as_they_are(traces, tmp_path, capsys):
    record = json.loads(traces.read_text().splitlines()[0])
    traces.write_text(json.dumps({**record, "id": "a[/b]"}))
    out = tmp_path / "out.jsonl"
    assert main(["score", str(traces), *SCORE, "--out", str(out)]) == 0
    capsys.readouterr()
    assert main(["show", str(out)]) == 0
    assert "trace a[/b]" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_show_into_a_closed_pipe(traces, tmp_path, encoding):
    """``segattr show OUT | head -1``, also where blocks cannot be printed."""
    out = tmp_path / "out.jsonl"
    main(["score", str(traces), *SCORE, "--out", str(out)])
    command = f"{sys.executable} -m segattr show {out} | head -1; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("trace easy-01")


def test_a_damaged_record_is_left_out_by_name(traces, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    main(["score", str(traces), *SCORE, "--out", str(out)])
    first, second, third = out.read_text().splitlines()
    bad = json.dumps({**json.loads(second), "evaluations": -1})
    out.write_text("\n".join([first, bad, third, ""]))
    capsys.readouterr()
    assert main(["show", str(out), "--id", "easy-03"]) == 0
    printed = capsys.readouterr()
    assert "trace easy-03" in printed.out
    assert (
        f"{out}:2: left out: the scored trace must be whole, got Expected `int` >= 0" in printed.err
    )
