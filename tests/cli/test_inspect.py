"""What a person sees before a night is spent: fields, cuts, texts, counts, refusals."""

from __future__ import annotations

import json

import pytest

from segattr.cli.main import main

TURN = {"role": "assistant", "content": "<think>\nOkay.\n\nWait, 42.\n</think>\n\nIt is 42."}
CHAT = {"messages": [{"role": "user", "content": "What is 12 plus 30?"}, TURN], "answer": "42"}


@pytest.fixture
def mixed(tmp_path):
    """A chat, a trace of one segment that spells a token out, and three that are refused."""
    records = [
        {**CHAT, "id": "chat", "source": "x"},
        {"question": "q?", "reasoning": "Okay <eos>.", "answer": "42", "id": "one"},
        {"question": "q?", "reasoning": "Okay."},
        {"question": "r?", "reasoning": "Well."},
        {"question": "q?", "reasoning": "a</think>b</think>c", "answer": "1"},
    ]
    path = tmp_path / "mixed.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + "{broken\n")
    return str(path)


def shown(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.err == ""
    return " ".join(captured.out.split())


def test_fields_and_cuts_are_shown_and_reasons_counted(mixed, capsys):
    assert main(["inspect", mixed]) == 1
    out = shown(capsys)
    assert "mixed.jsonl:1 chat (layout plain)" in out
    assert "question, from messages[:-1], 25 characters user: What is 12 plus 30?" in out
    assert "reasoning, from messages[-1].content up to </think>, 17 characters" in out
    assert "not read: source" in out
    assert "2 segments 1 5 characters Okay. 2 12 characters Wait, 42." in out
    assert "2 of 6 traces can be read: 2 as plain" in out
    assert "1 traces have only one" in out
    assert "1 traces have no response" in out
    assert "mixed.jsonl:3 and 1 more: answer must be given" in out
    assert "mixed.jsonl:6: the line must be JSON" in out
    assert "tokens to attribute" not in out


def test_with_a_tokenizer_both_texts_are_shown_with_special_tokens(mixed, capsys):
    options = ["--model", "bundled", "--first", "2", "--max-length", "30"]
    assert main(["inspect", mixed, *options]) == 1
    out = shown(capsys)
    assert "<user>What is 12 plus 30?<assistant><think> Okay. Wait, 42. </think> So, the" in out
    assert "Wait, 42. </think> It is 42.<eos>" in out
    assert "the texts spell out <eos>: see --split-special-tokens" in out
    assert "1 traces spell out <eos>" in out
    assert "; 1 above it" in out


def test_all_well_is_exit_code_0(traces, capsys):
    options = ["--segmenter", "sentences", "--segment-tokens", "4"]
    assert main(["inspect", str(traces), *options]) == 0
    assert "3 of 3 traces can be read" in shown(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "TRACES must be files that can be read, got nowhere.jsonl"),
        ([], "TRACES must name files"),
        (["FILE", "--segmenter", "entropy"], "entropy needs the model"),
        (["FILE", "--layout", "LIMO"], "--layout must be one of"),
        (["FILE", "--model", "./nowhere"], "no such folder"),
    ],
)
def test_what_cannot_be_inspected(mixed, capsys, arguments, message):
    given = [mixed if word == "FILE" else word for word in arguments]
    assert main(["inspect", *given]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_an_empty_file_is_refused(tmp_path, capsys):
    (tmp_path / "empty.jsonl").write_text("")
    assert main(["inspect", str(tmp_path / "empty.jsonl")]) == 2
    assert "must hold traces" in " ".join(capsys.readouterr().err.split())
