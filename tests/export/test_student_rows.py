"""Every trainer and every variant, in the tokens of another model than the one that scored."""

from __future__ import annotations

import json
from difflib import SequenceMatcher

import datasets
import pytest
from tiny import make_student, read_jsonl, read_parquet

from segattr.dataset import Fit, Student
from segattr.export import TRAINERS, Variant, export
from segattr.export.selection import BY_TOKEN, SELECTIONS
from segattr.training.rows import row_of


def exported_ids(folder, to, tokenizer) -> list[list[int]]:
    """The tokens that the trainer gets from an export's files, text first."""
    if to == "llama-factory":
        return list(datasets.load_from_disk(str(folder / "data"))["train"]["input_ids"])
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        found += [_ids_of(line, tokenizer) for line in read_jsonl(path)]
    for path in sorted(folder.glob("*.parquet")):
        found += [row["tokens" if to == "torchtune" else "input_ids"] for row in read_parquet(path)]
    return found


def _ids_of(line, tokenizer) -> list[int]:
    if "segments" in line:
        texts = [segment["text"] for segment in line["segments"]]
    elif not isinstance(line["messages"][0]["content"], str):
        return line["messages"][0]["content"]["token_ids"]
    else:
        texts = [message["content"] for message in line["messages"]] + [tokenizer.eos_token]
    pieces = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return [index for piece in pieces for index in piece]


WEIGHTED = [(to, "strength") for to, target in TRAINERS.items() if target.carries_weights]


@pytest.mark.parametrize(("to", "weighting"), [*((to, "mask") for to in TRAINERS), *WEIGHTED])
def test_every_trainer(scored_traces, student, tmp_path, to, weighting):
    variant = Variant(weighting=weighting)
    done = export(scored_traces, to, tmp_path / "out", variant, student=student)
    rows = [variant.row(scored, student) for scored in scored_traces]
    expected = [row["input_ids"] for row in rows]
    if to == "ms-swift":  # which leaves out the line end after the end of turn
        eos = student.tokenizer.eos_token_id
        expected = [ids[: len(ids) - ids[::-1].index(eos)] for ids in expected]
    found = exported_ids(tmp_path / "out", to, student.tokenizer)
    assert sorted(found) == sorted(expected)
    assert done.with_loss == sum(sum(row["assistant_masks"]) for row in rows)


def trained(tokenizer, row) -> str:
    """The text with loss, without white space."""
    text = tokenizer.decode([label for label in row["labels"] if label != -100])
    return "".join(text.removeprefix("<think>").split())


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize("select", [name for name in SELECTIONS if name not in BY_TOKEN])
def test_every_selection_trains_the_same_text(scored_traces, student, tokenizer, select, prune):
    variant = Variant(select=select, prune=prune, train_response=False, seed=3)
    for scored in scored_traces:
        mine = trained(student.tokenizer, variant.row(scored, student))
        assert mine == trained(tokenizer, variant.row(scored))


@pytest.mark.parametrize("select", BY_TOKEN)
def test_selected_tokens_are_the_same_text_for_bytes(scored_traces, tokenizer, select):
    student = Student(make_student("bytes"), scored_by=Student(tokenizer))
    variant = Variant(select=select, share=0.2, train_response=False)
    for scored in scored_traces:
        mine = trained(student.tokenizer, variant.row(scored, student))
        assert mine == trained(tokenizer, variant.row(scored))


@pytest.mark.parametrize("select", BY_TOKEN)
def test_selected_tokens_are_nearly_the_same_text(scored_traces, student, tokenizer, select):
    """A token of the student's may reach over the edge of one that was scored."""
    variant = Variant(select=select, share=0.2, train_response=False)
    for scored in scored_traces:
        mine = trained(student.tokenizer, variant.row(scored, student))
        theirs = trained(tokenizer, variant.row(scored))
        assert SequenceMatcher(None, mine, theirs, autojunk=False).ratio() > 0.9
        assert len(theirs) < 0.8 * len(trained(tokenizer, Variant(select="all").row(scored)))


def test_weights_are_those_of_the_segments(scored_traces, student):
    variant = Variant(select="all", weighting="strength", train_response=False)
    for scored in scored_traces:
        mine, theirs = variant.row(scored, student), variant.row(scored)
        encoded = student.read(scored).encoded
        pairs = zip(encoded.segments, scored.encoded.segments, strict=True)
        for (start, stop), (at, _) in pairs:
            assert set(mine["loss_weights"][start:stop]) == {theirs["loss_weights"][at]}


def test_what_was_counted_is_written_down(scored_traces, tmp_path):
    student = Student(make_student("bpe"), instruction=" Think.")
    fits = [student.read(scored).fit for scored in scored_traces]
    done = export(scored_traces, "trl", tmp_path / "out", student=student)
    assert done.fit == sum(fits, start=Fit())
    assert done.fit.cuts == sum(len(scored.segments) - 1 for scored in scored_traces)
    facts = json.loads((tmp_path / "out/export.json").read_text())
    assert facts["fit"] == vars(done.fit)
    assert facts["student"] == {"tokenizer": "", "instruction": " Think."}
    guide = " ".join((tmp_path / "out/README.md").read_text().split())
    assert f"Of {done.fit.cuts} cuts between segments {done.fit.moved} moved to" in guide
    assert export(scored_traces, "trl", tmp_path / "own").fit is None
    facts = json.loads((tmp_path / "own/export.json").read_text())
    assert (facts["fit"], facts["student"]) == (None, None)
    assert "cuts between" not in (tmp_path / "own/README.md").read_text()


def test_a_row_is_cut_in_the_students_tokens(scored_traces, student, tmp_path):
    lengths = [len(scored.row(student=student)["input_ids"]) for scored in scored_traces]
    limit = max(lengths) - 1
    variant = Variant(max_length=limit, too_long="cut")
    done = export(scored_traces, "trl", tmp_path / "out", variant, student=student)
    assert (len(done.cut), done.rows) == (1, 3)
    assert done.longest <= limit


@pytest.mark.parametrize("to", ["axolotl-text", "ms-swift"])
def test_another_vocabulary_without_a_student_is_refused(scored_traces, tmp_path, to):
    other = make_student("bpe")
    with pytest.raises(
        ValueError, match=r"must be the one that the traces were scored .* --student"
    ):
        export(scored_traces, to, tmp_path / "out", tokenizer=other)
    assert not (tmp_path / "out").exists()


def test_a_student_has_its_own_tokenizer(scored_traces, student, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="tokenizer must be None with student"):
        export(scored_traces, "trl", tmp_path / "out", tokenizer=tokenizer, student=student)


def test_ms_swift_gets_no_line_end_after_the_end_of_turn(scored_traces, tokenizer):
    prepare, eos = TRAINERS["ms-swift"].prepare, tokenizer.eos_token_id
    row = prepare(row_of([5, 6, eos, 7], [0, 1, 1, 0]), tokenizer)
    assert row == row_of([5, 6, eos], [0, 1, 1])
    with pytest.raises(ValueError, match="always trains the end of a turn"):
        prepare(row_of([5, 6, eos, 7], [0, 1, 0, 0]), tokenizer)
    with pytest.raises(ValueError, match="ends every row by"):
        prepare(row_of([5, 6, eos, 7], [0, 1, 1, 1]), tokenizer)
