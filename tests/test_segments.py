"""Cutting at keywords: the published lists, and the real traces' published cuts."""

from __future__ import annotations

import re

import pytest

from segattr import split_segments
from segattr.segments import PRESETS


def texts(text, *args):
    return [text[start:stop] for start, stop in split_segments(text, *args)]


def test_a_keyword_opens_its_segment():
    text = "First.\n\nWait, no.\n\nHowever\n\nAnd so on."
    assert texts(text) == ["First.", "\n\nWait, no.", "\n\nHowever\n\nAnd so on."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("no keyword", ["no keyword"]),
        ("\n\nWait starts", ["\n\nWait starts"]),
        ("a\n\n\nWait", ["a\n", "\n\nWait"]),
        ("a\n\nWaiting", ["a", "\n\nWaiting"]),
        ("a\nWait\n\nwait", ["a\nWait\n\nwait"]),
        ("a\n\nBut wait\n\nBut so", ["a", "\n\nBut wait\n\nBut so"]),
    ],
)
def test_edges(text, expected):
    assert texts(text) == expected


def test_retro_search_also_cuts_at_but_and_hmm():
    assert texts("a\n\nBut so\n\nHmmm", "retro-search") == ["a", "\n\nBut so", "\n\nHmmm"]


def test_keywords_are_taken_literally():
    assert texts("a.b a+b", ["."]) == ["a", ".b a+b"]


@pytest.mark.parametrize("preset", PRESETS)
def test_spans_cover_the_text(preset):
    text = "x".join(PRESETS[preset]) * 3
    spans = split_segments(text, preset)
    assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
    assert spans[-1][1] == len(text)
    glued = re.split("(" + "|".join(map(re.escape, PRESETS[preset])) + ")", text)
    assert len(spans) == sum(bool(part) for part in [glued[0]]) + len(glued) // 2


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("Paper", "'paper', 'retro-search', got 'Paper'. Pass keywords as a list"),
        ([], "non-empty"),
        (["a", ""], "non-empty"),
    ],
)
def test_bad_presets(preset, message):
    with pytest.raises(ValueError, match=message):
        split_segments("text", preset)


@pytest.mark.parametrize(("preset", "key"), [("paper", "paper"), ("retro-search", "retro_search")])
def test_real_traces_are_cut_where_the_published_code_cuts(real_traces, preset, key):
    for record in real_traces:
        assert [start for start, _ in split_segments(record["reasoning"], preset)] == record[
            "starts"
        ][key]
