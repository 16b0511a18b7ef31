"""Traces of text and of tokens: the checks at the border, and what they show of themselves."""

from __future__ import annotations

import dataclasses

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
    ("change", "message"),
    [
        (
            {"segments": [(5, 8), (9, 12)]},
            r"segments must be contiguous, got \(9, 12\) for segment 1 where 8 should start",
        ),
        ({"segments": [(4, 8), (8, 12)]}, "where 5 should start"),
        ({"segments": [(5, 8), (8, 7)]}, "contiguous"),
        ({"segments": []}, "segments must not be empty"),
        ({"prompt": (1, 5)}, "prompt must start at 0"),
        ({"target": (14, 14)}, "target must hold at least one token"),
        ({"target": (11, 14)}, "between the reasoning's stop 12"),
        ({"target": (14, 21)}, "T=20"),
        ({"input_ids": torch.zeros(1, 20)}, r"one sequence \[T\], got shape \[1, 20\]"),
        ({"characters": [(0, 9)]}, "characters must be the spans of all 2 segments, got 1"),
        ({"characters": [(1, 9), (9, 20)]}, "characters must be contiguous, .* where 0 should"),
        ({"characters": [(0, 9), (8, 20)]}, r"got \(8, 20\) for segment 1 where 9 should start"),
        ({"characters": [(0, 9), (9, 8)]}, "characters must be contiguous"),
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
    assert encoded.characters is None


def test_every_token_of_the_reasoning_has_characters_or_none_has():
    parts = {"prompt": (0, 2), "segments": [(2, 4), (4, 5)], "target": (6, 7)}
    encoded = EncodedTrace(range(9), **parts, token_characters=[[0, 1], [1, 4], [4, 4]])
    assert encoded.token_characters == [(0, 1), (1, 4), (4, 4)]
    with pytest.raises(ValueError, match="spans of all 3 tokens of the reasoning, got 2"):
        EncodedTrace(range(9), **parts, token_characters=[(0, 1), (1, 4)])


def test_characters_may_be_lists_as_in_json():
    spans = [[0, 4], [4, 4]]
    encoded = EncodedTrace(range(9), (0, 2), [(2, 4), (4, 5)], (6, 7), characters=spans)
    assert encoded.characters == [(0, 4), (4, 4)]


def test_a_trace_shows_its_id_and_how_its_texts_begin():
    trace = Trace(
        "What is 1 + 1?", "One.\n\nWait, " + "two. " * 999, "2", id="easy", metadata={"a": 1}
    )
    assert repr(trace) == (
        "Trace(id='easy', question='What is 1 + 1?', "
        "reasoning='One.\\n\\nWait, two. two. two. two. two. two. two. t'... (5,007 characters), "
        "answer='2')"
    )
    chat = [{"role": "user", "content": "A"}, {"role": "user", "content": "B"}]
    trace = Trace(chat, "r", "a", "done", segments=["r", ""])
    assert repr(trace) == (
        "Trace(question='B', reasoning='r', answer='a', response='done', messages=2, segments=2)"
    )


def test_what_is_shown_fits_a_screen():
    """Of 24 lines of 80 characters, whatever a text holds; nothing reaches the terminal raw."""
    long = "\x1b[2J\U000e0001\n" * 10_000
    trace = Trace(long, long, long, long, long, [long], {"more": long})
    encoded = EncodedTrace(range(100_000), (0, 5), [(i, i + 1) for i in range(5, 90_000)],
                           (90_000, 99_000), range(5_000), long)  # fmt: skip
    for shown in (repr(trace), repr(encoded)):
        assert len(shown) < 24 * 80
        assert shown.isprintable()


def test_an_encoded_trace_shows_sizes_and_no_tokens():
    encoded = EncodedTrace(range(500, 520), (0, 5), [(5, 8), (8, 12)], (14, 16), [7, 8, 9], "x")
    assert repr(encoded) == (
        "EncodedTrace(id='x', T=20, prompt=(0, 5), S=2, reasoning=(5, 12), target=(14, 16), R=3)"
    )
    assert repr(dataclasses.replace(encoded, id=None)).startswith("EncodedTrace(T=20, ")


def test_encoded_traces_can_be_compared_and_counted():
    """Tensors have no single answer to ==, so a trace is equal to itself alone."""
    one, other = (EncodedTrace(range(9), (0, 2), [(2, 5)], (6, 7)) for _ in range(2))
    assert one != other
    assert [one, other].index(other) == 1
    assert len({one, other, one}) == 2
