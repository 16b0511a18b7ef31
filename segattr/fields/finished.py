"""Generations that stopped before their end: what services and data sets say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REASONS = ("finish_reason", "stop_reason", "finish_reasons", "done_reason")
WRITTEN = tuple(name.replace("_", "") for name in REASONS)  # however it is spelt
CUT_OFF = (
    *("length", "max_tokens", "max_length", "max_new_tokens", "model_length", "incomplete"),
    "token_limit",
    *("content_filter", "error", "abort", "cancelled"),
)
# Columns that say it with true, and those that say it with false.
CUT_SHORT = dict.fromkeys(("truncated", "is_truncated", "hit_max_tokens"), True)
CUT_SHORT |= dict.fromkeys(("is_reasoning_complete", "is_complete", "is_finished"), False)
SAID = {True: (True, 1, "true"), False: (False, 0, "false")}


def require_finished(reason: Any, column: str) -> None:
    """Raise for a reason that says a generation was cut off."""
    for one in reason if isinstance(reason, list) else [reason]:
        if isinstance(one, str) and one.lower() in CUT_OFF:
            raise _cut_off(f"{one} in {column}")


def require_finished_record(record: Mapping[str, Any], *, chosen: bool) -> None:
    """Raise for a record that says its generation was cut off, at any depth.

    Args:
        record: One JSON object.
        chosen: Whether the generation was chosen by lists that say it of each; these stay unread.
    """
    left: list[tuple[str, Any]] = [("", record)]  # a stack: JSON may be nested deeply
    while left:
        name, part = left.pop()
        if isinstance(part, Mapping):
            left += [(f"{name}.{key}" if name else str(key), part[key]) for key in part]
        elif isinstance(part, list) and part and isinstance(part[0], (Mapping, list)):
            left += [(f"{name}[{index}]", item) for index, item in enumerate(part)]
        elif not (chosen and isinstance(part, list)):
            _require(name.rpartition(".")[2], part, name)


def _require(key: str, value: Any, column: str) -> None:
    if key.lower().replace("_", "").endswith(WRITTEN):
        require_finished(value, column)
    short = value[0] if isinstance(value, list) and len(value) == 1 else value
    said = short.lower() if isinstance(short, str) else short
    if key in CUT_SHORT and said in SAID[CUT_SHORT[key]]:
        raise _cut_off(f"{short} in {column}")


def _cut_off(what: str) -> ValueError:
    return ValueError(
        f"a generation must have come to its end, got {what}. Drop this trace, or take the column "
        "out if it speaks of something else."
    )
