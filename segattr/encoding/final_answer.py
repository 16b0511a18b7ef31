"""Where a trace only states its answer."""

from __future__ import annotations

import re


def final_answer_start(reasoning: str, last_segment: int) -> int:
    """Return the character from which on the trace only states its answer, or its length.

    Args:
        reasoning: The text.
        last_segment: Where its last segment starts; a statement before it was reasoned about
            further, and is left alone.

    Raises:
        ValueError: If nothing is left of the reasoning.
    """
    boxed, heading = reasoning.rfind("\\boxed"), reasoning.rfind("**Final Answer**")
    for marker, start in ((heading, heading), (boxed, _sentence_start(reasoning, boxed))):
        # Not there, before the last segment, or before a paragraph that reasons on.
        if marker < last_segment or _goes_on(reasoning[max(boxed, heading) :]):
            continue
        if not reasoning[:start].strip():
            raise ValueError(
                "strip_final_answer must leave some reasoning, got a trace that only states its "
                "answer."
            )
        return len(reasoning[:start].rstrip())
    return len(reasoning)


def _goes_on(statement: str) -> bool:
    """Whether paragraphs follow a statement; a heading is followed by one, the statement."""
    paragraphs = [one for one in re.split(r"\n\s*\n", statement) if one.strip()]
    return len(paragraphs) > 1 + statement.startswith("**")


def _sentence_start(reasoning: str, at: int) -> int:
    """Where the sentence starts that holds a character."""
    ends = re.finditer(r"[.!?]\s|\n", reasoning[: max(at, 0)])
    return max((match.end() for match in ends), default=0)
