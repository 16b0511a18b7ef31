"""The turn in columns, in a chat, or in both."""

from __future__ import annotations

import pytest

from segattr import Trace

USER = {"role": "user", "content": "q"}
WHOLE = "<think>\nr\n</think>\n\ns"
MARKED = ("<think>\n", "</think>")


def chat(content, **keys):
    return {"messages": [USER, {"role": "assistant", "content": content, **keys}]}


def read(record, own=None):
    trace = Trace.from_record({"answer": "4", **record}, own)
    return trace.reasoning, trace.response, trace.marks


@pytest.mark.parametrize(
    ("record", "turn"),
    [
        (chat(WHOLE), ("r\n", "\n\ns", MARKED)),
        (chat("s", reasoning_content="r"), ("r", "s", None)),
        (chat(WHOLE, reasoning_content="r"), ("r\n", "\n\ns", MARKED)),
        ({**chat(WHOLE), "reasoning": "r"}, ("r\n", "\n\ns", MARKED)),
        ({**chat(WHOLE), "response": "s"}, ("r\n", "\n\ns", MARKED)),
        ({**chat(WHOLE), "completion": WHOLE}, ("r\n", "\n\ns", MARKED)),
        ({**chat("r"), "solution": "r"}, ("r", None, None)),
        ({**chat("s"), "reasoning": "r", "response": "s"}, ("r", "s", None)),
        ({"question": "q", "reasoning_content": "", "content": WHOLE}, ("r\n", "\n\ns", MARKED)),
        ({"question": "q", "responses": [WHOLE]}, ("r\n", "\n\ns", MARKED)),
        ({"question": "q", "thinking_trajectories": ["r"], "attempt": "s"}, ("r", "s", None)),
        (
            {"question": "q", "response": {"role": "assistant", "content": "s", "thinking": "r"}},
            ("r", "s", None),
        ),
    ],
)
def test_a_turn_is_read_once(record, turn):
    assert read(record) == turn


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {**chat(WHOLE), "solution": "x"},
            r"got solution and messages\[-1\].content",
        ),
        ({**chat(WHOLE), "response": "x"}, r"got response and messages\[-1\].content"),
        ({**chat(WHOLE), "completion": "x</think>s"}, r"got completion and messages\[-1\].content"),
        (
            {**chat("s"), "reasoning": "r"},
            r"what follows the reasoning: .*response=mess",
        ),
        (chat("s"), "must say where its thinking ends"),
        (chat(None, reasoning_content="r"), "say something after its thinking, got no content"),
        (chat(" ", reasoning_content="r"), "say something after its thinking, got no content"),
        ({"question": "q", "generations": [WHOLE, WHOLE]}, r"must hold one generation, got 2"),
        ({"question": "q", "completion": [USER]}, "completion must end in the assistant's turn"),
        ({"question": "q", "response": ["a", "b"]}, "response must be text, got list"),
        ({"question": "q", "reasoning": 5}, "reasoning must be text, got int"),
    ],
)
def test_turns_that_disagree_or_are_none_are_refused(record, message):
    with pytest.raises(ValueError, match=message):
        read(record)


@pytest.mark.parametrize(
    ("record", "own", "turn"),
    [
        (chat("r"), {"reasoning": "messages[-1].content"}, ("r", None, None)),
        (chat(WHOLE), {"reasoning": "messages[-1]"}, ("r\n", "\n\ns", MARKED)),
        (chat("s", thinking="r"), {"reasoning": "messages[-1]"}, ("r", "s", None)),
        (
            chat(None, reasoning_content="r"),
            {"reasoning": "messages[-1].reasoning_content"},
            ("r", None, None),
        ),
        ({**chat(WHOLE), "cot": "x"}, {"reasoning": "cot"}, ("x", None, None)),
        ({**chat(WHOLE), "cot": "r"}, {"reasoning": "cot"}, ("r\n", "\n\ns", MARKED)),
        (
            {"question": "q", "response": WHOLE, "solution": "x"},
            {"reasoning": "solution"},
            ("x", None, None),
        ),
        (
            {"question": "q", "response": WHOLE, "cot": "r"},
            {"reasoning": "cot"},
            ("r\n", "\n\ns", MARKED),
        ),
        ({**chat(WHOLE), "final": "x"}, {"response": "final"}, ("r\n", "x", MARKED)),
        (
            {**chat("s"), "reasoning": "r"},
            {"response": "messages[-1].content"},
            ("r", "s", None),
        ),
        (
            {"question": "q", "generations": ["x</think>y", WHOLE]},
            {"reasoning": "generations[1]"},
            ("r\n", "\n\ns", MARKED),
        ),
    ],
)
def test_the_user_s_choice_is_taken(record, own, turn):
    assert read(record, own) == turn
