"""Cutting at keywords: the published lists, and the real traces' published cuts."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from segattr import Trace, encode, split_segments
from segattr.segments import (
    PRESETS,
    SEGMENTERS,
    merge_short,
    split_paragraphs,
    split_sentences,
    split_windows,
)


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


ENDS = {"CRLF": "\r\n\r\n", "CR": "\r\r", "spaces": "\n \t\n", "mixed": "\r\n\n"}


@pytest.mark.parametrize("blank", ENDS.values(), ids=ENDS)
def test_blank_lines_may_be_written_otherwise(blank):
    text = f"Okay.{blank}Wait, 42.{blank}However, 42."
    assert texts(text) == ["Okay.", f"{blank}Wait, 42.", f"{blank}However, 42."]
    assert len(split_paragraphs(text)) == 3


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("keyword", ["\nWait", ".\n\nWait", "\n\nWait", "\r\n\r\nWait", "\n"])
def test_keywords_of_ones_own_meet_any_line_end(keyword, line_end):
    text = "Okay.\n\nWait, 42."
    written = text.replace("\n", line_end)
    spans, plain = (split_segments(each, [keyword]) for each in (written, text))
    assert [written[a:b] for a, b in spans] == [text[a:b].replace("\n", line_end) for a, b in plain]
    assert len(spans) > 1


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_one_line_end_is_no_blank_line(line_end):
    assert len(texts(f"Okay.{line_end}Wait, 42.")) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is 3.14 here. So? Yes!", ["It is 3.14 here.", " So?", " Yes!"]),
        ("One\nTwo. Three", ["One", "\nTwo.", " Three"]),
        ('He said "no." Then (so.) went', ['He said "no."', " Then (so.)", " went"]),
        ("See e.g. this. Or i.e. that.", ["See e.g. this.", " Or i.e. that."]),
        ("一。二。三", ["一。", "二。", "三"]),
        ("Ends here.\n", ["Ends here.\n"]),
        ("", []),
    ],
)
def test_sentences(text, expected):
    assert [text[start:stop] for start, stop in split_sentences(text)] == expected


def test_short_ones_are_merged_with_the_next():
    starts = list(range(0, 100, 2))  # tokens of two characters
    spans = [(0, 4), (4, 20), (20, 24), (24, 60), (60, 98), (98, 100)]
    assert merge_short(spans, starts, 5) == [(0, 20), (20, 60), (60, 100)]
    assert merge_short(spans, starts, 1) == spans
    assert merge_short([(0, 4)], starts, 5) == [(0, 4)]
    assert merge_short([], starts, 5) == []


def test_windows_are_of_so_many_tokens():
    assert split_windows("abcdefg", [0, 2, 3, 5, 6], 2) == [(0, 3), (3, 6), (6, 7)]


@pytest.mark.parametrize("segmenter", SEGMENTERS)
def test_every_token_of_real_traces_has_one_owner(
    segmenter, real_traces, labelled_traces, qwen_tokenizer, demo
):
    settings = {"segmenter": segmenter}
    if segmenter != "keywords":
        settings["segment_tokens"] = 24
    traces = [Trace.from_record({**record, "starts": None}) for record in real_traces]
    for record in labelled_traces:
        spans = [(node["start"], node["stop"]) for node in record["nodes"]]
        whole = Trace.from_record(record)
        traces += [whole, replace(whole, segments=spans)]
    for trace in traces:
        for tokenizer in (qwen_tokenizer, demo[1]):
            encoded = encode(trace, tokenizer, **settings)
            stops = [encoded.prompt[1], *(stop for _, stop in encoded.segments)]
            assert [start for start, _ in encoded.segments] == stops[:-1]
            reasoning = encoded.input_ids[slice(*encoded.reasoning)]
            assert tokenizer.decode(reasoning).strip() == trace.reasoning.strip()
            pieces = [trace.reasoning[a:b] for a, b in encoded.characters]
            assert "".join(pieces) == trace.reasoning
            for (start, stop), piece in zip(encoded.segments, pieces, strict=True):
                assert tokenizer.decode(encoded.input_ids[start:stop]).strip() == piece.strip()


def test_a_function_of_ones_own_cuts(demo):
    trace = Trace("q", "abc def", "1")
    encoded = encode(trace, demo[1], segmenter=lambda text: [(0, 3), (3, len(text))])
    assert encoded.characters == [(0, 3), (3, 7)]
    with pytest.raises(ValueError, match="segments must cover the reasoning's 7 characters"):
        encode(trace, demo[1], segmenter=lambda text: [(0, 3)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"segmenter": "words"}, "segmenter must be one of 'keywords'"),
        ({"segmenter": "windows"}, "segment_tokens must be given for windows"),
        ({"segment_tokens": 3}, "segment_tokens is read by other segmenters"),
        ({"segmenter": "sentences", "segment_tokens": 0}, "segment_tokens must be at least 1"),
    ],
)
def test_bad_settings_of_segmenters(demo, settings, message):
    with pytest.raises(ValueError, match=message):
        encode(Trace("q", "abc def", "1"), demo[1], **settings)
