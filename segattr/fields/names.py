"""What the fields of a trace are called in records, and how a name leads to a value."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segattr.fields.finished import REASONS

# The columns that a field is looked for under. Two that a record has must agree.
FIELDS: dict[str, tuple[str, ...]] = {
    "question": ("question", "problem", "prompt", "instruction", "query"),
    "reasoning": (
        *("reasoning", "solution", "reasoning_content", "thinking", "cot", "chain_of_thought"),
        *("thought", "rationale", "reasoning_trace", "deepseek_reasoning"),
        *("thoughts", "think", "long_cot", "reasoning_text", "reasoning_chain"),
        *("thinking_trajectories", "deepseek_thinking_trajectory"),
    ),
    "answer": (
        *("answer", "final_answer", "expected_answer", "ground_truth", "reference_answer"),
        *("correct_answer", "gold_answer", "gt_answer"),
    ),
    "response": (
        *("response", "completion", "output", "content", "generation", "generated_solution"),
        *("generated_text", "model_output", "attempt", "deepseek_attempt", "deepseek_solution"),
        *("generations", "responses", "completions", "outputs"),
    ),
    "messages": ("messages", "conversations", "conversation"),
    "system": ("system", "system_prompt", "system_message", "system_instruction", "sys_prompt"),
    "input": ("input",),
    "history": ("history",),
    "tools": ("tools",),
    "chat_template_kwargs": ("chat_template_kwargs",),
    "id": ("id", "uuid"),
    "segments": ("segments",),
    "untrained": ("untrained",),
    "marks": ("marks",),
    "finish_reason": REASONS,
}
REQUIRED = ("question", "reasoning", "answer")
# A response only beside the reasoning named here; beside another one nobody can tell.
RESPONSE_OF = {
    "content": ("reasoning_content",),
    "attempt": ("thinking_trajectories",),
    "deepseek_attempt": ("deepseek_thinking_trajectory",),
    "deepseek_solution": ("deepseek_reasoning",),
}
SURE_RESPONSES = ("response", "completion")


@dataclass(frozen=True)
class Found:
    """A value, the column it stands in, and whether the user named that column."""

    value: Any
    column: str
    named: bool = False


def lookup(record: Mapping[str, Any], path: str) -> Any:
    """Return what a dotted and indexed name leads to, such as ``messages[-1].content``.

    A column of exactly that name comes first. None if the name leads nowhere.
    """
    if path in record or not {".", "["}.intersection(path):
        return record.get(path)
    value: Any = record
    for key, index in re.findall(r"([^.\[\]]+)|\[(-?\d+)\]", path):
        value = _json(value)
        if key and isinstance(value, Mapping):
            value = value.get(key)
        elif index and isinstance(value, Sequence) and not isinstance(value, str):
            value = value[int(index)] if -len(value) <= int(index) < len(value) else None
        else:
            return None
    return value


def root(path: str) -> str:
    """Return the column that a path starts in."""
    return re.split(r"[.\[:]", path, maxsplit=1)[0]


def _json(value: Any) -> Any:
    """Return what a string of JSON holds, if it holds a list or an object."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def parsed(found: Found, kind: type, what: str) -> Any:
    """Return a list or an object that may be written as a string of JSON.

    Raises:
        ValueError: If it is something else.
    """
    value = _json(found.value)
    if not isinstance(value, kind):
        raise ValueError(
            f"{found.column} must be {what}, got {found.value!r:.80}. Write it as JSON."
        )
    return value


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal, white space around texts aside."""
    if isinstance(first, str) and isinstance(second, str):
        return first.strip() == second.strip()
    return bool(first == second)


def naming(field: str, *columns: str) -> str:
    """Return a remedy: the way to name a column for a field."""
    ways = " or ".join(as_field(field, column) for column in columns)
    return f"Name the one to read: {ways}."


def as_field(field: str, column: str | None) -> str:
    """Return how a column is named for a field, in Python and in the command."""
    return f"fields={{{field!r}: {column!r}}} (--field {field}={column or ''})"
