"""Chat messages, whatever their keys are called, and the last turn among them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segattr.fields.finished import REASONS, require_finished
from segattr.fields.names import Found, naming, parsed, same

ROLES = {
    **{"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant"},
    **{"bot": "assistant", "ai": "assistant", "function_call": "assistant"},
    **{"observation": "tool", "function_response": "tool", "function": "tool"},
    **{role: role for role in ("system", "developer", "user", "assistant", "tool")},
}
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
# What a message may say without content.
ALSO_SAID = ("tool_calls", "function_call", *REASONING_KEYS)
# What the last turn may say beside its text, and a response cannot.
UNREAD_KEYS = ("tool_calls", "refusal", "audio", "images")
# A last turn that others mark so is not trained by them.
LOSS_KEYS = ("weight", "train", "training", "loss", "train_on_turn")


@dataclass(frozen=True)
class Chat:
    """Messages before the last turn, and the last turn's texts; none if it is not there."""

    question: list[dict[str, Any]]
    reasoning: Found | None = None
    content: Found | None = None
    column: str = ""

    @property
    def has_turn(self) -> bool:
        """Whether the chat ends in the assistant's turn."""
        return self.reasoning is not None or self.content is not None


def read_chat(found: Found) -> Chat:
    """Read chat messages, or a string of JSON that holds them.

    Raises:
        ValueError: If a message has no role or content, or the last turn is no text.
    """
    turns = parsed(found, (list, dict), "a list of messages")  # type: ignore[arg-type]
    messages = messages_of(turns, found.column)
    for index, message in enumerate(messages[:-1]):
        if message["content"] is None and not any(message.get(key) for key in ALSO_SAID):
            raise ValueError(
                f"a message of {found.column} must have content, got None in number {index}."
            )
    if not messages or messages[-1]["role"] != "assistant":
        return Chat(messages, column=found.column)
    column = f"{found.column}[-1]" if isinstance(turns, list) else found.column
    reasoning, content = last_turn(messages[-1], column)
    return Chat(messages[:-1], reasoning, content, found.column)


def messages_of(turns: Any, column: str) -> list[dict[str, Any]]:
    """Return messages with ``role`` and ``content``, all their other keys kept."""
    if isinstance(turns, Mapping):
        turns = _rows(turns)
    if not all(isinstance(turn, Mapping) for turn in turns):
        raise ValueError(
            f"{column} must be chat messages, objects with role and content, got {turns!r:.80}. "
            "Convert them."
        )
    return [_message(turn, column) for turn in turns]


def _rows(turns: Mapping[str, Any]) -> list[Any]:
    """Return the messages of an object: of one message, or of a list for each key."""
    values = list(turns.values())
    lengths = {len(value) if isinstance(value, list) else None for value in values}
    if len(lengths) == 1 and None not in lengths:
        return [dict(zip(turns, row, strict=True)) for row in zip(*values, strict=True)]
    return [turns]


def _message(turn: Mapping[str, Any], column: str) -> dict[str, Any]:
    given = [ROLES.get(role.lower(), role) if isinstance(role, str) else role
             for role in (turn.get("role"), turn.get("from")) if role is not None]  # fmt: skip
    if not given or not isinstance(given[0], str) or any(role != given[0] for role in given):
        raise ValueError(
            f"a message's role must be text, got {(given or [None])[-1]!r:.80}. Mend the record."
        )
    texts = [turn[key] for key in ("content", "value") if turn.get(key) is not None]
    if len(texts) == 2 and texts[0] != texts[1]:
        raise ValueError(f"a message of {column} must have one content, got content and value.")
    # Parquet writes every key of any message into all of them.
    kept = {key: value for key, value in turn.items() if value is not None}
    message = {"role": given[0], "content": _content(texts[0] if texts else None, turn, column)}
    calls = kept.pop("tool_calls", None) or kept.pop("function_call", None)
    if "function_call" in (turn.get("from"), turn.get("role")):
        message["content"], calls = None, texts[0] if texts else ""
    if calls:
        message["tool_calls"] = _calls(calls, column)
    return {**{k: v for k, v in kept.items() if k not in ("from", "value")}, **message}


def _content(content: Any, turn: Mapping[str, Any], column: str) -> Any:
    """Return a text, or parts if thinking is among them; parts of text are joined."""
    if isinstance(content, str):
        return content
    if content is None:
        if any(turn.get(key) for key in ALSO_SAID) or turn.get("role") == "assistant":
            return None
        raise ValueError(f"a message of {column} must have content, got {dict(turn)!r:.80}.")
    if not isinstance(content, list):
        raise ValueError(
            "question must be a string or chat messages with role and content, got content "
            f"{content!r:.80} in {column}. Convert it."
        )
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in ("text", "thinking", "reasoning"):
            raise ValueError(
                "a message's content must be a string or parts of text and thinking, got "
                f"{part!r:.80} in {column}. Write it as text."
            )
    if all(part["type"] == "text" for part in content):
        return "".join(_part_text(part, column) for part in content)
    return content


def _part_text(part: Mapping[str, Any], column: str) -> str:
    value = part.get(part["type"])
    value = part.get("text") if value is None else value
    if isinstance(value, list):  # Mistral's thinking is parts again
        value = "".join(_part_text(inner, column) for inner in messages_parts(value, column))
    if not isinstance(value, str):
        raise ValueError(f"a part's {part['type']} must be text, got {part!r:.80} in {column}.")
    return value


def messages_parts(parts: Sequence[Any], column: str) -> Sequence[Mapping[str, Any]]:
    """Return parts inside a part of thinking, which must be texts."""
    if all(isinstance(part, Mapping) and part.get("type") == "text" for part in parts):
        return parts
    raise ValueError(f"thinking must be parts of text, got {parts!r:.80} in {column}.")


def _calls(calls: Any, column: str) -> list[Any]:
    """Return calls as the templates of today read them; they may be a string of JSON, or one."""
    given = calls
    if isinstance(calls, str):
        try:
            calls = json.loads(calls)
        except (ValueError, RecursionError):
            calls = None
    calls = calls if isinstance(calls, list) else [calls]
    if not calls or not all(
        isinstance(c, Mapping) and ("name" in c or "function" in c) for c in calls
    ):
        raise ValueError(
            f"a function_call of {column} must be JSON with a name, got {given!r:.80}. Mend it."
        )
    return [
        call if "function" in call else {"type": "function", "function": dict(call)}
        for call in calls
    ]


def last_turn(message: Mapping[str, Any], column: str) -> tuple[Found | None, Found | None]:
    """Return the reasoning and the content of the assistant's last turn, where it has them."""
    _require_readable(message, column)
    content: Any = message["content"]
    thoughts = [Found(message[k], f"{column}.{k}") for k in REASONING_KEYS if message.get(k)]
    where = f"{column}.content"
    if isinstance(content, list):
        kinds = ["text" if part["type"] == "text" else "thinking" for part in content]
        if kinds != sorted(kinds, reverse=True):
            raise ValueError(f"{where} must think before it answers, got parts {', '.join(kinds)}.")
        texts = [_part_text(part, where) for part in content]
        split = kinds.count("thinking")
        thoughts.append(Found("".join(texts[:split]), f"{where}, parts of thinking"))
        content = "".join(texts[split:])
    for thought in thoughts:
        if not isinstance(thought.value, str):
            raise ValueError(
                f"{thought.column} must be text, got {thought.value!r:.80}. Convert it."
            )
        if not same(thought.value, thoughts[0].value):
            raise ValueError(
                f"reasoning must be read from one place, got {thoughts[0].column} and "
                f"{thought.column}, which differ. {naming('reasoning', thoughts[0].column)}"
            )
    if content is None and not thoughts:
        raise ValueError(
            f"the assistant's content must be a string, got None in {column}. Drop this trace."
        )
    said = None if content is None else Found(content, where)
    return thoughts[0] if thoughts else None, said


def _require_readable(message: Mapping[str, Any], column: str) -> None:
    for key in REASONS:
        require_finished(message.get(key), f"{column}.{key}")
    for key in UNREAD_KEYS:
        if message.get(key):
            raise ValueError(
                f"the last turn must be reasoning and a response, got {key} in {column}. Let the "
                "chat stop before a turn that ends in text."
            )
    for key in LOSS_KEYS:
        if key in message and message[key] in (0, False, "false", "False"):
            raise ValueError(
                f"the last turn must carry loss, got {key}={message[key]!r} in {column}. Drop this "
                "trace, or take the key out."
            )
