"""Which columns hold a field: one each, and never one for two."""

from __future__ import annotations

import pytest

from segattr.fields.columns import Columns
from segattr.fields.layouts import PLAIN, layout_of
from segattr.fields.thinking import MARKS


def columns(record, own=None, layout=PLAIN):
    return Columns(record, own or {}, layout)


def found(record, field, own=None):
    one = columns(record, own).find(field, MARKS)
    return None if one is None else (one.column, one.value)


def test_a_column_that_is_named_fills_no_other_field():
    record = {"prompt": "q", "response": "r", "answer": "4"}
    assert found(record, "response", {"reasoning": "response"}) is None
    record = {"question": "q", "solution": "4", "cot": "r"}
    assert found(record, "reasoning", {"answer": "solution"}) == ("cot", "r")
    assert found({"answer": {"text": "4"}}, "answer", {"reasoning": "answer.text"}) is None


def test_a_chat_may_be_named_in_part_and_still_be_read():
    chat = [{"role": "user", "content": "q"}]
    own = {"reasoning": "messages[-1].content"}
    assert found({"messages": chat}, "messages", own) == ("messages", chat)


@pytest.mark.parametrize(
    ("field", "record", "column"),
    [
        ("question", {"question": "q", "problem": "q\n"}, "question"),
        ("question", {"question": "", "problem": "q"}, "problem"),
        ("question", {"question": None, "problem": "q"}, "problem"),
        ("answer", {"answer": "42", "final_answer": 42.0, "expected_answer": "$42$"}, "answer"),
        ("reasoning", {"solution": "42", "answer": "42", "cot": "r"}, "cot"),
        ("reasoning", {"thinking": True, "solution": "r"}, "solution"),
        ("id", {"id": 1, "uuid": "x"}, "id"),
        ("finish_reason", {"finish_reason": "stop", "stop_reason": 7}, "finish_reason"),
        ("question", {"question": "q", "prompt": [{"role": "user", "content": "q"}]}, "prompt"),
    ],
)
def test_two_columns_that_agree_are_one(field, record, column):
    assert found(record, field)[0] == column


@pytest.mark.parametrize(
    ("field", "record"),
    [
        ("question", {"question": "q", "problem": "p"}),
        ("question", {"prompt": "q", "instruction": "p"}),
        ("reasoning", {"reasoning": "r", "solution": "s"}),
        ("reasoning", {"solution": "s", "cot": "r"}),
        ("reasoning", {"solution": "s", "deepseek_thinking_trajectory": "r"}),
        ("answer", {"answer": "1", "expected_answer": "2"}),
        ("answer", {"answer": "1", "ground_truth": "2"}),
        ("response", {"response": "1", "completion": "2"}),
        ("messages", {"messages": [1], "conversations": [2]}),
        ("system", {"system": "a", "system_prompt": "b"}),
    ],
)
def test_two_columns_that_differ_are_refused_with_the_way_to_choose(field, record):
    first, second = record
    message = f"{field} must be read from one place, got {first} and {second}.*--field {field}="
    with pytest.raises(ValueError, match=message):
        found(record, field)
    assert found(record, field, {field: second}) == (second, record[second])


@pytest.mark.parametrize(
    ("record", "column"),
    [
        ({"response": "s", "reasoning": "r"}, "response"),
        ({"output": "r</think>s"}, "output"),
        ({"output": "s", "instruction": "q", "reasoning": "r"}, "output"),
        ({"content": "s", "reasoning_content": "r"}, "content"),
        ({"attempt": "s", "thinking_trajectories": ["r"]}, "attempt"),
        ({"generation": "r</think>s", "reasoning": "r"}, "generation"),
        ({"generation": 3, "reasoning": "r"}, None),
        ({"output": "", "reasoning": "r"}, None),
        ({"response": [], "reasoning": "r"}, None),
    ],
)
def test_a_response_is_known_by_its_name_or_what_is_beside_it(record, column):
    one = columns(record).find("response", MARKS)
    assert (one.column if one and one.value else None) == column


def test_what_may_be_a_response_is_refused_unless_it_is_named():
    record = {"question": "q", "reasoning": "r", "answer": "4", "output": "s"}
    with pytest.raises(ValueError, match="response must be named, got output beside reasoning"):
        found(record, "response")
    assert found(record, "response", {"response": "output"}) == ("output", "s")
    assert found(record, "response", {"response": None}) is None


@pytest.mark.parametrize(
    ("record", "layout"),
    [
        ({"reasoning_content": "r", "content": "s"}, "plain"),
        ({"thinking_trajectories": ["r"], "attempt": "s"}, "s1k"),
        ({"deepseek_reasoning": "r", "deepseek_solution": "s"}, "openthoughts-metadata"),
    ],
)
def test_a_response_to_another_reasoning_than_the_user_s_is_refused(record, layout):
    record = {**record, "cot": "x"}
    known = layout_of(record, layout)
    with pytest.raises(ValueError, match="response must be named, got"):
        columns(record, {"reasoning": "cot"}, known).find("response", MARKS)
    assert columns(record, {"reasoning": "cot", "response": None}, known).find("response") is None
    first, second, _ = record
    assert columns(record, {"reasoning": first}, known).find("response", MARKS).column == second


@pytest.mark.parametrize("content", [None, ""])
def test_a_thought_without_anything_after_it_was_cut_off(content):
    record = {"reasoning_content": "r", "content": content}
    with pytest.raises(ValueError, match="content must hold what follows reasoning_content"):
        found(record, "response")
    assert not found(record, "response", {"reasoning": "reasoning_content"})


def test_a_column_that_is_not_there_is_no_optional_one():
    with pytest.raises(ValueError, match=r"response must be given, .* Looked for: final"):
        found({"reasoning": "r"}, "response", {"response": "final"})
    assert found({"final": None}, "response", {"response": "final"}) is None


def test_a_column_is_named_for_one_field():
    with pytest.raises(ValueError, match="name a column once, got 'solution' for two fields"):
        columns({}, {"reasoning": "solution", "answer": "solution"})
    columns({}, {"reasoning": "answer", "answer": "answer:####"})


def test_a_layout_looks_nowhere_else():
    record = {"question": "q", "solution": "s", "answer": "4", "reasoning": "r", "id": 7}
    known = columns(record, layout=layout_of(record, "limo"))
    assert known.find("reasoning").column == "solution"
    assert known.find("response") is None
    assert known.find("id").value == 7
