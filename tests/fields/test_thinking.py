"""Where thinking ends: cut once, verbatim, or refused."""

from __future__ import annotations

import pytest

from segattr.fields.names import Found
from segattr.fields.thinking import MARKS, Mark, cut, require_whole


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: mark.opening)
@pytest.mark.parametrize(("before", "after"), [("", ""), ("\n", "\n"), (" ", "\n\n")])
def test_every_mark_cuts_a_turn_into_parts_that_join_to_it(mark, before, after):
    text = f"{before}{mark.opening}{after}Okay.\n{mark.closing}\n\n42"
    parts = cut(Found(text, "turn"))
    assert parts.opening + parts.reasoning + parts.closing + parts.rest == text
    assert (parts.reasoning, parts.closing, parts.rest) == ("Okay.\n", mark.closing, "\n\n42")
    assert parts.opening == before + mark.opening + after


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: mark.opening)
def test_a_prompt_may_have_opened_the_thinking(mark):
    parts = cut(Found(f"\nOkay.{mark.closing}42", "turn"))
    assert (parts.opening, parts.reasoning, parts.rest) == ("", "\nOkay.", "42")


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: mark.opening)
def test_an_open_thought_was_cut_off_unless_something_else_closed_it(mark):
    text = Found(f"{mark.opening}\nOkay, let me che", "turn")
    with pytest.raises(ValueError, match=r"turn must end its thinking, got .* was cut off"):
        cut(text)
    parts = cut(text, closed=True)
    assert (parts.reasoning, parts.closing) == ("Okay, let me che", mark.closing)


def test_a_text_without_marks_is_not_cut():
    assert cut(Found("Okay, 42.", "turn")) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<think>a</think>b</think>c", "end its thinking once, got </think> 2 times"),
        ("a</think>b</think>", "end its thinking once, got </think> 2 times"),
        ("a</think>b</thought>c", "once, got </think> and </thought>. Say which"),
        ("<think>a<think>b</think>c", "open its thinking once, at the start, got another <think>"),
        ("Sure! <think>a</think>b", "open its thinking once, at the start"),
        ("<think>a</think>b<think>c", "open its thinking once, at the start"),
    ],
)
def test_marks_that_leave_it_open_where_thinking_ends_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        cut(Found(text, "turn"))


def test_other_marks_inside_a_marked_thought_are_its_text():
    parts = cut(Found("<think>\nWrite </thought> and <reasoning>.</think>42", "turn"))
    assert parts.reasoning == "Write </thought> and <reasoning>."


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<Think>", "</Think>"),
        ("<scratchpad>", "</scratchpad>"),
        ("<|thinking|>", "</|thinking|>"),
        ("<|thinking|>", "<|/thinking|>"),
        ("[ANALYSIS]", "[/ANALYSIS]"),
    ],
)
def test_tags_that_nobody_named_are_not_taken_for_text(opening, closing):
    text = Found(f"{opening}\nOkay.{closing}42", "turn")
    with pytest.raises(ValueError, match="turn must mark its thinking in a way that is known"):
        cut(text)
    assert cut(text, [Mark(opening, closing)]).reasoning == "Okay."


@pytest.mark.parametrize("closing", ["</THINK>", "</Thought>", "[/think]"])
def test_a_closing_mark_in_other_letters_is_not_taken_for_text(closing):
    text = Found(f"Okay.\n{closing}\n42", "turn")
    with pytest.raises(ValueError, match="turn must end its thinking with"):
        cut(text)
    assert cut(text, [Mark("", closing)]).reasoning == "Okay.\n"


def test_html_is_text():
    assert cut(Found("<p>Okay.</p> 42", "turn")) is None


def test_marks_of_the_user_are_the_only_ones():
    parts = cut(Found("<cot>a</think>b</cot>c", "turn"), [Mark("<cot>", "</cot>")])
    assert (parts.reasoning, parts.rest) == ("a</think>b", "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "The sum is 42.",
            "turn must say where its thinking ends, got no mark.*--field reasoning=",
        ),
        ("Sure. <think>Okay", "turn must end its thinking, got <think> in the middle"),
    ],
)
def test_a_turn_without_marks_is_refused_with_the_way_to_read_it(text, message):
    with pytest.raises(ValueError, match=message):
        require_whole(Found(text, "turn"))
