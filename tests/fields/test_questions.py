"""The question: everything that a prompt is made of, or an error that names what is left."""

from __future__ import annotations

import json

import pytest

from segattr import Trace

REST = {"response": "<think>\nr</think>s", "answer": "4"}
USER = {"role": "user", "content": "q"}
SYSTEM = {"role": "system", "content": "Think."}
TURN = {"role": "assistant", "content": "<think>\nr</think>s"}


@pytest.mark.parametrize(
    ("record", "question"),
    [
        ({"question": "q"}, "q"),
        ({"prompt": [SYSTEM, USER]}, [SYSTEM, USER]),
        ({"prompt": json.dumps([USER])}, [USER]),
        ({"question": "q", "system": "Think."}, [SYSTEM, USER]),
        ({"question": "q", "system": " "}, "q"),
        ({"prompt": [USER], "system_prompt": "Think."}, [SYSTEM, USER]),
        ({"prompt": [SYSTEM, USER], "system": "Think."}, [SYSTEM, USER]),
        ({"instruction": "Add.", "input": "1 2"}, "Add.\n1 2"),
        ({"instruction": "Add.", "input": ""}, "Add."),
        ({"question": "Add 1 2.", "input": "1 2"}, "Add 1 2."),
        (
            {"instruction": "Add.", "input": "1 2", "history": [["a", "b"]], "system": "Think."},
            [
                SYSTEM,
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "Add.\n1 2"},
            ],
        ),
        ({"question": "Which? A) x B) y", "choices": ["x", "y"]}, "Which? A) x B) y"),
        ({"question": "q", "images": [], "context": "", "functions": None}, "q"),
    ],
)
def test_a_prompt_of_several_columns(record, question):
    trace = Trace.from_record({**record, **REST})
    assert (trace.question, trace.reasoning, trace.response) == (question, "r", "s")


@pytest.mark.parametrize(
    ("record", "question"),
    [
        ({"messages": [SYSTEM, USER, TURN]}, [SYSTEM, USER]),
        ({"messages": [SYSTEM, USER, TURN], "problem": "q"}, [SYSTEM, USER]),
        ({"messages": [USER, TURN], "prompt": [USER]}, [USER]),
        ({"messages": [USER, TURN], "system": "Think."}, [SYSTEM, USER]),
        ({"conversations": [USER], "response": TURN["content"]}, [USER]),
        ({"prompt": [USER], "completion": [TURN]}, [USER]),
        ({"prompt": [USER], "completion": TURN}, [USER]),
        ({"prompt": "q", "completion": [TURN]}, "q"),
    ],
)
def test_a_question_in_a_chat(record, question):
    trace = Trace.from_record({**record, "answer": "4"})
    assert (trace.question, trace.reasoning, trace.response) == (question, "r", "s")


def test_a_completion_of_several_turns_ends_in_the_one_that_is_read():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]}
    tool = {"role": "tool", "content": "4"}
    record = {"prompt": "q", "completion": [call, tool, TURN], "answer": "4"}
    assert Trace.from_record(record).question == [USER, call, tool]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"question": "p", "messages": [USER, TURN]}, "got question and messages, which differ"),
        (
            {"prompt": "q", "messages": [USER, TURN, USER, TURN]},
            "question must be read from one place, got prompt and messages",
        ),
        (
            {"prompt": [SYSTEM, USER], "messages": [USER, TURN]},
            "question must be read from one place, got prompt and messages",
        ),
        ({"messages": [SYSTEM, USER, TURN], "system": "No."}, "system must be read from one place"),
        ({"question": ["q"], "system": "Think.", **REST}, "question must be a string or chat"),
        ({"question": "q", "system": ["Think."], **REST}, "system must be text, got"),
        ({"question": "q", "input": "1 2", **REST}, "input must have a place in the question"),
        ({"prompt": [USER], "input": "1 2", **REST}, "input must have a place in the question"),
        ({"prompt": [USER], "history": [["a", "b"]], **REST}, "history must have a place"),
        ({"question": "q", "history": [["a"]], **REST}, "history must be pairs of texts"),
        ({"question": "q", "history": "a", **REST}, "history must be a list of pairs"),
        ({"prompt": [USER, TURN], **REST}, "question must stop before the assistant's turn"),
        ({"prompt": "q\n<think>\n", **REST}, "question must stop before the assistant's turn"),
        ({"prompt": "<|im_start|>user\nq<|im_end|>", **REST}, "chat template was applied already"),
        *(
            ({"question": "q", name: value, **REST}, f"{name} must not decide about tokens")
            for name, value in {
                "images": ["x.png"],
                "context": "In 1066.",
                "choices": ["x", "y"],
                "functions": [{"name": "add"}],
                "prefix": "Sure",
                "developer": "Think.",
                "starter_code": "def add(",
                "enable_thinking": True,
                "chat_template": "{{ messages }}",
                "input_ids": [1, 2],
            }.items()
        ),
    ],
)
def test_a_part_of_the_prompt_is_never_lost_in_silence(record, message):
    with pytest.raises(ValueError, match=message):
        Trace.from_record({"answer": "4", **record})
