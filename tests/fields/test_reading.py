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


CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r</think>s"}]


def test_columns_and_a_chat_must_agree():
    same = {"problem": "q", "solution": "r", "response": "s", "answer": "4", "messages": CHAT}
    trace = Trace.from_record(same)
    assert (trace.question, trace.reasoning, trace.response) == (CHAT[:1], "r", "s")
    for name in ("solution", "response", "problem"):
        with pytest.raises(ValueError, match=f"read from one place, got {name} and messages"):
            Trace.from_record({**same, name: "other"})


def test_the_user_may_choose_between_a_column_and_the_chat():
    both = {"problem": "q", "solution": "other", "answer": "4", "messages": CHAT}
    trace = Trace.from_record(both, {"reasoning": "solution"})
    assert (trace.reasoning, trace.response) == ("other", None)
    trace = Trace.from_record(both, {"reasoning": "messages[-1].content"})
    assert (trace.reasoning, trace.response, trace.marks) == ("r", "s", ("", "</think>"))


def test_a_named_field_that_is_missing_is_not_replaced_by_another():
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r</think>"}]
    for other in ({"solution": "r"}, {"messages": chat}):
        with pytest.raises(ValueError, match=r"reasoning must be given.* Looked for: cot"):
            Trace.from_record({"question": "q", "answer": "4", **other}, {"reasoning": "cot"})


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
    reading = trace_fields(record, {"reasoning": "cot"})
    assert reading.values == {
        "question": "q",
        "reasoning": "r",
        "answer": "4",
        "id": "7",
        "segments": ["r"],
        "metadata": {"level": 3},
    }
    assert reading.layout == "plain"
    assert reading.columns == {
        "question": "problem",
        "reasoning": "cot",
        "answer": "answer",
        "id": "uuid",
        "segments": "segments",
    }


def test_where_a_chat_was_cut_is_said():
    record = {"messages": [*CHAT], "system": "Think.", "answer": "4"}
    assert trace_fields(record).columns == {
        "question": "messages[:-1], system",
        "reasoning": "messages[-1].content up to </think>",
        "response": "messages[-1].content after </think>",
        "answer": "answer",
    }


def test_what_else_a_trace_takes_is_read():
    spans = {"untrained": [[0, 2]], "segments": [[0, 3], [3, 6]], "marks": ["<cot>\n", "</cot>"]}
    tool = {"type": "function", "function": {"name": "add"}}
    record = {"question": "q", "reasoning": "abcdef", "answer": "4", **spans}
    record |= {"tools": json.dumps([tool]), "chat_template_kwargs": {"thinking": True}}
    trace = Trace.from_record(record)
    assert trace.tools == [tool]
    assert Trace.from_record({**record, "tools": [json.dumps(tool)]}).tools == [tool]
    assert trace.chat_template_kwargs == {"thinking": True}
    assert (trace.untrained, trace.segments) == ([(0, 2)], ["abc", "def"])
    assert (trace.marks, trace.metadata) == (("<cot>\n", "</cot>"), {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tools": "add"}, "tools must be a list of objects, got 'add'"),
        ({"tools": ["add"]}, "tools must be a list of objects, got 'add'"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs must be an object"),
        ({"untrained": "0-2"}, "untrained must be a list of spans"),
        ({"untrained": [[0, 99]]}, "untrained must be spans inside"),
        ({"marks": ["<cot>"]}, "marks must be what opens and what closes"),
        ({"marks": "<cot>"}, "marks must be what opens and what closes"),
        (
            {"marks": ["<cot>", "</cot>"], "reasoning": "<think>\nr</think>s"},
            "marks must be those of the text, got",
        ),
        (
            {"untrained": [[0, 1]], "reasoning": "<think>\nr</think>s"},
            "untrained must count from the reasoning's first character",
        ),
        ({"finish_reason": "length"}, "must have come to its end, got length in finish_reason"),
        ({"stop_reason": "max_tokens"}, "must have come to its end, got max_tokens"),
        ({"truncated": True}, "must have come to its end, got True in truncated"),
        ({"r1": "<think>\nx</think>y"}, "reasoning must be read from one place, got .* and r1"),
        (
            {"dialogue": [{"role": "user", "content": "q"}]},
            "messages must be read, got a chat in d",
        ),
        ({"dialogue": [{"from": "human", "value": "q"}]}, "messages must be read, got a chat in d"),
        ({"r1": [{"text": "x</think>y"}]}, "reasoning must be read from one place, got .* and r1"),
    ],
)
def test_what_would_be_lost_or_misread_is_refused(changes, message):
    record = {"question": "q", "reasoning": "r", "answer": "4"}
    with pytest.raises(ValueError, match=message):
        Trace.from_record({**record, **changes})


def test_a_copy_of_the_thought_is_metadata():
    text = "user: q assistant: r</think>s"
    record = {"messages": CHAT, "answer": "4", "text": text}
    assert Trace.from_record(record).metadata == {"text": text}


def test_the_user_s_marks_cut_a_turn():
    chat = [CHAT[0], {"role": "assistant", "content": "<cot>\n</think>r</cot>s"}]
    record = {"messages": chat, "answer": "4"}
    trace = Trace.from_record(record, marks=("<cot>\n", "</cot>"))
    assert (trace.reasoning, trace.response) == ("</think>r", "s")
    assert trace.marks == ("<cot>\n", "</cot>")
    with pytest.raises(ValueError, match="marks must close the thinking"):
        Trace.from_record(record, marks=("<cot>", ""))
    assert Trace.from_record({**record, "marks": ["<cot>", "</cot>"]}).marks == trace.marks


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (r"\boxed", "2"),
        ("####", "3"),
        (r"solution:\boxed", "1"),
        ("a.b[0]", "5"),
    ],
)
def test_an_answer_may_stand_inside_a_text(answer, found):
    record = {"question": "q", "solution": r"\boxed{1}", "a": {"b": ["$5$"]}}
    record["response"] = "\\boxed{2}\n#### 3"
    assert Trace.from_record(record, {"answer": answer}).answer == found


def test_an_answer_that_stands_nowhere_is_missing():
    with pytest.raises(ValueError, match=r"answer must be given, .* Looked for: \\boxed"):
        Trace.from_record({"question": "q", "reasoning": r"\boxed{4"}, {"answer": r"\boxed"})


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
