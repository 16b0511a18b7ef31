"""Traces from text and from records, and the checks at the border."""

from __future__ import annotations

import pytest
import torch

from segattr import EncodedTrace, Trace


@pytest.mark.parametrize("field", ["question", "reasoning", "answer"])
@pytest.mark.parametrize("value", ["", "  \n"])
def test_empty_text_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must not be empty"):
        Trace(**{"question": "q", "reasoning": "r", "answer": "a", field: value})


def test_segments_must_join_to_the_reasoning():
    assert Trace("q", "one\n\nWait two", "a", segments=["one", "\n\nWait two"]).segments
    with pytest.raises(
        ValueError, match=r"difference at character 3: 'Wait two' instead of '\\n\\nWait two'"
    ):
        Trace("q", "one\n\nWait two", "a", segments=["one", "Wait two"])
    with pytest.raises(ValueError, match="difference at character 3: '' instead of"):
        Trace("q", "one two", "a", segments=["one"])


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"segments": [(5, 8), (9, 12)]},
            r"contiguous from the end of the prompt, got \(9, 12\) for segment 1",
        ),
        ({"segments": [(4, 8), (8, 12)]}, "where 5 should start"),
        ({"segments": [(5, 8), (8, 7)]}, "contiguous"),
        ({"segments": []}, "segments must not be empty"),
        ({"prompt": (1, 5)}, "prompt must start at 0"),
        ({"target": (14, 14)}, "target must hold at least one token"),
        ({"target": (11, 14)}, "between the reasoning's end 12"),
        ({"target": (14, 21)}, "T=20"),
        ({"input_ids": torch.zeros(1, 20)}, r"one sequence \[T\], got shape \[1, 20\]"),
    ],
)
def test_bad_spans(change, message):
    good = {
        "input_ids": range(20),
        "prompt": [0, 5],
        "segments": [[5, 8], [8, 12]],
        "target": (14, 16),
    }
    assert EncodedTrace(**good).reasoning == (5, 12)
    with pytest.raises(ValueError, match=message):
        EncodedTrace(**{**good, **change})


def test_a_target_right_after_the_reasoning_is_fine():
    encoded = EncodedTrace([1, 2, 3], (0, 0), [(0, 2)], (2, 3))
    assert encoded.input_ids.dtype == torch.int64
    assert encoded.response_ids.tolist() == []
