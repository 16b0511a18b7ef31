"""Chat messages of many shapes, and the last turn among them."""

from __future__ import annotations

import json

import pytest

from segattr.fields.chat import read_chat
from segattr.fields.names import Found

USER = {"role": "user", "content": "q"}
TURN = {"role": "assistant", "content": "<think>\nr</think>s"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def chat(*turns):
    return read_chat(Found(list(turns), "messages"))


@pytest.mark.parametrize(
    "messages",
    [
        [USER, TURN],
        json.dumps([USER, TURN]),
        [{"from": "human", "value": "q"}, {"from": "gpt", "value": TURN["content"]}],
        {"role": ["user", "assistant"], "content": ["q", TURN["content"]]},
        [{**USER, "tool_calls": None, "name": None}, {**TURN, "tool_calls": None}],
        [{**USER, "content": [{"type": "text", "text": "q"}]}, TURN],
        [USER, {**TURN, "content": [{"type": "text", "text": "<think>\nr"},
                                    {"type": "text", "text": "</think>s"}]}],
    ],
)  # fmt: skip
def test_chats_of_many_shapes(messages):
    read = read_chat(Found(messages, "messages"))
    assert read.question == [USER]
    assert (read.reasoning, read.content.value) == (None, TURN["content"])


def test_messages_keep_all_their_keys():
    called = {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "x"}
    tool = {"role": "tool", "content": "1", "name": "add", "tool_call_id": "7"}
    assert chat(USER, called, tool, TURN).question == [USER, called, tool]


def test_sharegpt_calls_functions():
    call = {"from": "function_call", "value": json.dumps(CALL["function"])}
    read = chat(USER, call, {"from": "observation", "value": "1"}, TURN)
    assert read.question[1:] == [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "1"},
    ]


@pytest.mark.parametrize(
    "keys",
    [
        {"tool_calls": [CALL]},
        {"tool_calls": json.dumps([CALL])},
        {"tool_calls": [CALL["function"]]},
        {"function_call": CALL["function"], "tool_calls": []},
    ],
)
def test_calls_are_written_as_templates_read_them(keys):
    read = chat(USER, {"role": "assistant", "content": "", **keys}, TURN)
    assert read.question[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}


@pytest.mark.parametrize(
    ("role", "known"),
    [("Human", "user"), ("GPT", "assistant"), ("System", "system"), ("function", "tool"),
     ("ipython", "ipython"), ("developer", "developer")],
)  # fmt: skip
def test_roles_have_many_names(role, known):
    assert chat({"role": role, "content": "q"}, USER).question[0]["role"] == known


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_has_several_names(key):
    read = chat(USER, {"role": "assistant", "content": "s", key: "r"})
    assert (read.reasoning.value, read.content.value) == ("r", "s")
    assert read.reasoning.column == f"messages[-1].{key}"


@pytest.mark.parametrize(
    "thinking",
    [
        {"type": "thinking", "thinking": "r"},
        {"type": "thinking", "thinking": [{"type": "text", "text": "r"}]},
        {"type": "reasoning", "text": "r"},
    ],
)
def test_thinking_may_be_a_part(thinking):
    parts = [thinking, {"type": "text", "text": "s"}]
    read = chat(USER, {"role": "assistant", "content": parts})
    assert (read.reasoning.value, read.content.value) == ("r", "s")


def test_a_chat_may_stop_before_the_turn():
    for messages in ([USER], [USER, TURN, USER]):
        read = chat(*messages)
        assert not read.has_turn
        assert read.question == messages


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([{"role": ["user"], "content": "q"}, TURN], "a message's role must be text, got"),
        ([{"content": "q"}, TURN], "a message's role must be text, got None"),
        ([{**USER, "from": "gpt"}, TURN], "role must be text, got 'assistant'"),
        ([{**USER, "value": "p"}, TURN], "must have one content, got content and value"),
        ([USER, {"role": "assistant"}, USER, TURN], "must have content, got None in number 1"),
        ([{"role": "user"}, TURN], "a message of messages must have content"),
        ([{**USER, "content": 3}, TURN], "question must be a string or chat messages"),
        ([{**USER, "content": [{"type": "image"}]}, TURN], "content must be a string or parts of"),
        ([USER, {**TURN, "content": ["r"]}], "content must be a string or parts of text"),
        ([USER, {**TURN, "content": [{"type": "text"}]}], "a part's text must be text"),
        ([USER, {"role": "assistant"}], "assistant's content must be a string, got None"),
        ([USER, {**TURN, "tool_calls": [CALL]}], "got tool_calls in messages"),
        ([USER, {**TURN, "function_call": CALL["function"]}], "got tool_calls in messages"),
        ([USER, {**TURN, "refusal": "No."}], "got refusal in messages"),
        ([USER, {**TURN, "weight": 0}], "the last turn must carry loss, got weight=0"),
        ([USER, {**TURN, "train": False}], "the last turn must carry loss, got train=False"),
        ([USER, {**TURN, "finish_reason": "length"}], "must have come to its end, got length"),
        ([USER, {**TURN, "reasoning": 5}], "reasoning must be text, got 5"),
        (
            [USER, {**TURN, "reasoning": "r", "thinking": "x"}],
            "got messages.-1..reasoning and messages.-1..thinking, which differ",
        ),
        (
            [USER, {**TURN, "content": [{"type": "text", "text": "s"},
                                        {"type": "thinking", "thinking": "r"}]}],
            "must think before it answers, got parts text, thinking",
        ),
        ([USER, {"from": "function_call", "value": "add(1)"}, TURN], "must be JSON with a name"),
        ([USER, {**TURN, "tool_calls": "add(1)"}, USER], "must be JSON with a name, got 'add"),
        (["q", TURN], "must be chat messages, objects with role and content"),
        (5, "messages must be a list of messages, got 5"),
        ("q", "messages must be a list of messages, got 'q'"),
    ],
)  # fmt: skip
def test_chats_that_cannot_be_read_are_refused(turns, message):
    with pytest.raises(ValueError, match=message):
        read_chat(Found(turns, "messages"))
