"""Which records become rows, which are left out, and what is counted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tiny import read_jsonl, read_parquet

from segattr.export import TRAINERS, Variant, export

TEXT = [name for name, target in TRAINERS.items() if target.line is not None]
WEIGHTED = [name for name, target in TRAINERS.items() if target.carries_weights]


def test_what_text_would_change_goes_to_a_file_of_tokens(
    scored_traces, cut_inside_a_character, tokenizer, tmp_path
):
    row = Variant().row(cut_inside_a_character)
    for name in TEXT:
        mixed = [scored_traces[0], cut_inside_a_character]
        done = export(mixed, name, tmp_path / name, tokenizer=tokenizer)
        assert (done.rows, done.as_tokens) == (2, 1)
        assert "1 rows whose tokens" in (tmp_path / name / "README.md").read_text()
        assert len(read_jsonl(tmp_path / name / "data.jsonl")) == 1
    (found,) = read_parquet(tmp_path / "axolotl-text/tokens.parquet")
    assert found == {name: row[name] for name in ("input_ids", "attention_mask", "labels")}
    ((message,),) = [line["messages"] for line in read_jsonl(tmp_path / "ms-swift/tokens.jsonl")]
    content = {"token_ids": row["input_ids"], "loss_scale": row["loss_weights"]}
    assert message == {"role": "assistant", "content": content}


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


@pytest.mark.parametrize("option", [{"weighting": "strength"}, {"normalize": "trace"}])
@pytest.mark.parametrize("name", sorted(set(TRAINERS) - set(WEIGHTED)))
def test_masks_only_trainers_refuse_weights(scored_traces, tokenizer, tmp_path, name, option):
    able, ((argument, value),) = ", ".join(WEIGHTED), option.items()
    message = rf"reads weights \({able}\), got '{name}'.* Leave out {argument}='{value}'\."
    with pytest.raises(ValueError, match=message):
        export(scored_traces, name, tmp_path / "out", Variant(**option), tokenizer=tokenizer)


def test_a_trainer_that_divides_by_tokens_cannot_count_traces_alike(
    scored_traces, tokenizer, tmp_path
):
    message = (
        r"divides by the sum of weights \(trl, verl, openrlhf\), got 'ms-swift', which divides"
    )
    with pytest.raises(ValueError, match=message):
        export(
            scored_traces,
            "ms-swift",
            tmp_path / "out",
            Variant(normalize="trace"),
            tokenizer=tokenizer,
        )


def test_bad_calls(scored_traces, tmp_path):
    with pytest.raises(
        ValueError, match=r"to must be one of 'trl', 'llama-factory', .*, got 'nemo'"
    ):
        export(scored_traces, "nemo", tmp_path / "out")
    with pytest.raises(ValueError, match="needs the tokenizer, got None"):
        export(scored_traces, "ms-swift", tmp_path / "out")
    with pytest.raises(ValueError, match="must give rows to export, got none: the file is empty"):
        export([], "trl", tmp_path / "out")
    assert not list(tmp_path.iterdir())


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
