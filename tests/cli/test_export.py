"""``segattr export`` as a user runs it: exit codes, files, messages."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tiny import read_jsonl, read_parquet

from segattr.cli.main import main
from segattr.export import Variant, export


@pytest.fixture
def scored_file(scored_traces, tmp_path):
    path = tmp_path / "scored.jsonl"
    path.write_text("".join(json.dumps(one.to_record()) + "\n" for one in scored_traces))
    return path


def test_the_command(scored_file, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["export", str(scored_file), "--out", str(out)]
    assert main([*arguments, "--to", "ms-swift"]) == 0  # finds the tokenizer it was scored with
    assert len(read_jsonl(out / "data.jsonl")) == 3
    printed = capsys.readouterr().out
    assert f"{out}: 3 rows, " in printed
    assert "0 failed, 0 skipped" in printed
    assert main([*arguments, "--to", "trl"]) == 2
    assert "Pass --overwrite" in capsys.readouterr().err
    options = ["--to", "trl", "--overwrite", "--select", "random", "--seed", "7", "--prune"]
    assert main([*arguments, *options, "--no-response", "--beta", "1"]) == 0
    facts = json.loads((out / "export.json").read_text())
    assert facts["variant"] == {
        **vars(Variant()),
        "select": "random",
        "seed": 7,
        "prune": True,
        "train_response": False,
        "beta": 1.0,
    }


def test_the_rules_of_the_released_code(scored_file, scored_traces, tmp_path, capsys):
    lengths = sorted(len(one.row()["input_ids"]) for one in scored_traces)
    out = tmp_path / "out"
    command = ["export", str(scored_file), "--to", "verl", "--out", str(out)]
    options = ["--whole-below", str(lengths[-1]), "--keep-second-to-last", "--normalize", "trace"]
    assert main([*command, *options]) == 2
    assert "--select scored does not read --keep-second-to-last" in capsys.readouterr().err
    assert main([*command, *options, "--select", "important"]) == 0
    for found, record in zip(read_parquet(out / "data.parquet"), scored_traces, strict=True):
        trained = [weight > 0 for weight in found["loss_mask"]]
        span = slice(*record.encoded.segments[-2])
        is_whole = len(found["input_ids"]) < lengths[-1]
        assert all(trained[slice(*record.encoded.reasoning)]) == is_whole
        assert all(trained[span])
        assert sum(found["loss_mask"]) == pytest.approx(1, rel=1e-5)


def test_a_damaged_record_stops_nothing(scored_file, tmp_path, capsys):
    good = scored_file.read_text().splitlines()
    bad = json.dumps({**json.loads(good[0]), "id": "bad", "input_ids": [-1]})
    scored_file.write_text("\n".join([good[0], bad, *good[1:]]))
    assert main(["export", str(scored_file), "--to", "trl", "--out", str(tmp_path / "out")]) == 1
    assert f"{scored_file}:2: left out: " in capsys.readouterr().err
    assert len(read_parquet(tmp_path / "out/data.parquet")) == len(good)


def test_what_was_cut_is_said(scored_traces, scored_file, tmp_path, capsys):
    lengths = sorted(len(one.row()["input_ids"]) for one in scored_traces)
    cut = Variant(max_length=lengths[-1] - 1, too_long="cut")
    done = export(scored_traces, "trl", tmp_path / "out", cut)
    longest = next(s.id for s in scored_traces if len(s.row()["input_ids"]) == lengths[-1])
    assert done.cut == [longest]
    assert "1 cut" in (tmp_path / "out/README.md").read_text()
    options = ["--too-long", "cut", "--max-length", str(lengths[-1] - 1), "--overwrite"]
    out = str(tmp_path / "out")
    assert main(["export", str(scored_file), "--to", "trl", "--out", out, *options]) == 0
    assert "1 cut" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("policy", "code", "count"), [("error", 1, 2), ("skip", 0, 2), ("cut", 0, 3)]
)
def test_long_rows(scored_file, scored_traces, tmp_path, capsys, policy, code, count):
    longest = max(len(one.row()["input_ids"]) for one in scored_traces)
    command = ["export", str(scored_file), "--to", "trl", "--out", str(tmp_path / "out")]
    assert main([*command, "--max-length", str(longest - 1), "--too-long", policy]) == code
    found = read_parquet(tmp_path / "out/data.parquet")
    assert len(found) == count
    assert max(len(row["input_ids"]) for row in found) < longest
    assert ("left out: the row must fit" in capsys.readouterr().err) == (policy == "error")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "nemo"], "--to must be one of 'trl', 'llama-factory'"),
        (["--to", "trl", "--tau", "0.5"], "--select scored does not read tau"),
        (["--to", "trl", "--max-length", "0"], "--max-length must be at least 1, got 0"),
        (["--to", "trl", "--select", "important", "--tau", "2"], "tau must be in (0, 1], got 2.0"),
        (["--to", "axolotl", "--weights", "strength"], "reads masks only"),
        (
            ["--to", "ms-swift", "--tokenizer", "/nowhere"],
            "--tokenizer must be a folder or a name on the hub",
        ),
    ],
)
def test_what_the_command_refuses(scored_file, tmp_path, capsys, options, message):
    try:
        code = main(["export", str(scored_file), "--out", str(tmp_path / "out"), *options])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_the_tokenizer_is_the_one_that_scored(scored_traces, tokenizer, tmp_path, capsys):
    tokenizer.save_pretrained(tmp_path / "own")
    settings = {"model": "/nowhere", "tokenizer": str(tmp_path / "own")}
    path = tmp_path / "scored.jsonl"
    for given, code in (({}, 0), ({"tokenizer": None}, 2)):
        record = replace(scored_traces[0], asked={**settings, **given})
        path.write_text(json.dumps(record.to_record()) + "\n")
        command = ["export", str(path), "--to", "ms-swift", "--overwrite"]
        assert main([*command, "--out", str(tmp_path / "out")]) == code
    assert "--tokenizer must be a folder or a name on the hub" in capsys.readouterr().err
    path.write_text(json.dumps(replace(scored_traces[0], asked={}).to_record()) + "\n")
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert "--tokenizer must be given" in capsys.readouterr().err


def test_the_command_names_a_file_that_is_none(tmp_path, capsys):
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    assert main(["export", str(path), "--to", "trl", "--out", str(tmp_path / "out")]) == 2
    assert "must hold scored traces" in capsys.readouterr().err
    missing = ["export", str(tmp_path / "no.jsonl"), "--to", "trl", "--out", str(tmp_path / "o")]
    assert main(missing) == 2
    assert "no.jsonl" in capsys.readouterr().err
