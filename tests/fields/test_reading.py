"""Records of many shapes to traces, and what no trace can be made from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from segattr import Trace
from segattr.fields import FIELDS, trace_fields


@pytest.mark.parametrize(
    "record",
    [
        {"question": "q", "reasoning": "r", "answer": "4"},
        {"question": "q", "solution": "r", "answer": "4"},  # LIMO
        {"problem": "q", "thinking": "r", "final_answer": 4},
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "<think>\nr</think>done"},
            ],
            "answer": "4",
        },
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "gpt", "value": "r</think>done"},
            ],
            "answer": "4",
        },
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "done", "reasoning_content": "r"},
            ],
            "answer": "4",
        },
    ],
)
def test_records_of_many_shapes(record):
    trace = Trace.from_record(record)
    question = trace.question if isinstance(trace.question, str) else trace.question[0]["content"]
    assert (question, trace.reasoning, trace.answer) == ("q", "r", "4")
    assert trace.response == ("done" if "messages" in record or "conversations" in record else None)
    assert trace.metadata == {}


def test_own_fields_come_before_the_chat():
    chat = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "R</think>S"}]
    both = {"problem": "q", "solution": "r", "response": "s", "answer": "4", "messages": chat}
    trace = Trace.from_record(both)
    assert (trace.question, trace.reasoning, trace.response) == ("q", "r", "s")
    trace = Trace.from_record({"problem": "q", "answer": "4", "messages": chat})
    assert (trace.question, trace.reasoning, trace.response) == ("q", "R", "S")


def test_a_named_field_that_is_missing_is_not_replaced_by_another():
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r</think>"}]
    for other in ({"solution": "r"}, {"messages": chat}):
        with pytest.raises(ValueError, match=r"reasoning must be given.* Looked for: cot"):
            Trace.from_record({"question": "q", "answer": "4", **other}, {"reasoning": "cot"})


@pytest.mark.parametrize("content", [None, [{"type": "text", "text": "r</think>s"}]])
def test_chat_content_that_is_no_text_is_refused(content):
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": content}]
    with pytest.raises(ValueError, match="assistant's content must be a string"):
        Trace.from_record({"messages": chat, "answer": "4"})


def test_own_field_names_and_metadata():
    trace = Trace.from_record(
        {"question": "q", "cot": "r", "answer": "a", "id": 7, "source": "x"}, {"reasoning": "cot"}
    )
    assert (trace.reasoning, trace.id, trace.metadata) == ("r", "7", {"source": "x"})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"question": "q", "answer": "a"},
            "reasoning must be given, got a record with the fields question, answer",
        ),
        ({"question": "q", "reasoning": "r", "answer": None}, "answer must be given"),
        ({"question": "q", "reasoning": ["r"], "answer": "a"}, "reasoning must be text, got list"),
        ({"question": "q", "reasoning": "r", "answer": True}, "answer must be text, got bool"),
        ({"question": "q", "reasoning": "", "answer": "a"}, "reasoning must not be empty"),
        ({"question": 5, "reasoning": "r", "answer": "a"}, "a string or chat messages .* got 5"),
        ({"question": ["q"], "reasoning": "r", "answer": "a"}, "a string or chat messages"),
        ({"question": [], "reasoning": "r", "answer": "a"}, "question must not be empty"),
        ({"question": "q", "reasoning": "r", "answer": "a", "segments": [1]}, "list of strings"),
        ({"question": "q", "reasoning": "r", "answer": "a", "segments": "r"}, "list of strings"),
        (
            {"question": "q", "reasoning": "r", "answer": "a", "response": 1},
            "must be text, got int",
        ),
        ({"question": "q", "reasoning": "ab\ud83d", "answer": "a"}, "surrogate .* at character 2"),
        ({"question": "q", "reasoning": "r", "answer": float("nan")}, "text or a number, got nan"),
        ({}, "question must be given, got a record with the fields none"),
    ],
)
def test_bad_records(record, message):
    with pytest.raises(ValueError, match=message):
        Trace.from_record(record)


def test_fields_are_those_a_trace_takes():
    record = {"problem": "q", "cot": "r", "answer": 4, "uuid": 7, "segments": ["r"], "level": 3}
    assert trace_fields(record, {"reasoning": "cot"}) == {
        "question": "q",
        "reasoning": "r",
        "answer": "4",
        "id": "7",
        "segments": ["r"],
        "metadata": {"level": 3},
    }


def test_a_record_is_not_changed():
    chat = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r</think>s"}]
    record = {"conversations": chat, "answer": 4}
    before = json.dumps(record)
    trace_fields(record)
    assert json.dumps(record) == before


@pytest.mark.parametrize("name", ["cot", "Reasoning", "metadata", ""])
def test_a_name_that_is_no_field_is_refused_with_those_that_are(name):
    listed = ", ".join(map(repr, FIELDS))
    with pytest.raises(ValueError, match=f"a key of fields must be one of {listed}, got '{name}'"):
        Trace.from_record({"question": "q", "reasoning": "r", "answer": "4"}, {name: "reasoning"})


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("1e400", "inf"),
        ("-1e400", "-inf"),
        ("[0, [1, 2, -1e999]]", "-inf"),
        ('{"b": {"c": [{"d": 1e400}]}}', "inf"),
        ("NaN", "nan"),
        ("[" * 900 + "1e400" + "]" * 900, "inf"),
    ],
)
def test_numbers_that_json_cannot_hold_are_refused_when_read(value, got):
    line = f'{{"question": "q", "reasoning": "r", "answer": "4", "a": 1, "x": {value}}}'
    record = json.loads(line)
    with pytest.raises(ValueError, match=f"finite numbers, got {got} in 'x'. Mend the record"):
        Trace.from_record(record)


def test_other_metadata_are_kept_as_they_are():
    metadata = {"a": 1e308, "b": [None, True, {"c": "inf"}], "d": 10**400, "e": [], "f": {}}
    record = {"question": "q", "reasoning": "r", "answer": "4", **metadata}
    assert Trace.from_record(record).metadata == metadata


def test_fields_are_known_without_torch():
    """For the command's help. The package itself stands aside: its face imports everything."""
    folder = Path(__file__).parents[2] / "segattr"
    code = (
        "import sys, types; package = types.ModuleType('segattr'); "
        f"package.__path__ = [{str(folder)!r}]; sys.modules['segattr'] = package; "
        "from segattr.fields import FIELDS; print(*FIELDS); "
        "assert not {'torch', 'numpy', 'transformers'} & sys.modules.keys()"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == list(FIELDS)
