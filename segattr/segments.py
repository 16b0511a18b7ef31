"""Cut a reasoning text into segments at transition keywords, in characters.

The keyword opens its segment: ``re.split`` with the keywords as separators, each glued to the text
after it (arXiv 2602.00425, Appendix C.2). Everything after this file counts in tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

from segattr.checks import require_word

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


def split_segments(text: str, preset: str | Sequence[str] = "paper") -> list[tuple[int, int]]:
    """Return the half-open character spans of the segments of a reasoning text.

    Case-sensitive and without word boundaries, as published: ``"\\n\\nWaiting"`` also opens a
    segment.

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
    starts = sorted({0, *(match.start() for match in re.finditer(_pattern(preset), text))})
    stops = [*starts[1:], len(text)]
    return [(start, stop) for start, stop in zip(starts, stops, strict=True) if start < stop]


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
    return "|".join(re.escape(keyword) for keyword in keywords)
