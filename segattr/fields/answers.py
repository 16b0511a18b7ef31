r"""The correct final answer: as it would stand inside ``\boxed{}``."""

from __future__ import annotations

import math
import re
from typing import Any

from segattr.fields.names import Found

BOXED, HASHES = r"\boxed", "####"
FINDERS = (BOXED, HASHES)
PAIRS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))


def split_finder(path: str) -> tuple[str, str]:
    r"""Return the column and what finds the answer in its text; either may be empty.

    ``solution:\boxed`` is the last box in ``solution``, ``\boxed`` that in the trace itself.
    """
    for finder in FINDERS:
        if path == finder:
            return "", finder
        if path.endswith(f":{finder}"):
            return path.removesuffix(f":{finder}"), finder
    return path, ""


def find_answer(text: str, finder: str) -> str | None:
    r"""Return what stands in the last ``\boxed{}``, or after the last ``####``; None if nowhere."""
    if finder == HASHES:
        _, found, after = text.rpartition(HASHES)
        return after.strip().partition("\n")[0].strip() if found else None
    starts = [match.end() for match in re.finditer(r"\\(?:boxed|fbox)\s*\{", text)]
    return _balanced(text, starts[-1]) if starts else None


def _balanced(text: str, start: int) -> str | None:
    """Return the text up to the brace that closes the one before ``start``; None if none does."""
    depth, at = 1, start
    while at < len(text):
        if text[at] == "\\":
            at += 1  # the next character is no brace
        elif text[at] in "{}":
            depth += 1 if text[at] == "{" else -1
            if depth == 0:
                return text[start:at]
        at += 1
    return None


def answer_text(found: Found) -> Any:
    r"""Return an answer as text, without white space, one box and one pair of dollars around it.

    Raises:
        ValueError: If it is a list, a number that is not finite, or a text around an answer.
    """
    value = found.value
    while isinstance(value, (list, tuple)):
        if len(value) != 1:
            raise ValueError(
                f"answer must be text or a number, got a list of {len(value)} in {found.column}. "
                "Say which one counts, or write them as one text."
            )
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return value
    if isinstance(value, float):
        return _float_text(value)
    return _bare(value, found.column) if isinstance(value, str) else str(value)


def _float_text(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"answer must be text or a number, got {value}. Mend the record.")
    # A column of integers with one gap is stored as floats; above 2**53 they are no integers.
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def _bare(text: str, column: str) -> str:
    """Take off what stands around an answer, until nothing does."""
    while (inner := _without_wrapping(text.strip())) != text:
        text = inner
    if "\n\n" in text or "####" in text or re.search(r"\\(?:boxed|fbox)\s*\{", text):
        finder = HASHES if "####" in text else BOXED
        raise ValueError(
            f"answer must be the final answer alone, got text around it in {column}. Say where it "
            f"stands: fields={{'answer': {column + ':' + finder!r}}} "
            f"(--field 'answer={column}:{finder}')."
        )
    return text


def _without_wrapping(text: str) -> str:
    if match := re.match(r"\\(?:boxed|fbox)\s*\{", text):
        inner = _balanced(text, match.end())
        if inner is not None and match.end() + len(inner) + 1 == len(text):
            return inner.strip()
    for opening, closing in PAIRS:
        if text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : -len(closing)]
            if len(text) > len(opening) + len(closing) and not _holds(inner, opening, closing):
                return inner.strip()
    return text


def _holds(inner: str, opening: str, closing: str) -> bool:
    """Whether marks of mathematics stand inside too: then the outer two are no pair."""
    if opening.startswith("$"):
        return re.search(r"(?<!\\)\$", inner) is not None or inner.endswith("\\")
    return opening in inner or closing in inner
