"""Answers as data sets have them."""

from __future__ import annotations

import pytest

from segattr.fields.answers import answer_text, find_answer, split_finder
from segattr.fields.names import Found


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (204, "204"),
        (204.0, "204"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e22, "1e+22"),
        (10**400, "1" + "0" * 400),
        ("204.0", "204.0"),
        (" 42\n", "42"),
        (r"\boxed{42}", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{42}", "42"),
        ("$42$", "42"),
        ("$$42$$", "42"),
        (r"\( 42 \)", "42"),
        (r"\[42\]", "42"),
        (r" $\boxed{ 42 }$ ", "42"),
        ("$5$ and $6$", "$5$ and $6$"),
        (r"\(5\) and \(6\)", r"\(5\) and \(6\)"),
        ("$5", "$5"),
        ("$", "$"),
        ("$$", "$$"),
        (r"\text{A}", r"\text{A}"),
        (["42"], "42"),
        ([[42.0]], "42"),
    ],
)
def test_what_stands_around_an_answer_comes_off(answer, text):
    assert answer_text(Found(answer, "answer")) == text


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (["2", "-2"], "answer must be text or a number, got a list of 2 in answer"),
        ([], "got a list of 0"),
        (float("nan"), "text or a number, got nan"),
        (float("inf"), "text or a number, got inf"),
        (r"The answer is \boxed{42}.", r"text around it in answer.*answer:\\\\boxed"),
        (r"\boxed{1}, \boxed{2}", "text around it in answer"),
        ("48 / 2 = 24\n#### 24", "text around it in answer.*answer:####"),
        ("By adding.\n\nSo 42.", "text around it in answer"),
    ],
)
def test_what_is_no_answer_is_refused(answer, message):
    with pytest.raises(ValueError, match=message):
        answer_text(Found(answer, "answer"))


def test_other_types_are_left_to_the_trace():
    for value in (True, {"a": 1}):
        assert answer_text(Found(value, "answer")) is value


@pytest.mark.parametrize(
    ("text", "finder", "answer"),
    [
        (r"\boxed{1} then \boxed{2} so", r"\boxed", "2"),
        (r"so \boxed{\frac{1}{\sqrt{2}}}.", r"\boxed", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed {4}", r"\boxed", "4"),
        (r"\boxed{\}}", r"\boxed", r"\}"),
        (r"\boxed{1} and \boxed{2", r"\boxed", None),
        ("none", r"\boxed", None),
        ("a\n#### 24\n", "####", "24"),
        ("#### 1\nno\n#### 1,024", "####", "1,024"),
        ("none", "####", None),
    ],
)
def test_the_last_answer_in_a_text_is_found(text, finder, answer):
    assert find_answer(text, finder) == answer


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("answer", ("answer", "")),
        (r"\boxed", ("", r"\boxed")),
        (r"a.b[0]:\boxed", ("a.b[0]", r"\boxed")),
        ("answer:####", ("answer", "####")),
        ("a:b", ("a:b", "")),
    ],
)
def test_a_column_may_say_what_finds_the_answer(path, parts):
    assert split_finder(path) == parts
