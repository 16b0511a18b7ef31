"""``segattr export`` as a user runs it: exit codes, files, messages."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import transformers
from tiny import CHATML, make_student, read_jsonl, read_parquet
from tokenizers import Tokenizer

from segattr.cli.main import main
from segattr.dataset import Student
from segattr.demo import load_demo
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
        (["--to", "trl", "--student", "/nowhere"], "--student must be a folder or a name on"),
        (
            ["--to", "trl", "--student", "bundled", "--student-template", "/no"],
            "--student-template must be a file to read, got /no",
        ),
        (["--to", "trl", "--student-template", "a"], "--student-template needs --student"),
        (["--to", "trl", "--student-instruction", "a"], "--student-instruction needs --student"),
        (
            ["--to", "ms-swift", "--student", "bundled", "--tokenizer", "bundled"],
            "--tokenizer must be left out with --student",
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


@pytest.fixture
def student(tmp_path):
    """The folder of another model's tokenizer."""
    make_student("bpe").save_pretrained(tmp_path / "student")
    return str(tmp_path / "student")


def test_a_student_needs_nothing_but_its_name(
    scored_file, scored_traces, student, tmp_path, capsys
):
    command = ["export", str(scored_file), "--to", "trl", "--student", student, "--overwrite"]
    command += ["--out", str(tmp_path / "out")]
    words = Student(make_student("bpe"))
    assert main(command) == 0
    found = [row["input_ids"] for row in read_parquet(tmp_path / "out/data.parquet")]
    assert found == [one.row(words)["input_ids"] for one in scored_traces]
    assert " cuts between segments: " in " ".join(capsys.readouterr().err.split())
    assert json.loads((tmp_path / "out/export.json").read_text())["student"]["tokenizer"] == student
    # A selection of tokens needs the tokenizer that scored, which the file names.
    assert main([*command, "--select", "top-tokens"]) == 0
    words = replace(words, scored_by=Student(load_demo()[1]))
    found = [row["labels"] for row in read_parquet(tmp_path / "out/data.parquet")]
    variant = Variant(select="top-tokens")
    assert found == [variant.row(one, words)["labels"] for one in scored_traces]


def test_the_student_may_be_the_bundled_model(scored_file, scored_traces, tmp_path):
    command = ["export", str(scored_file), "--to", "axolotl-text", "--student", "bundled"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    facts = json.loads((tmp_path / "out/export.json").read_text())
    assert facts["fit"]["merged"] == facts["fit"]["split"] == 0
    assert facts["tokens"] == sum(len(one.row()["input_ids"]) for one in scored_traces)


def test_template_and_instruction_of_a_student(scored_file, student, tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text(CHATML.replace("assistant", "tutor"))
    command = ["export", str(scored_file), "--to", "trl", "--student", student, "--overwrite"]
    command += ["--student-template", str(template), "--student-instruction", "\\nThink."]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    (first, *_) = read_parquet(tmp_path / "out/data.parquet")
    text = make_student("bpe").decode(first["input_ids"])
    assert "\nThink.<|im_end|>\n<|im_start|>tutor\n" in text


def test_another_vocabulary_is_refused_without_student(
    scored_file, student, tokenizer, tmp_path, capsys
):
    """Also one that differs in control tokens alone, as those of models of one family do."""
    other = copy.deepcopy(tokenizer)
    state = other.backend_tokenizer.to_str().replace('"<think>"', '"<thought>"')
    twin = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(state), chat_template=other.chat_template
    )
    twin.save_pretrained(tmp_path / "twin")
    tokenizer.save_pretrained(tmp_path / "moved")
    command = ["export", str(scored_file), "--to", "axolotl-text", "--out", str(tmp_path / "out")]
    for name in (student, str(tmp_path / "twin")):
        assert main([*command, "--tokenizer", name]) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert "--tokenizer must have the vocabulary that the traces were scored with" in error
        assert "Pass --student" in error
    assert main([*command, "--tokenizer", str(tmp_path / "moved")]) == 0


def test_a_scorer_that_is_gone_leaves_the_text_to_compare(
    scored_traces, student, tokenizer, tmp_path, capsys
):
    tokenizer.save_pretrained(tmp_path / "moved")
    path = tmp_path / "scored.jsonl"
    record = replace(scored_traces[0], asked={"model": "/nowhere"}).to_record()
    path.write_text(json.dumps(record) + "\n")
    command = ["export", str(path), "--to", "ms-swift", "--out", str(tmp_path / "out")]
    assert main([*command, "--tokenizer", student]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "control tokens of --tokenizer could not be compared" in error
    assert "tokenizer must be the one that the traces were scored with" in error
    assert "pass --student" in error
    assert main([*command, "--tokenizer", str(tmp_path / "moved")]) == 0


def test_the_command_names_a_file_that_is_none(tmp_path, capsys):
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    assert main(["export", str(path), "--to", "trl", "--out", str(tmp_path / "out")]) == 2
    assert "must hold scored traces" in capsys.readouterr().err
    missing = ["export", str(tmp_path / "no.jsonl"), "--to", "trl", "--out", str(tmp_path / "o")]
    assert main(missing) == 2
    assert "no.jsonl" in capsys.readouterr().err


def test_flagged_traces_are_left_out_when_asked(scored_traces, tmp_path, capsys):
    flags = [["agreement"], ["rise", "gap"], ["segments"]]
    records = [replace(one, flags=f) for one, f in zip(scored_traces, flags, strict=True)]
    path, out = tmp_path / "scored.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps(one.to_record()) + "\n" for one in records))
    command = ["export", str(path), "--to", "trl", "--overwrite", "--out", str(out)]
    assert main([*command, "--require", "rise, segments"]) == 0
    captured = capsys.readouterr()
    assert "1 rows" in captured.out
    assert "2 left out as flagged" in captured.out
    assert f"{records[1].id}: left out: the answer is no likelier" in " ".join(captured.err.split())
    for all_there in (["--require", "plain"], ["--require", "none"], []):
        assert main([*command, *all_there]) == 0
        assert "3 rows" in capsys.readouterr().out
    assert main([*command, "--require", "gap,agreement"]) == 0
    assert "1 rows" in capsys.readouterr().out
    assert main([*command, "--require", "rice"]) == 2
    assert "--require must be one of" in capsys.readouterr().err
