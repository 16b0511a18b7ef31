"""Reasoning and response from one text or two: consistent, or refused."""

from __future__ import annotations

import pytest

from segattr.fields.names import Found
from segattr.fields.turns import ENDS, HEADERS, read_turn, require_unrendered

BLOCK = "<think>\nOkay.\n</think>\n\n42"
MARKED = ("<think>\n", "</think>")


def turn(reasoning: str | None, content: str | None):
    found = [
        None if text is None else Found(text, name)
        for name, text in (("reasoning", reasoning), ("content", content))
    ]
    read = read_turn(*found)
    return read.reasoning, read.response, read.marks


@pytest.mark.parametrize(
    ("reasoning", "content", "read"),
    [
        ("Okay.\n", None, ("Okay.\n", None, None)),
        ("Okay.\n", "42", ("Okay.\n", "42", None)),
        ("Okay.\n", "", ("Okay.\n", "", None)),
        (BLOCK, None, ("Okay.\n", "\n\n42", MARKED)),
        (None, BLOCK, ("Okay.\n", "\n\n42", MARKED)),
        ("Okay.", BLOCK, ("Okay.\n", "\n\n42", MARKED)),
        (BLOCK, BLOCK, ("Okay.\n", "\n\n42", MARKED)),
        (BLOCK, "42", ("Okay.\n", "\n\n42", MARKED)),
        ("Okay.\n", "</think>\n\n42", ("Okay.\n", "\n\n42", ("", "</think>"))),
        ("<think>\nOkay.\n", "</think>42", ("Okay.\n", "42", MARKED)),
        ("<think>\nOkay.\n</think>", "\n\n42", ("Okay.\n", "\n\n42", MARKED)),
        ("<think>\nOkay.\n</think>\n\n", "42", ("Okay.\n", "\n\n42", MARKED)),
        ("<think>\nOkay.\n", "42", ("Okay.\n", "42", MARKED)),
        ("Okay.\n</think>", None, ("Okay.\n", "", ("", "</think>"))),
    ],
)
def test_turns_are_read_verbatim(reasoning, content, read):
    assert turn(reasoning, content) == read


@pytest.mark.parametrize(
    ("reasoning", "content", "message"),
    [
        ("Other.", BLOCK, "reasoning must be read from one place, got reasoning and content"),
        (BLOCK, "43", "reasoning alone beside content, got other text after </think>"),
        (BLOCK, BLOCK.replace("42", "43"), "reasoning must be read from one place"),
        ("Okay.", "<think>\n\n</think>\n\n42", "reasoning must be read from one place"),
        (None, "<think>\n\n</think>\n\n42", "must hold reasoning, got none before </think>"),
        (None, "42", "content must say where its thinking ends"),
        ("Okay.", "<think>\nOkay. And", "content must end its thinking, got <think> without"),
        ("<think>\nOkay. And", None, "reasoning must end its thinking, got <think> without"),
        ("a</think>b</think>c", None, "got </think> 2 times"),
        ("a</think>b</think>", "c", "got </think> 2 times"),
        ("Okay.", "42<think>hm", "content must end its thinking, got <think> in the middle"),
    ],
)
def test_texts_that_disagree_are_refused(reasoning, content, message):
    with pytest.raises(ValueError, match=message):
        turn(reasoning, content)


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_the_turn_comes_off_the_last_text(end):
    assert turn("Okay.", f"42\n{end}\n") == ("Okay.", "42\n", None)
    assert turn(None, f"{BLOCK}{end}") == ("Okay.\n", "\n\n42", MARKED)
    assert turn(f"Okay.{end}", None) == ("Okay.", None, None)


def test_what_came_off_is_said():
    read = read_turn(None, Found(f"{BLOCK}<|im_end|>", "content"))
    assert read.columns == {
        "reasoning": "content up to </think>",
        "response": "content after </think>, without <|im_end|>",
    }


@pytest.mark.parametrize(
    ("reasoning", "content"),
    [
        ("Okay.", "42<|im_end|>\n<|im_start|>user\nNo."),
        ("Okay.<|im_end|>", "42"),
        ("Okay.", "42<|im_end|><|im_end|>"),
        ("<|im_start|>assistant\nOkay.", None),
    ],
)
def test_a_text_of_several_turns_is_refused(reasoning, content):
    with pytest.raises(ValueError, match="must stay inside one turn, got <"):
        turn(reasoning, content)


def test_struck_out_text_is_no_end_of_turn():
    assert turn("<s>41</s> Okay.", "42") == ("<s>41</s> Okay.", "42", None)


@pytest.mark.parametrize("token", HEADERS)
def test_a_rendered_question_is_refused(token):
    with pytest.raises(ValueError, match="a chat template was applied already"):
        require_unrendered(Found(f"{token}q", "prompt"))


@pytest.mark.parametrize("text", ["q\n<think>\n", "q</think>", "q [THINK]"])
def test_a_question_that_opens_or_ends_the_thinking_is_refused(text):
    with pytest.raises(ValueError, match="question must stop before the assistant's turn"):
        require_unrendered(Found(text, "prompt"))
