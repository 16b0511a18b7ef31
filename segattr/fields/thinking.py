"""Where thinking ends: the marks that open and close it, and one way to cut a text there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from segattr.fields.names import Found, as_field


@dataclass(frozen=True)
class Mark:
    """What opens and what closes the thinking of an assistant's turn, without newlines."""

    opening: str
    closing: str


MARKS = (
    Mark("<think>", "</think>"),
    Mark("<|begin_of_thought|>", "<|end_of_thought|>"),
    Mark("[THINK]", "[/THINK]"),
    Mark("<thought>", "</thought>"),
    Mark("<thinking>", "</thinking>"),
    Mark("<reasoning>", "</reasoning>"),
    Mark("<seed:think>", "</seed:think>"),
    Mark("<longcat_think>", "</longcat_think>"),
    Mark("◁think▷", "◁/think▷"),
    Mark("<|START_THINKING|>", "<|END_THINKING|>"),
    Mark("<|inner_prefix|>", "<|inner_suffix|>"),
    Mark("<|channel>thought", "<channel|>"),
    Mark(
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
)
# Tags that are text of any kind.
HTML = ("p", "div", "span", "b", "i", "em", "strong", "ul", "ol", "li", "code", "pre", "table", "s")


@dataclass(frozen=True)
class Cut:
    """A text in four parts that join to it."""

    opening: str
    reasoning: str
    closing: str
    rest: str


def cut(text: Found, marks: Sequence[Mark] = MARKS, *, closed: bool = False) -> Cut | None:
    """Cut a text where its thinking ends; None if it has no mark.

    Args:
        text: A whole turn, or reasoning that may still have its marks.
        marks: The pairs to look for.
        closed: Whether something else shows that the thinking ended; an opening mark then needs no
            closing one.

    Raises:
        ValueError: If the thinking does not end, or it cannot be said where.
    """
    value: str = text.value
    mark = next((m for m in marks if m.opening and value.lstrip().startswith(m.opening)), None)
    if mark is None:
        mark = _closing_alone(text, marks)
    if mark is None:
        _require_known(text)
        _require_spelling(text)
        return None
    if mark.closing not in value and not closed:
        raise ValueError(
            f"{text.column} must end its thinking, got {mark.opening} without {mark.closing}: the "
            "generation was cut off. Drop this trace."
        )
    before, closing, rest = value.partition(mark.closing)
    opening, reasoning = _opened(before, mark)
    _require_once(text, mark, reasoning, rest)
    return Cut(opening, reasoning, closing or mark.closing, rest)


def _require_known(text: Found) -> None:
    """Raise for a text in tags like those of thinking that nobody has named."""
    match = re.match(r"\s*([<\[])(\|?)(\w+)(\|?[>\]])", text.value)
    if match is None or match[3].lower() in HTML:
        return
    left, bar, name, right = match.groups()
    opening = f"{left}{bar}{name}{right}"
    for closing in (f"{left}/{bar}{name}{right}", f"{left}{bar}/{name}{right}"):
        if closing in text.value:
            raise ValueError(
                f"{text.column} must mark its thinking in a way that is known, got {opening} and "
                f"{closing}. If they do, pass marks=({opening!r}, {closing!r}) (--marks)."
            )


def _require_spelling(text: Found) -> None:
    """Raise for a closing mark in other letters, such as </THINK>, where nothing opens it."""
    for mark in MARKS:
        found = re.search(re.escape(mark.closing), text.value, re.IGNORECASE)
        if found and found[0] != mark.closing:
            raise ValueError(
                f"{text.column} must end its thinking with {mark.closing}, got {found[0]}. If that "
                f"does, pass marks=('', {found[0]!r}) (--marks)."
            )


def _closing_alone(text: Found, marks: Sequence[Mark]) -> Mark | None:
    """Return the mark that a text closes, where the prompt had opened it."""
    found = [mark for mark in marks if mark.closing in text.value]
    if len(found) > 1:
        listed = " and ".join(mark.closing for mark in found)
        raise ValueError(
            f"{text.column} must end its thinking once, got {listed}. Say which of them does, with "
            "marks=(opening, closing)."
        )
    return found[0] if found else None


def _opened(before: str, mark: Mark) -> tuple[str, str]:
    """Return the opening mark as it stands, newlines included, and the reasoning after it."""
    match = mark.opening and re.match(rf"\s*{re.escape(mark.opening)}[\r\n]*", before)
    return (match[0], before[match.end() :]) if match else ("", before)


def _require_once(text: Found, mark: Mark, reasoning: str, rest: str) -> None:
    if mark.closing in rest:
        raise ValueError(
            f"{text.column} must end its thinking once, got {mark.closing} "
            f"{rest.count(mark.closing) + 1} times. Cut it, and give reasoning and response."
        )
    if mark.opening and (mark.opening in reasoning or mark.opening in rest):
        raise ValueError(
            f"{text.column} must open its thinking once, at the start, got another {mark.opening}. "
            "Cut the text, and give reasoning and response."
        )


def require_closed(text: Found, marks: Sequence[Mark] = MARKS) -> None:
    """Raise for a text without a closing mark that opens a thought."""
    for mark in marks:
        if mark.opening and mark.opening in text.value:
            raise ValueError(
                f"{text.column} must end its thinking, got {mark.opening} in the middle, without "
                f"{mark.closing}. Drop this trace, or cut it by hand."
            )


def require_whole(text: Found, marks: Sequence[Mark] = MARKS) -> None:
    """Raise for a turn that does not say where its thinking ends."""
    require_closed(text, marks)
    raise ValueError(
        f"{text.column} must say where its thinking ends, got no mark such as </think>. Give other "
        "marks with marks=(opening, closing) (--marks). If all of it is reasoning: "
        f"{as_field('reasoning', text.column)}."
    )
