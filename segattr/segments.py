"""Cut a reasoning text into segments, in characters.

Keywords open a segment: ``re.split`` with the keywords as separators, each glued to the text after
it (arXiv 2602.00425, Appendix C.2). So do blank lines and ends of sentences."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from segattr.checks import require_word
from segattr.trace import Span, Trace

PRESETS: dict[str, tuple[str, ...]] = {
    "paper": (
        "\n\nWait",
        "\n\nAlternatively",
        "\n\nBut wait",
        "\n\nBut alternatively",
        "\n\nBut just to",
        "\n\nHowever",
        "\n\nNot sure",
        "\n\nGoing back",
        "\n\nBacktrack",
        "\n\nTrace back",
        "\n\nAnother",
    ),
    "retro-search": (
        "\n\nWait",
        "\n\nAlternatively",
        "\n\nBut",
        "\n\nHowever",
        "\n\nHmmm",
        "\n\nHmm",
        "\n\nNot sure",
        "\n\nGoing back",
        "\n\nBacktrack",
        "\n\nTrace back",
        "\n\nAnother",
    ),
}


SEGMENTERS = {
    "keywords": "at words that change direction",
    "paragraphs": "at blank lines",
    "sentences": "at the ends of sentences and lines",
    "windows": "after so many tokens",
}
LINE_END = r"(?:\r\n|\r(?!\n)|\n)"
BLANK_LINE = rf"{LINE_END}[ \t]*{LINE_END}"
# After the mark that ends it: closing brackets and quotes, then white space.
SENTENCE_END = rf"(?:[.!?\u2026][\"')\]\u201d\u2019]*(?=\s)|[\u3002\uff01\uff1f]|(?={LINE_END}))"
ABBREVIATIONS = ("e.g.", "i.e.", "vs.", "cf.", "etc.", "Dr.", "Mr.", "Mrs.", "Fig.", "Eq.", "No.")


def split_segments(text: str, preset: str | Sequence[str] = "paper") -> list[Span]:
    """Return the half-open character spans of the segments that keywords open.

    Case-sensitive and without word boundaries, as published: ``"\\n\\nWaiting"`` also opens a
    segment. The lines of a keyword may end in any way, and its blank lines may have spaces in them.

    Args:
        text: The reasoning, as the model wrote it.
        preset: ``"paper"`` (arXiv 2602.00425), ``"retro-search"`` (Lu et al., 2025), or the
            keywords themselves, written with the blank line before them.

    Returns:
        Spans ``(start, stop)`` that cover the text without gaps, none of them empty. A text without
        keywords, or one that only starts with a keyword, is one segment. An empty text has no
        segments.

    Raises:
        ValueError: If the preset is unknown, or a keyword is empty.
    """
    return _between((match.start() for match in re.finditer(_pattern(preset), text)), text)


def split_paragraphs(text: str) -> list[Span]:
    """Return the spans of a text's paragraphs; the blank line stands at the start of the next."""
    return _between((match.start() for match in re.finditer(BLANK_LINE, text)), text)


def split_sentences(text: str) -> list[Span]:
    """Return the spans of a text's sentences; white space stands at the start of the next."""
    ends = [match.end() for match in re.finditer(SENTENCE_END, text)]
    starts = (end for end in ends if not text.endswith(ABBREVIATIONS, 0, end))
    return _between((start for start in starts if text[start:].strip()), text)


def split_windows(text: str, token_starts: Sequence[int], length: int) -> list[Span]:
    """Return the spans of windows of so many tokens; the last one may be shorter.

    Args:
        text: The reasoning.
        token_starts: Where its tokens start, in characters.
        length: Tokens of a window.
    """
    return _between(token_starts[::length], text)


def merge_short(spans: Sequence[Span], token_starts: Sequence[int], least: int) -> list[Span]:
    """Merge each span of fewer tokens with those after it, and the last one with what precedes it.

    Args:
        spans: Contiguous, in characters.
        token_starts: Where tokens start, in characters.
        least: The fewest tokens of a span; the whole text may have fewer.
    """
    merged: list[Span] = []
    start, stop = 0, 0
    for _, stop in spans:
        if bisect_left(token_starts, stop) - bisect_left(token_starts, start) >= least:
            merged.append((start, stop))
            start = stop
    if start < stop and merged:
        start, _ = merged.pop()
    return [*merged, (start, stop)] if start < stop else merged


def split_reasoning(
    trace: Trace,
    segmenter: str | Callable[[str], Sequence[Span]],
    keywords: str | Sequence[str],
    tokens: int | None,
    token_starts: Sequence[int],
) -> list[Span]:
    """Return the spans of a trace's own segments, or of those that a segmenter makes.

    Args:
        trace: The trace.
        segmenter: One of `SEGMENTERS`, or a function of the text.
        keywords: As in `split_segments`.
        tokens: The fewest tokens of a segment, or those of a window; None if not given.
        token_starts: Where tokens start, in characters of the reasoning; those before it are below
            0.

    Raises:
        ValueError: If the segmenter is unknown, needs ``tokens`` or does not read them, or the
            spans do not cover the text.
    """
    text = trace.reasoning
    if callable(segmenter) and trace.segments is None:
        trace = replace(trace, segments=list(segmenter(text)))
    if trace.segments is not None:
        stops = list(itertools.accumulate(map(len, trace.segments), initial=0))
        return list(itertools.pairwise(stops))
    require_word("segmenter", segmenter, SEGMENTERS, "Or pass a function of the text.")
    _require_tokens(str(segmenter), tokens)
    inside = [start for start in token_starts if 0 <= start < len(text)]
    if segmenter == "keywords":
        return split_segments(text, keywords)
    if segmenter == "windows":
        return split_windows(text, inside, tokens or 1)
    spans = split_paragraphs(text) if segmenter == "paragraphs" else split_sentences(text)
    return merge_short(spans, inside, tokens or 1)


def _require_tokens(segmenter: str, tokens: int | None) -> None:
    if segmenter == "keywords" and tokens is not None:
        raise ValueError(
            f"segment_tokens is read by other segmenters than keywords, got {tokens}. Leave it out."
        )
    if segmenter == "windows" and tokens is None:
        raise ValueError("segment_tokens must be given for windows, got None. Such as 64.")
    if tokens is not None and tokens < 1:
        raise ValueError(f"segment_tokens must be at least 1, got {tokens}.")


def _between(starts: Iterable[int], text: str) -> list[Span]:
    """Spans from one start to the next, over the whole text."""
    cuts = sorted({0, *starts} - {len(text)})
    return [(a, b) for a, b in itertools.pairwise([*cuts, len(text)]) if a < b]


def _pattern(preset: str | Sequence[str]) -> str:
    if isinstance(preset, str):
        remedy = "Pass keywords as a list, with what stands before them, such as ['\\n\\nWait']."
        require_word("preset", preset, PRESETS, remedy)
        preset = PRESETS[preset]
    keywords = tuple(preset)
    if not keywords or not all(keywords):
        raise ValueError(
            f"keywords must be non-empty strings, got {list(keywords)!r}. Leave the empty ones out."
        )
    return "|".join(map(_keyword, keywords))


def _keyword(keyword: str) -> str:
    """The pattern of a keyword, whose lines may end in any way."""
    texts = re.split(rf"({LINE_END}{LINE_END}|{LINE_END})", keyword)
    ends = [LINE_END if re.fullmatch(LINE_END, end) else BLANK_LINE for end in texts[1::2]]
    pairs = itertools.zip_longest(map(re.escape, texts[::2]), ends, fillvalue="")
    return "".join(itertools.chain(*pairs))
