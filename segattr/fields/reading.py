"""Records to fields: one JSON object to what a `Trace` is made of.

Imports nothing outside the standard library: the command's help lists `FIELDS` before torch is
loaded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from segattr.checks import require_word

# The keys that a field is looked for under; the first that a record has is taken.
FIELDS: dict[str, tuple[str, ...]] = {
    "question": ("question", "problem", "prompt", "instruction"),
    "reasoning": ("reasoning", "solution", "reasoning_content", "thinking"),
    "answer": ("answer", "final_answer", "expected_answer"),
    "response": ("response",),
    "id": ("id", "uuid"),
    "segments": ("segments",),
}
REQUIRED = ("question", "reasoning", "answer")
CHAT = ("messages", "conversations")
ROLES = {"human": "user", "gpt": "assistant"}


def trace_fields(record: Mapping[str, Any], own: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the arguments of `Trace` that a record holds; see `Trace.from_record`.

    Args:
        record: One JSON object.
        own: Your own key for a field, such as ``{"reasoning": "cot"}``.

    Returns:
        ``question``, ``reasoning``, ``answer`` and ``metadata``; ``response``, ``id`` and
        ``segments`` where the record has them. Texts are not checked here; `Trace` does that.

    Raises:
        ValueError: If a field is missing, ``own`` names none of `FIELDS`, or a number is not
            finite.
    """
    own = own or {}
    for name in own:
        remedy = "Your own key stands on the other side: {'reasoning': 'cot'}."
        require_word("a key of fields", name, FIELDS, remedy)
    record = _with_chat(record, own)
    keys = {name: _find(record, own.get(name), name) for name in FIELDS}
    values = {name: record[key] for name, key in keys.items() if key is not None}
    for name in REQUIRED:
        if name not in values:
            raise ValueError(
                f"{name} must be given, got a record with the fields "
                f"{', '.join(map(str, record)) or 'none'}. "
                f"Looked for: {own.get(name) or ', '.join(FIELDS[name])}. "
                f"Name your own with fields={{{name!r}: ...}}."
            )
    values["answer"] = _text_of(values["answer"])
    if "id" in values:
        values["id"] = str(values["id"])
    used = {*keys.values(), *CHAT}
    metadata = {key: value for key, value in record.items() if key not in used}
    _require_finite(metadata)
    return {**values, "metadata": metadata}


def _find(record: Mapping[str, Any], own: str | None, name: str) -> str | None:
    """Return the key that the record has a field under."""
    keys = (own,) if own else FIELDS[name]
    return next((key for key in keys if record.get(key) is not None), None)


def _text_of(answer: Any) -> Any:
    """Return the text of a number; other answers as they are."""
    if isinstance(answer, bool) or not isinstance(answer, (int, float)):
        return answer
    if isinstance(answer, float) and not math.isfinite(answer):
        raise ValueError(f"answer must be text or a number, got {answer}. Mend the record.")
    return str(answer)


def _require_finite(metadata: Mapping[str, Any]) -> None:
    """Raise for numbers that JSON cannot hold: found here, not when the result is written."""
    for key, value in metadata.items():
        left = [value]  # a stack: recursion would fail on deeply nested JSON
        while left:
            part = left.pop()
            if isinstance(part, float) and not math.isfinite(part):
                raise ValueError(
                    f"metadata must hold finite numbers, got {part} in {key!r}. Mend the record, "
                    "or write null."
                )
            if isinstance(part, Mapping):
                left += part.values()
            elif isinstance(part, (list, tuple)):
                left += part


def _with_chat(record: Mapping[str, Any], own: Mapping[str, str]) -> Mapping[str, Any]:
    """Fill in from the chat what the record has no key for; a key of your own is not replaced."""
    present = {name for name in FIELDS if _find(record, own.get(name), name) is not None}
    if {"question", "reasoning"} <= present:
        return record
    chat = _from_chat(record)
    missing = [name for name in chat if name not in present and name not in own]
    return {**record, **{name: chat[name] for name in missing}}


def _from_chat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return question, reasoning and response of chat data; nothing for other records."""
    turns = record.get("messages") or record.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return {}
    messages = [_message(turn) for turn in turns]
    if not messages or messages[-1]["role"] != "assistant":
        return {}
    question = [{"role": m["role"], "content": m["content"]} for m in messages[:-1]]
    found = {"question": question, **_last_turn(messages[-1])}
    return {name: value for name, value in found.items() if value is not None}


def _message(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Return a turn with ``role`` and ``content``, whatever they are called."""
    role = turn.get("role", turn.get("from"))
    if not isinstance(role, str):
        raise ValueError(f"a message's role must be text, got {role!r:.80}. Mend the record.")
    content = turn.get("content", turn.get("value"))
    return {**turn, "role": ROLES.get(role, role), "content": content}


def _last_turn(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reasoning of the assistant's turn, and the response if there is one."""
    content = message["content"]
    if message.get("reasoning_content"):
        return {"reasoning": message["reasoning_content"], "response": content}
    if not isinstance(content, str):
        raise ValueError(
            f"the assistant's content must be a string, got {type(content).__name__}. Join its "
            "parts to one text."
        )
    reasoning, closed, response = content.partition("</think>")
    reasoning = re.sub(r"^\s*<think>\n?", "", reasoning)
    return {"reasoning": reasoning, "response": response if closed else None}
