"""The training text is what the model's own chat template makes of the conversation."""

from __future__ import annotations

import re

import pytest
from tiny_tokenizers import (
    CHANNELS,
    OPENS,
    OPENS_AND_WRITES,
    PARTS,
    PARTS_ONLY,
    PLAIN,
    SPACED,
    SWITCHED,
    WRITES,
    byte_level,
    sentence_piece,
)

from segattr import Trace, encode, training_row

QUESTION = "What is 12 plus 30?"
REASONING, RESPONSE = "Okay, 12 plus 30.\n\nWait, 42.", "The sum is \\boxed{42}."


def row_of(trace: Trace, tokenizer, **options):
    encoded = encode(trace, tokenizer, **options)
    return training_row(encoded, weights=[1] * len(encoded.segments))


def text_of(trace: Trace, tokenizer, **options) -> str:
    return tokenizer.decode(row_of(trace, tokenizer, **options)["input_ids"])


def attributed(trace: Trace, tokenizer, **options) -> str:
    return tokenizer.decode(encode(trace, tokenizer, **options).input_ids)


def inline(reasoning: str, response: str) -> dict:
    return {"content": f"<think>\n{reasoning}</think>{response}"}


def under(key: str):
    return lambda reasoning, response: {"content": response, key: reasoning}


def parts(reasoning: str, response: str) -> dict:
    thinking = {"type": "thinking", "thinking": reasoning}
    return {"content": [thinking, {"type": "text", "text": response}]}


ORACLES = {
    "writes": (WRITES, under("reasoning_content")),
    "writes, inline": (WRITES, inline),
    "opens and writes": (OPENS_AND_WRITES, under("reasoning_content")),
    "channels": (CHANNELS, under("thinking")),
    "parts": (PARTS, parts),
    "plain": (PLAIN, inline),
    "spaced": (SPACED, inline),
}
EDGES = [("", ""), ("\n", "\n\n"), ("\n\n", "\n"), (" ", " \n"), ("", "\n\n")]


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("make", [byte_level, sentence_piece])
@pytest.mark.parametrize("name", ORACLES)
def test_the_row_is_the_rendered_conversation(name, make, edges):
    template, message = ORACLES[name]
    tokenizer = make(template)
    reasoning, response = REASONING + edges[0], edges[1] + RESPONSE
    turn = {"role": "assistant", **message(reasoning, response)}
    messages = [{"role": "user", "content": QUESTION}, turn]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    row = row_of(Trace(QUESTION, reasoning, "42", response), tokenizer)
    assert row["input_ids"] == tokenizer(rendered, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("template", [PLAIN, SPACED])
def test_a_turn_without_response_is_the_rendered_reasoning(template):
    tokenizer = sentence_piece(template)
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": REASONING}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    row = row_of(Trace(QUESTION, REASONING, "42"), tokenizer)
    assert row["input_ids"] == tokenizer(rendered, add_special_tokens=False)["input_ids"]


def test_conversations_of_several_turns_with_tools_are_rendered_whole():
    template = "{{- tools | tojson if tools }}" + WRITES.replace(
        "+ c +", "+ c + (m.tool_calls | tojson if m.tool_calls else '') +"
    )
    tokenizer = byte_level(template)
    call = {"function": {"name": "add", "arguments": {"a": 12}}}
    question = [
        {"role": "system", "content": "Think first."},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "name": "add", "content": "42"},
    ]
    tools = [{"type": "function", "function": {"name": "add"}}]
    turn = {"role": "assistant", "content": RESPONSE, "reasoning_content": REASONING}
    rendered = tokenizer.apply_chat_template([*question, turn], tools=tools, tokenize=False)
    assert "Think first." in rendered
    assert rendered.count('"add"') == 2
    assert text_of(Trace(question, REASONING, "42", RESPONSE, tools=tools), tokenizer) == rendered


@pytest.mark.parametrize(
    ("template", "response", "stub"),
    [
        (OPENS, RESPONSE, "</think> So, the final answer is \\boxed{42}"),
        (PLAIN, None, "</think> So, the final answer is \\boxed{42}"),
        (WRITES, RESPONSE, "\n</think>\n\nSo, the final answer is \\boxed{42}"),
        (PARTS, RESPONSE, "[/THINK] So, the final answer is \\boxed{42}"),
        (CHANNELS, RESPONSE, "<|channel|>final<|message|> So, the final answer is \\boxed{42}"),
    ],
)
def test_the_stub_closes_the_thinking_as_the_template_does(template, response, stub):
    text = attributed(Trace(QUESTION, REASONING, "42", response), byte_level(template))
    assert text.endswith(stub)
    assert REASONING in text


def test_what_the_model_must_open_itself_carries_loss():
    trace = Trace(QUESTION, REASONING, "42", RESPONSE)
    for template, opened in ((WRITES, "<think>\n"), (OPENS_AND_WRITES, ""), (OPENS, "")):
        tokenizer = byte_level(template)
        row = row_of(trace, tokenizer)
        trained = [t for t, on in zip(row["input_ids"], row["assistant_masks"], strict=True) if on]
        assert tokenizer.decode(trained).startswith(opened + REASONING)


def test_what_follows_the_end_of_the_turn_is_there_without_loss():
    tokenizer = byte_level(PLAIN)
    row = row_of(Trace(QUESTION, REASONING, "42", RESPONSE), tokenizer)
    assert tokenizer.decode(row["input_ids"][-2:]) == "<|im_end|>\n"
    assert row["assistant_masks"][-2:] == [1, 0]


@pytest.mark.parametrize("end", ["<|endofresponse|>", "</response>", "<|end_of_response|>"])
def test_the_end_of_the_turn_is_found_whatever_it_is_called(end):
    tokenizer = byte_level(PLAIN.replace("<|im_end|>\n", end), special=(end,))
    assert text_of(Trace(QUESTION, REASONING, "42", RESPONSE), tokenizer).endswith(f"42}}.{end}")


def test_marks_may_be_given_once_for_both_texts():
    tokenizer = byte_level(PLAIN)
    trace = Trace(QUESTION, REASONING, "42", RESPONSE)
    given = {"opening": "[a]", "closing": "[b]", "end_of_turn": "[c]\n"}
    assert text_of(trace, tokenizer, **given).endswith(f"[a]{REASONING}[b]{RESPONSE}[c]\n")
    assert f"[a]{REASONING}[b] So, " in attributed(trace, tokenizer, **given)


def test_a_known_opening_mark_brings_its_closing_one():
    trace = Trace(QUESTION, REASONING, "42", RESPONSE)
    text = text_of(trace, byte_level(PLAIN), opening="<thought>\n")
    assert f"<thought>\n{REASONING}</thought>{RESPONSE}" in text


def test_the_traces_own_marks_are_written_where_the_template_knows_none():
    marks = ("<|begin_of_thought|>\n\n", "\n\n<|end_of_thought|>\n\n")
    trace = Trace(QUESTION, REASONING, "42", RESPONSE, marks=marks)
    assert f"{marks[0]}{REASONING}{marks[1]}{RESPONSE}<|im_end|>" in text_of(
        trace, byte_level(PLAIN)
    )
    assert f"<think>\n{REASONING}\n</think>\n\n{RESPONSE}" in text_of(trace, byte_level(WRITES))


def test_switches_come_from_the_trace_and_from_the_call():
    tokenizer = byte_level(SWITCHED)
    with pytest.raises(ValueError, match=re.escape("Pass chat_template_kwargs={'thinking': True}")):
        encode(Trace(QUESTION, REASONING, "42"), tokenizer)
    options = {"thinking": True}
    own = Trace(QUESTION, REASONING, "42", chat_template_kwargs=options)
    assert text_of(own, tokenizer) == text_of(
        Trace(QUESTION, REASONING, "42"), tokenizer, chat_template_kwargs=options
    )


def test_an_end_of_turn_in_the_response_is_not_written_twice():
    for end in ("<|im_end|>\n", "<|im_end|><|im_end|>", "<|im_end|>\n<|im_end|>\n"):
        trace = Trace(QUESTION, REASONING, "42", RESPONSE + end)
        assert text_of(trace, byte_level(PLAIN)).count("<|im_end|>") == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reasoning": "Okay.</think>\n42"}, "reasoning must stop before '</think>'"),
        ({"reasoning": "Okay.<|im_end|>\n"}, "reasoning must stop before the end of the turn"),
        ({"reasoning": "Okay.\n</think>\n"}, "reasoning must stop before '</think>'"),
        ({"reasoning": "Okay.[/THINK]"}, r"reasoning must stop before '\[/THINK\]'"),
        ({"response": "\n</think>\n42"}, "response must start after '</think>'"),
        ({"response": "a</think>42"}, "response must not end the thinking again, got '</think>'"),
        ({"reasoning": "\n<think>Okay."}, "must start after <think>"),
    ],
)
def test_marks_inside_the_texts_are_refused(changes, message):
    texts = {"question": QUESTION, "reasoning": REASONING, "answer": "42", "response": RESPONSE}
    with pytest.raises(ValueError, match=message):
        encode(Trace(**{**texts, **changes}), byte_level(OPENS))


def test_a_template_that_leaves_the_question_out_is_refused():
    tokenizer = byte_level(PARTS_ONLY)
    with pytest.raises(ValueError, match=r"write the question, got .* without 'What is 12.*parts"):
        encode(Trace(QUESTION, REASONING, "42"), tokenizer)
    content = [{"type": "text", "text": QUESTION}]
    assert QUESTION in attributed(
        Trace([{"role": "user", "content": content}], REASONING, "42"), tokenizer
    )


def test_a_template_that_rewrites_the_reasoning_is_refused():
    tokenizer = byte_level(WRITES.replace("r.strip('\n')", "r | replace('42', '43')"))
    with pytest.raises(ValueError, match=r"must write reasoning and response .* opening=, closing"):
        encode(Trace(QUESTION, REASONING, "42", RESPONSE), tokenizer)


def test_an_instruction_needs_a_text_to_stand_behind():
    question = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    with pytest.raises(ValueError, match="instruction needs a last message whose content is text"):
        encode(Trace(question, REASONING, "42"), byte_level(PARTS_ONLY), instruction="!")
