"""What stands in an export, format by format, against the rows it was made from.

The trainers' own data code reads these files in tests/export/readers: ``make test-readers``.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import random
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch

from segattr.cli.main import main
from segattr.export import TRAINERS, export
from segattr.export.files import write_parquet
from segattr.export.formats import _refuse_what_swift_changes
from segattr.export.selection import Variant
from segattr.export.text import Piece, decode, pieces_of
from segattr.training.rows import row_of

TEXT = [name for name, target in TRAINERS.items() if target.line is not None]
TOKENS = [name for name in TRAINERS if name not in TEXT]
WEIGHTED = [name for name, target in TRAINERS.items() if target.weights]


@pytest.fixture(scope="module")
def rows(scored_traces):
    return [Variant().row(record) for record in scored_traces]


@pytest.fixture
def scored_file(scored_traces, tmp_path):
    path = tmp_path / "scored.jsonl"
    path.write_text("".join(json.dumps(one.to_record()) + "\n" for one in scored_traces))
    return path


def parquet(path: Path) -> list[dict]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


def jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_trl_gets_labels_and_masks(scored_traces, rows, tmp_path):
    export(scored_traces, "trl", tmp_path / "out")
    names = ("input_ids", "labels", "assistant_masks")
    assert parquet(tmp_path / "out/data.parquet") == [{n: row[n] for n in names} for row in rows]


def test_trl_gets_weights_when_there_are_some(scored_traces, tmp_path):
    variant = Variant(weights="strength")
    export(scored_traces, "trl", tmp_path / "out", variant)
    (first, *_), expected = parquet(tmp_path / "out/data.parquet"), variant.row(scored_traces[0])
    assert first["loss_weights"] == pytest.approx(expected["loss_weights"], rel=1e-6)
    assert len(set(first["loss_weights"])) > 3


@pytest.mark.parametrize("name", ["unsloth", "axolotl"])
def test_labels_and_nothing_but_them(scored_traces, rows, tmp_path, name):
    export(scored_traces, name, tmp_path / "out")
    names = ("input_ids", "attention_mask", "labels")
    assert parquet(tmp_path / "out/data.parquet") == [{n: row[n] for n in names} for row in rows]


def test_llama_factory_gets_a_dataset_dict(scored_traces, rows, tmp_path):
    export(scored_traces, "llama-factory", tmp_path / "out")
    found = datasets.load_from_disk(str(tmp_path / "out/data"))
    assert list(found) == ["train"]
    names = ("input_ids", "attention_mask", "labels")
    assert list(found["train"]) == [{n: row[n] for n in names} for row in rows]


@pytest.mark.parametrize(("name", "column"), [("verl", "loss_mask"), ("openrlhf", "loss_weights")])
def test_floats_per_token(scored_traces, tmp_path, name, column):
    variant = Variant(weights="strength")
    export(scored_traces, name, tmp_path / "out", variant)
    for found, record in zip(parquet(tmp_path / "out/data.parquet"), scored_traces, strict=True):
        expected = variant.row(record)
        assert found.keys() == {"input_ids", column}
        assert found["input_ids"] == expected["input_ids"]
        assert found[column] == pytest.approx(expected["loss_weights"], rel=1e-6)
    masks = tmp_path / "masks"
    export(scored_traces, name, masks)
    assert {type(w) for row in parquet(masks / "data.parquet") for w in row[column]} == {float}


def test_verl_reads_them_with_its_class(scored_traces, rows, tmp_path):
    export(scored_traces, "verl", tmp_path / "out")
    path = tmp_path / "out/segattr_verl.py"
    spec = importlib.util.spec_from_file_location("segattr_verl", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    files = str(tmp_path / "out/data.parquet")
    data = module.WeightedRows(files, None, {"pad_mode": "no_padding", "max_length": 9999})
    assert len(data) == len(rows)
    assert data[2]["input_ids"].tolist() == rows[2]["input_ids"]
    assert data[2]["loss_mask"].tolist() == rows[2]["loss_weights"]
    assert data[2]["loss_mask"].dtype == torch.float32
    assert data[2]["position_ids"].tolist() == list(range(len(rows[2]["input_ids"])))
    assert len(module.WeightedRows([files, files], None, {}, max_samples=4)) == 4
    with pytest.raises(ValueError, match=r"at least \d+, the longest row, got 9"):
        module.WeightedRows(files, None, {"max_length": 9})
    with pytest.raises(ValueError, match="pad_mode must be no_padding, got right"):
        module.WeightedRows(files, None, {"pad_mode": "right"})


def test_torchtune_gets_a_mask_of_what_is_not_trained(scored_traces, rows, tmp_path):
    export(scored_traces, "torchtune", tmp_path / "out")
    for found, row in zip(parquet(tmp_path / "out/data.parquet"), rows, strict=True):
        assert found["tokens"] == row["input_ids"]
        assert [label == -100 for label in row["labels"]] == [bool(m) for m in found["mask"]]
    assert (tmp_path / "out/segattr_torchtune.py").is_file()


def test_axolotl_text_gives_the_rows_back(scored_traces, rows, tokenizer, tmp_path):
    done = export(scored_traces, "axolotl-text", tmp_path / "out", tokenizer=tokenizer)
    assert done.as_tokens == 0
    for line, row in zip(jsonl(tmp_path / "out/data.jsonl"), rows, strict=True):
        ids, mask = [], []
        for segment in line["segments"]:
            piece = tokenizer(segment["text"], add_special_tokens=False)["input_ids"]
            ids += piece
            mask += [int(segment["label"])] * len(piece)
        assert ids == row["input_ids"]
        assert mask == row["assistant_masks"]


def test_ms_swift_gets_consecutive_messages_and_adds_the_end(
    scored_traces, rows, tokenizer, tmp_path
):
    done = export(scored_traces, "ms-swift", tmp_path / "out", tokenizer=tokenizer)
    assert done.as_tokens == 0
    for line, row in zip(jsonl(tmp_path / "out/data.jsonl"), rows, strict=True):
        assert [m["role"] for m in line["messages"][:2]] == ["user", "assistant"]
        ids, mask = [], []
        for message in line["messages"]:
            piece = tokenizer(message["content"], add_special_tokens=False)["input_ids"]
            ids += piece
            mask += [int(message.get("loss", False))] * len(piece)
        assert [*ids, tokenizer.eos_token_id] == row["input_ids"]
        assert [*mask, 1] == row["assistant_masks"]


def test_ms_swift_gets_weights_of_mean_1_as_tokens(scored_traces, tokenizer, tmp_path):
    variant = Variant(weights="strength")
    done = export(scored_traces, "ms-swift", tmp_path / "out", variant, tokenizer=tokenizer)
    assert done.as_tokens == done.rows == 3
    assert not (tmp_path / "out/data.jsonl").exists()
    for line, record in zip(jsonl(tmp_path / "out/tokens.jsonl"), scored_traces, strict=True):
        (message,) = line["messages"]
        expected = variant.row(record)
        assert message["content"]["token_ids"] == expected["input_ids"]
        got = torch.tensor(message["content"]["loss_scale"], dtype=torch.float64)
        assert got[got > 0].mean().item() == pytest.approx(1)
        wanted = torch.tensor(expected["loss_weights"], dtype=torch.float64)
        assert torch.allclose(got / got.sum(), wanted / wanted.sum())


def test_what_text_would_change_goes_to_a_file_of_tokens(
    scored_traces, cut_inside_a_character, tokenizer, tmp_path
):
    row = Variant().row(cut_inside_a_character)
    for name in TEXT:
        mixed = [scored_traces[0], cut_inside_a_character]
        done = export(mixed, name, tmp_path / name, tokenizer=tokenizer)
        assert (done.rows, done.as_tokens) == (2, 1)
        assert "1 rows whose tokens" in (tmp_path / name / "README.md").read_text()
        assert len(jsonl(tmp_path / name / "data.jsonl")) == 1
    (found,) = parquet(tmp_path / "axolotl-text/tokens.parquet")
    assert found == {name: row[name] for name in ("input_ids", "attention_mask", "labels")}
    ((message,),) = [line["messages"] for line in jsonl(tmp_path / "ms-swift/tokens.jsonl")]
    content = {"token_ids": row["input_ids"], "loss_scale": row["loss_weights"]}
    assert message == {"role": "assistant", "content": content}


def test_rows_that_ms_swift_would_change_are_refused(tokenizer):
    eos = tokenizer.eos_token_id
    _refuse_what_swift_changes(row_of([5, 6, eos], [0, 1, 1]), tokenizer)
    with pytest.raises(ValueError, match=r"ends every row by .*, got a row that ends by"):
        _refuse_what_swift_changes(row_of([5, 6, 7], [0, 1, 1]), tokenizer)
    with pytest.raises(ValueError, match="always trains the end of a turn"):
        _refuse_what_swift_changes(row_of([5, 6, eos], [0, 1, 0]), tokenizer)

    class WithBos:
        bos_token, bos_token_id, eos_token, eos_token_id = "<s>", 3, "</s>", eos

        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": [3] * add_special_tokens + [6] * len(text)}

        def decode(self, ids, **_):
            return "x" * len(ids)

    _refuse_what_swift_changes(row_of([3, 6, eos], [0, 1, 1]), WithBos())
    with pytest.raises(ValueError, match="starts every row by '<s>'"):
        _refuse_what_swift_changes(row_of([5, 6, eos], [0, 1, 1]), WithBos())
    row = row_of([3, 6, eos], [0, 1, 1])
    pieces = [Piece("x", [3], 0.0), Piece("xx", [6, eos], 1.0)]
    assert TRAINERS["ms-swift"].line(row, pieces, WithBos()) is None  # the prompt has one more
    line = TRAINERS["ms-swift"].tokens(row, WithBos())
    assert line["messages"][0]["content"]["token_ids"] == [6, eos]


def test_text_that_changes_without_its_end_stays_tokens(tokenizer):
    """ms-swift adds the end of turn, so what stands before it is tokenised without it."""

    class Greedy:
        bos_token_id, eos_token_id = None, tokenizer.eos_token_id

        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": [9] if text == "xx" else [6] * len(text)}

        def decode(self, ids, **_):
            return "x" * len(ids)

    line = TRAINERS["ms-swift"].line
    eos = tokenizer.eos_token_id
    for count, is_text in ((1, True), (2, False), (3, True)):
        pieces = [Piece("x", [6], 0.0), Piece("x" * count, [*[6] * count, eos], 1.0)]
        row = row_of([6, *[6] * count, eos], [0.0, *[1.0] * (count + 1)])
        assert (line(row, pieces, Greedy()) is not None) == is_text


def test_rows_that_a_trainer_would_change_are_left_out_and_named(
    scored_traces, tokenizer, tmp_path
):
    with pytest.raises(ValueError, match="got none: ms-swift always trains the end of a turn"):
        export(
            scored_traces,
            "ms-swift",
            tmp_path / "out",
            Variant(train_response=False),
            tokenizer=tokenizer,
        )
    cut = Variant(max_length=len(scored_traces[0].row()["input_ids"]) - 1, too_long="cut")
    done = export(scored_traces, "ms-swift", tmp_path / "out", cut, tokenizer=tokenizer)
    assert "do not cut rows" in dict(done.failed)[scored_traces[0].id]


def test_many_rows_are_all_written(tmp_path):
    rows = [{"input_ids": [number], "loss_mask": [number / 2]} for number in range(300)]
    write_parquet(rows, tmp_path / "data.parquet")
    assert parquet(tmp_path / "data.parquet") == rows


@pytest.mark.parametrize("name", TRAINERS)
def test_every_export_explains_itself(scored_traces, tokenizer, tmp_path, name):
    done = export(scored_traces, name, tmp_path / "out", tokenizer=tokenizer)
    text = (tmp_path / "out/README.md").read_text()
    assert str(tmp_path / "out") in text
    assert str(done.longest) in text
    assert "<!--" not in text
    assert "$" not in text
    facts = json.loads((tmp_path / "out/export.json").read_text())
    assert facts["to"] == name
    assert facts["rows"] == 3
    assert facts["supervised"] == sum(
        sum(Variant().row(r)["assistant_masks"]) for r in scored_traces
    )
    assert facts["variant"]["select"] == "scored"
    assert facts["scored_with"] == {"model": "bundled", "tau": 0.7}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]  # no scraps beside it


@pytest.mark.parametrize("name", sorted(set(TRAINERS) - set(WEIGHTED)))
def test_masks_only_trainers_refuse_weights(scored_traces, tokenizer, tmp_path, name):
    able = ", ".join(WEIGHTED)
    with pytest.raises(ValueError, match=rf"reads weights \({able}\), got '{name}'"):
        export(
            scored_traces, name, tmp_path / "out", Variant(weights="strength"), tokenizer=tokenizer
        )


def test_bad_calls(scored_traces, tmp_path):
    with pytest.raises(ValueError, match=r"must be one of trl, llama-factory, .*, got 'nemo'"):
        export(scored_traces, "nemo", tmp_path / "out")
    with pytest.raises(ValueError, match="needs the tokenizer, got None"):
        export(scored_traces, "ms-swift", tmp_path / "out")
    with pytest.raises(ValueError, match="must give rows to export, got none: the file is empty"):
        export([], "trl", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_export_is_replaced_only_when_asked(scored_traces, rows, tmp_path):
    out = tmp_path / "out"
    export(scored_traces, "trl", out)
    with pytest.raises(FileExistsError, match=r"an earlier export\. Pass --overwrite"):
        export(scored_traces, "verl", out)
    with pytest.raises(ValueError, match="got none"):  # a failing export leaves the old one
        export([], "verl", out, overwrite=True)
    assert len(parquet(out / "data.parquet")) == len(rows)
    (out / "notes.txt").write_text("mine")
    export(scored_traces[:1], "llama-factory", out, overwrite=True)
    names = ["README.md", "data", "export.json", "notes.txt"]  # theirs is gone, mine is not
    assert sorted(path.name for path in out.iterdir()) == names
    export(scored_traces[:1], "verl", out, overwrite=True)
    assert len(parquet(out / "data.parquet")) == 1
    assert not (out / "data").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no scraps beside it
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("...")
    with pytest.raises(FileExistsError, match="which holds something else"):
        export(scored_traces, "trl", tmp_path / "mine", overwrite=True)


def test_the_folder_one_stands_in(scored_traces, tmp_path, monkeypatch):
    """An empty one may be filled, whatever it is called."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export(scored_traces[:1], "trl", ".")
    assert Path("data.parquet").is_file()


def test_one_bad_trace_is_left_out_and_named(scored_traces, tmp_path):
    """A trace that is too long, and one whose selection needs what its record lacks."""
    longest = max(len(one.row()["input_ids"]) for one in scored_traces)
    without = replace(scored_traces[0], id="without", token_scores=None)
    variant = Variant(select="top-tokens", max_length=longest - 1)
    done = export([without, *scored_traces], "trl", tmp_path / "out", variant)
    assert "token_scores" in dict(done.failed)["without"]
    assert len(done.too_long) == 1
    assert done.rows == 2
    facts = json.loads((tmp_path / "out/export.json").read_text())
    assert [name for name, _ in facts["failed"]] == ["without"]


def test_a_damaged_record_stops_nothing(scored_file, tmp_path, capsys):
    good = scored_file.read_text().splitlines()
    bad = json.dumps({**json.loads(good[0]), "id": "bad", "input_ids": [-1]})
    scored_file.write_text("\n".join([good[0], bad, *good[1:]]))
    assert main(["export", str(scored_file), "--to", "trl", "--out", str(tmp_path / "out")]) == 1
    assert f"{scored_file}:2: left out: " in capsys.readouterr().err
    assert len(parquet(tmp_path / "out/data.parquet")) == len(good)


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


def test_a_file_in_the_way_is_no_loss(scored_traces, rows, tmp_path):
    out = tmp_path / "out"
    export(scored_traces, "trl", out)
    (out / "data").mkdir()
    (out / "data/mine").write_text("x")
    with pytest.raises(FileExistsError, match=r"which no export made\. Move it away"):
        export(scored_traces, "llama-factory", out, overwrite=True)
    assert len(parquet(out / "data.parquet")) == len(rows)
    assert (out / "data/mine").is_file()


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"files": ["../mine.tex"]}'])
def test_an_export_json_of_someone_else_is_no_export(scored_traces, tmp_path, text):
    (tmp_path / "mine.tex").write_text("...")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/export.json").write_text(text)
    with pytest.raises(FileExistsError, match="which holds something else"):
        export(scored_traces, "trl", tmp_path / "out", overwrite=True)
    assert (tmp_path / "mine.tex").is_file()


@pytest.mark.parametrize("name", ["..", ".", "", "../precious", "thesis.tex", "folder", "link", 7])
def test_an_export_json_is_believed_about_nothing_but_exports(scored_traces, tmp_path, name):
    """Shared or damaged, it may name anything; with --overwrite that would be deleted."""
    out = tmp_path / "project/out"
    export(scored_traces, "trl", out)
    (tmp_path / "project/precious").write_text("keep")
    (out / "thesis.tex").write_text("keep")
    (out / "folder").mkdir()
    (out / "folder/notes").write_text("keep")
    (out / "link").symlink_to(tmp_path / "project/precious")
    facts = json.loads((out / "export.json").read_text())
    (out / "export.json").write_text(json.dumps({**facts, "files": [*facts["files"], name]}))
    export(scored_traces[:1], "trl", out, overwrite=True)
    assert len(parquet(out / "data.parquet")) == 1
    for path in ("project/precious", "project/out/thesis.tex", "project/out/folder/notes"):
        assert (tmp_path / path).read_text() == "keep"
    assert (out / "link").is_symlink()


@pytest.mark.parametrize("what", ["link to a folder", "link to a file", "folder with more in it"])
def test_what_only_has_the_name_of_an_export_stays(scored_traces, tmp_path, what):
    out, mine = tmp_path / "out", tmp_path / "mine"
    to, name = ("trl", "data.parquet") if what == "link to a file" else ("llama-factory", "data")
    export(scored_traces, to, out)
    if what == "folder with more in it":
        (out / "data/train/mine").write_text("keep")
    else:
        (out / name).rename(mine)
        (out / name).symlink_to(mine)
    with pytest.raises(FileExistsError, match=r"which no export made\. Move it away"):
        export(scored_traces[:1], "llama-factory" if name == "data" else "trl", out, overwrite=True)
    assert (out / name).exists()
    assert (out / "export.json").is_file()


def test_columns_have_the_types_that_tokenizers_give(scored_traces, tmp_path):
    """As `datasets` stores them, so that exports can be merged with other data."""
    import pyarrow.parquet

    export(scored_traces, "axolotl", tmp_path / "out")
    schema = pyarrow.parquet.read_schema(tmp_path / "out/data.parquet")
    kinds = {field.name: str(field.type.value_type) for field in schema}
    assert kinds == {"input_ids": "int32", "attention_mask": "int8", "labels": "int64"}


def test_spaces_of_the_text_stay_as_they_are(tokenizer):
    """A tokenizer may be set to tidy up spaces before punctuation when it decodes."""
    ids = tokenizer("hmm . so", add_special_tokens=False)["input_ids"]
    tidy = copy.deepcopy(tokenizer)
    tidy.clean_up_tokenization_spaces = True
    assert decode(ids, tidy) == "hmm . so"


def test_the_command(scored_file, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["export", str(scored_file), "--out", str(out)]
    assert main([*arguments, "--to", "ms-swift"]) == 0  # finds the tokenizer it was scored with
    assert len(jsonl(out / "data.jsonl")) == 3
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


@pytest.mark.parametrize(
    ("policy", "code", "count"), [("error", 1, 2), ("skip", 0, 2), ("cut", 0, 3)]
)
def test_long_rows(scored_file, scored_traces, tmp_path, capsys, policy, code, count):
    longest = max(len(one.row()["input_ids"]) for one in scored_traces)
    command = ["export", str(scored_file), "--to", "trl", "--out", str(tmp_path / "out")]
    assert main([*command, "--max-length", str(longest - 1), "--too-long", policy]) == code
    found = parquet(tmp_path / "out/data.parquet")
    assert len(found) == count
    assert max(len(row["input_ids"]) for row in found) < longest
    assert ("left out: the row must fit" in capsys.readouterr().err) == (policy == "error")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "nemo"], "invalid choice: 'nemo'"),
        (["--to", "trl", "--tau", "0.5"], "select='scored' does not read tau"),
        (["--to", "trl", "--max-length", "0"], "--max-length must be at least 1, got 0"),
        (["--to", "trl", "--select", "important", "--tau", "2"], "got none: tau must be in"),
        (["--to", "axolotl", "--weights", "strength"], "reads masks only"),
        (["--to", "ms-swift", "--tokenizer", "/nowhere"], "--tokenizer /nowhere could not be"),
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
    assert "--tokenizer /nowhere could not be loaded" in capsys.readouterr().err
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


def test_real_traces_stay_text(qwen_tokenizer, real_traces):
    """Cut at token borders, 40 of 40 real traces come back from text with Qwen's tokenizer."""
    from segattr import Trace, encode, training_row

    for number, record in enumerate(real_traces):
        encoded = encode(Trace.from_record(record), qwen_tokenizer)
        chooser = random.Random(number)
        kept = [float(chooser.random() < 0.4) for _ in encoded.segments]
        kept[0] = kept[-1] = 1.0
        assert pieces_of(training_row(encoded, weights=kept), qwen_tokenizer) is not None
