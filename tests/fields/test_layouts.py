r"""Layouts of data sets: a record of each, known by its columns or asked for by name."""

from __future__ import annotations

import pytest

from segattr import Trace, encode
from segattr.fields import LAYOUTS, trace_fields
from segattr.fields.layouts import NAMED

THOUGHT = "Okay.\n\nWait, 42.\n"
MARKED = f"<think>\n{THOUGHT}</think>"
WHOLE = f"{MARKED}\n\nSo \\boxed{{42}}."
USER = {"role": "user", "content": "q"}
CHAT = [USER, {"role": "assistant", "content": WHOLE}]
CHAT_WITHOUT_BOX = [USER, {"role": "assistant", "content": MARKED}]
SHAREGPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": WHOLE}]
BESPOKE = (
    f"<|begin_of_thought|>\n\n{THOUGHT}<|end_of_thought|>\n\n<|begin_of_solution|>\n\n"
    "So \\boxed{42}.\n\n<|end_of_solution|>"
)
BESPOKE_CHAT = [{"from": "user", "value": "q"}, {"from": "assistant", "value": BESPOKE}]

# What each data set's records have, but for columns that no field is made of.
RECORDS = {
    "limo": {"question": "q", "solution": THOUGHT, "answer": "42"},
    "s1k": {
        **{"question": "q", "solution": "42", "cot_type": "math", "cot": None},
        **{"thinking_trajectories": [THOUGHT], "attempt": "So 42.", "metadata": "{}"},
    },
    "s1k-1.1": {
        **{"question": "q", "solution": "By adding.\n\n\\boxed{42}", "cot_type": "math"},
        **{"gemini_thinking_trajectory": "x", "gemini_attempt": "x", "gemini_grade": "No"},
        **{"deepseek_thinking_trajectory": THOUGHT, "deepseek_attempt": "So 42."},
    },
    "openthoughts": {"system": "Think.", "conversations": BESPOKE_CHAT},
    "bespoke-stratos": {"system": "Think.", "conversations": BESPOKE_CHAT},
    "openthoughts-metadata": {
        **{"problem": "q", "deepseek_reasoning": THOUGHT, "deepseek_solution": "So 42."},
        **{"ground_truth_solution": "Adding, \\boxed{42}.", "domain": "math", "test_cases": None},
    },
    "openthoughts2": {"conversations": SHAREGPT, "question": "q!", "source": "x", "id": 1},
    "openthoughts3": {"conversations": SHAREGPT, "difficulty": 7, "source": "x", "domain": "math"},
    "openr1-math": {
        **{"problem": "q", "solution": "By adding, 42.", "answer": "42", "uuid": "u"},
        **{"generations": ["<think>\n41.\n</think>41", "<think>\n42", WHOLE], "messages": CHAT},
        **{"correctness_math_verify": [False, True, True], "correctness_llama": None},
        **{"is_reasoning_complete": [True, False, True], "finish_reasons": None},
    },
    "mixture-of-thoughts": {"messages": CHAT, "num_tokens": 20, "source": "math"},
    "openmathreasoning": {
        **{"problem": "q", "generated_solution": WHOLE, "expected_answer": "42"},
        **{"problem_type": "has_answer_extracted", "inference_mode": "cot"},
    },
    "am-deepseek-r1": {
        "messages": [
            {**USER, "info": {"reference_answer": "42", "source": "x"}},
            {
                "role": "assistant",
                "content": f"<think>{THOUGHT}</think><answer>So 42.</answer>",
                "info": {"think_content": THOUGHT, "answer_content": "So 42."},
            },
        ]
    },
    "numinamath-cot": {
        **{"source": "x", "problem": "q", "solution": f"{THOUGHT}\\boxed{{42}}"},
        "messages": [USER, {"role": "assistant", "content": f"{THOUGHT}\\boxed{{42}}"}],
    },
    "gsm8k": {"question": "q", "answer": f"{THOUGHT}#### 42"},
    "chinese-deepseek-r1": {
        **{"input": "q", "reasoning_content": THOUGHT, "content": "So \\boxed{42}."},
        **{"repo_name": "x", "score": 10},
    },
    "trl": {"prompt": "q", "completion": WHOLE},
    "alpaca": {"instruction": "q", "input": "", "output": WHOLE},
    "sharegpt": {"conversations": SHAREGPT},
    "verl": {
        **{"data_source": "x", "prompt": [USER], "ability": "math", "responses": [WHOLE]},
        **{"reward_model": {"style": "rule", "ground_truth": "42"}, "extra_info": {"index": 0}},
    },
    "segattr": {
        **{"schema": 3, "digest": "d", "id": "a", "question": "q", "reasoning": THOUGHT},
        **{"answer": "42", "response": "\n\nSo 42.", "tools": None, "chat_template_kwargs": {}},
        **{"untrained": [[0, 2]], "marks": ["<think>\n", "</think>"], "prompt": [0, 3]},
        **{"segments": [{"characters": [0, 5]}], "input_ids": [1, 2], "metadata": {"level": 3}},
    },
}
# Nothing but its name tells such a layout from others.
BY_NAME = ("limo", "bespoke-stratos", "trl", "sharegpt")


def test_every_layout_has_a_record():
    assert {layout.name for layout in NAMED} == RECORDS.keys()
    assert set(LAYOUTS) == {"auto", "plain", *RECORDS}


@pytest.mark.parametrize(
    ("name", "layout"),
    [(name, name) for name in RECORDS]
    + [(name, "auto") for name in RECORDS if name not in BY_NAME],
)
def test_a_record_of_each_layout(name, layout):
    reading = trace_fields(RECORDS[name], layout=layout)
    trace = Trace(**reading.values)
    question = trace.question if isinstance(trace.question, str) else trace.question[-1]["content"]
    assert (reading.layout, question, trace.answer) == (name, "q", "42")
    thought = THOUGHT.removesuffix("\n") if name == "openthoughts" else THOUGHT
    assert trace.reasoning.startswith(thought)
    without_response = ("limo", "numinamath-cot", "gsm8k")
    assert (trace.response is None) == (name in without_response)
    if trace.response is not None:
        assert trace.reasoning == THOUGHT
        assert "42" in trace.response


@pytest.mark.parametrize("name", ["limo"])
def test_a_layout_that_plain_columns_say_is_not_recognised(name):
    reading = trace_fields(RECORDS[name])
    assert reading.layout == "plain"
    assert reading.values == trace_fields(RECORDS[name], layout=name).values


def test_a_scored_file_gives_back_its_traces():
    trace = Trace.from_record(RECORDS["segattr"])
    assert (trace.id, trace.marks) == ("a", ("<think>\n", "</think>"))
    assert (trace.untrained, trace.segments, trace.metadata) == ([(0, 2)], None, {"level": 3})


def test_marks_of_thought_and_of_solution_stay_in_the_text():
    trace = Trace.from_record(RECORDS["openthoughts"])
    assert "".join([trace.marks[0], trace.reasoning, trace.marks[1], trace.response]) == BESPOKE
    assert trace.question[0] == {"role": "system", "content": "Think."}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "openr1-math",
            {"correctness_math_verify": [False] * 3},
            r"correct and complete generation, got none of 3 .*reasoning=generations\[0\]",
        ),
        ("openr1-math", {"finish_reasons": ["stop", "stop", "length"]}, "got none of 3"),
        ("openr1-math", {"correctness_math_verify": [True]}, "a verdict for each"),
        ("openr1-math", {"generations": WHOLE}, "a verdict for each"),
        ("mixture-of-thoughts", {"messages": CHAT_WITHOUT_BOX}, "answer must be given"),
        (
            "numinamath-cot",
            {"solution": "42.", "messages": None},
            "answer must be given",
        ),
        ("numinamath-cot", {"messages": CHAT}, "reasoning must be read from one place"),
        ("verl", {"images": ["x.png"]}, "images must not decide about tokens"),
        ("am-deepseek-r1", {"images": ["x.png"]}, "images must not decide about tokens"),
        ("chinese-deepseek-r1", {"instruction": "p"}, "instruction|question"),
        ("alpaca", {"output": "So \\boxed{42}."}, "must say where its thinking ends"),
        ("s1k", {"thinking_trajectories": ["a", "b"]}, "must hold one generation, got 2"),
        ("gsm8k", {"cot": "r"}, "answer must be the final answer alone"),
        ("segattr", {"metadata": [1]}, "metadata must be an object, got"),
        ("limo", {"r1_generation": "Hm.</think>42"}, "reasoning must be read from one place"),
        ("s1k", {"deepseek_thinking_trajectory": "x"}, "reasoning must be read from one place"),
    ],
)
def test_what_a_data_set_does_not_say_surely_is_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        Trace.from_record({**RECORDS[name], **changes})


def test_a_column_of_the_user_comes_before_the_layout_s():
    record = RECORDS["openr1-math"]
    reading = trace_fields(record, {"reasoning": "generations[0]"})
    assert (reading.layout, reading.values["reasoning"]) == ("openr1-math", "41.\n")
    reading = trace_fields(record, {"reasoning": "solution"})
    assert reading.values["reasoning"] == "By adding, 42."


def test_a_name_that_is_no_layout_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"layout must be one of 'auto', 'plain', .*got 'LIMO'"):
        Trace.from_record(RECORDS["limo"], layout="LIMO")


def test_a_layout_that_a_record_is_not_of_is_refused_by_what_is_missing():
    for name in ("s1k", "openr1-math", "verl"):
        with pytest.raises(ValueError, match=r"must be given, .* Looked for: "):
            Trace.from_record(RECORDS["limo"], layout=name)


def test_plain_recognises_no_data_set():
    with pytest.raises(ValueError, match="reasoning must be given"):
        Trace.from_record({"question": "q", "answer": "1\n#### 42"}, layout="plain")


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_of_each_layout_comes_back_as_text(tokenizer, name):
    trace = Trace.from_record(RECORDS[name], layout=name)
    encoded = encode(trace, tokenizer)
    ids = encoded.input_ids
    asked = trace.question
    for text in [asked] if isinstance(asked, str) else [one["content"] for one in asked]:
        assert text in tokenizer.decode(ids[slice(*encoded.prompt)])
    assert tokenizer.decode(ids[slice(*encoded.reasoning)]) == trace.reasoning
    assert tokenizer.decode(ids[slice(*encoded.target)]) == trace.answer
    response = "" if trace.response is None else f"</think>{trace.response}"
    assert tokenizer.decode(encoded.response_ids) == f"{response}<eos>"
