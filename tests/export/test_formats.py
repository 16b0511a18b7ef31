"""What each trainer's files hold, against the rows they were made from.

The trainers' own data code reads these files in tests/export/readers: ``make test-readers``.
"""

from __future__ import annotations

import importlib.util

import datasets
import pytest
import torch
from tiny import read_jsonl, read_parquet

from segattr.export import TRAINERS, Variant, export
from segattr.export.formats import _refuse_what_swift_changes
from segattr.export.text import Piece
from segattr.training.rows import row_of


def test_trl_gets_labels_and_masks(scored_traces, rows, tmp_path):
    export(scored_traces, "trl", tmp_path / "out")
    names = ("input_ids", "labels", "assistant_masks")
    assert read_parquet(tmp_path / "out/data.parquet") == [
        {n: row[n] for n in names} for row in rows
    ]


def test_trl_gets_weights_when_there_are_some(scored_traces, tmp_path):
    variant = Variant(weighting="strength")
    export(scored_traces, "trl", tmp_path / "out", variant)
    (first, *_), expected = (
        read_parquet(tmp_path / "out/data.parquet"),
        variant.row(scored_traces[0]),
    )
    assert first["loss_weights"] == pytest.approx(expected["loss_weights"], rel=1e-6)
    assert len(set(first["loss_weights"])) > 3


def test_trl_gets_weights_that_sum_to_1(scored_traces, rows, tmp_path):
    export(scored_traces, "trl", tmp_path / "out", Variant(normalize="trace"))
    for found, row in zip(read_parquet(tmp_path / "out/data.parquet"), rows, strict=True):
        share = 1 / sum(row["assistant_masks"])
        expected = [share * on for on in row["assistant_masks"]]
        assert found["loss_weights"] == pytest.approx(expected, rel=1e-6)
    text = (tmp_path / "out/README.md").read_text()
    assert 'LossMaskCollator(tokenizer.pad_token_id, emit_weights=True, normalize="trace")' in text


@pytest.mark.parametrize("name", ["unsloth", "axolotl"])
def test_labels_and_nothing_but_them(scored_traces, rows, tmp_path, name):
    export(scored_traces, name, tmp_path / "out")
    names = ("input_ids", "attention_mask", "labels")
    assert read_parquet(tmp_path / "out/data.parquet") == [
        {n: row[n] for n in names} for row in rows
    ]


def test_llama_factory_gets_a_dataset_dict(scored_traces, rows, tmp_path):
    export(scored_traces, "llama-factory", tmp_path / "out")
    found = datasets.load_from_disk(str(tmp_path / "out/data"))
    assert list(found) == ["train"]
    names = ("input_ids", "attention_mask", "labels")
    assert list(found["train"]) == [{n: row[n] for n in names} for row in rows]


@pytest.mark.parametrize(("name", "column"), [("verl", "loss_mask"), ("openrlhf", "loss_weights")])
def test_floats_per_token(scored_traces, tmp_path, name, column):
    variant = Variant(weighting="strength")
    export(scored_traces, name, tmp_path / "out", variant)
    for found, record in zip(
        read_parquet(tmp_path / "out/data.parquet"), scored_traces, strict=True
    ):
        expected = variant.row(record)
        assert found.keys() == {"input_ids", column}
        assert found["input_ids"] == expected["input_ids"]
        assert found[column] == pytest.approx(expected["loss_weights"], rel=1e-6)
    masks = tmp_path / "masks"
    export(scored_traces, name, masks)
    assert {type(w) for row in read_parquet(masks / "data.parquet") for w in row[column]} == {float}


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
    for found, row in zip(read_parquet(tmp_path / "out/data.parquet"), rows, strict=True):
        assert found["tokens"] == row["input_ids"]
        assert [label == -100 for label in row["labels"]] == [bool(m) for m in found["mask"]]
    assert (tmp_path / "out/segattr_torchtune.py").is_file()


def test_axolotl_text_gives_the_rows_back(scored_traces, rows, tokenizer, tmp_path):
    done = export(scored_traces, "axolotl-text", tmp_path / "out", tokenizer=tokenizer)
    assert done.as_tokens == 0
    for line, row in zip(read_jsonl(tmp_path / "out/data.jsonl"), rows, strict=True):
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
    for line, row in zip(read_jsonl(tmp_path / "out/data.jsonl"), rows, strict=True):
        assert [m["role"] for m in line["messages"][:2]] == ["user", "assistant"]
        ids, mask = [], []
        for message in line["messages"]:
            piece = tokenizer(message["content"], add_special_tokens=False)["input_ids"]
            ids += piece
            mask += [int(message.get("loss", False))] * len(piece)
        assert [*ids, tokenizer.eos_token_id] == row["input_ids"]
        assert [*mask, 1] == row["assistant_masks"]


def test_ms_swift_gets_weights_of_mean_1_as_tokens(scored_traces, tokenizer, tmp_path):
    variant = Variant(weighting="strength")
    done = export(scored_traces, "ms-swift", tmp_path / "out", variant, tokenizer=tokenizer)
    assert done.as_tokens == done.rows == 3
    assert not (tmp_path / "out/data.jsonl").exists()
    for line, record in zip(read_jsonl(tmp_path / "out/tokens.jsonl"), scored_traces, strict=True):
        (message,) = line["messages"]
        expected = variant.row(record)
        assert message["content"]["token_ids"] == expected["input_ids"]
        got = torch.tensor(message["content"]["loss_scale"], dtype=torch.float64)
        assert got[got > 0].mean().item() == pytest.approx(1)
        wanted = torch.tensor(expected["loss_weights"], dtype=torch.float64)
        assert torch.allclose(got / got.sum(), wanted / wanted.sum())


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
    line = TRAINERS["ms-swift"].tokens(row, False, WithBos())
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
