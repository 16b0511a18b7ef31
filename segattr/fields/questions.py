"""The question: one text or chat messages, from all columns that a prompt is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segattr.fields.chat import Chat, messages_of
from segattr.fields.names import Found, naming, parsed, same
from segattr.fields.turns import require_unrendered

# Columns that belong to a prompt or to its tokens, and that no trace has a place for.
UNREAD = (
    *("image", "images", "video", "videos", "audio", "audios", "documents", "docs", "context"),
    *("passage", "passages", "article", "paragraph", "background", "choices", "options"),
    *("functions", "tool_calls", "developer", "developer_prompt", "few_shot", "demonstrations"),
    *("few_shot_examples", "starter_code", "prefix", "prefill", "assistant_prefix", "suffix"),
    *("response_prefix", "prompt_suffix", "chat_template"),
    "enable_thinking",
    *("input_ids", "loss_mask", "assistant_masks", "completion_mask", "input", "history"),
)
Question = str | list[dict[str, Any]]


def read_question(
    parts: Mapping[str, Found], chat: Chat | None, extra: Sequence[dict[str, Any]]
) -> tuple[Any, str]:
    """Return the question and the columns it was read from.

    Args:
        parts: What was found of ``question``, ``system``, ``input`` and ``history``.
        chat: The record's chat, if it has one.
        extra: Messages of a completion that come before its last turn.

    Raises:
        ValueError: If two places disagree, or a part has no place.
    """
    question, column = _asked(parts.get("question"), chat)
    if isinstance(question, list) and not all(isinstance(turn, Mapping) for turn in question):
        return question, column  # no messages: `Trace` says so
    columns = [column]
    for name, add in (("input", _with_input), ("history", _with_history), ("system", _with_system)):
        if (found := parts.get(name)) is not None and found.value:
            added = add(question, found, columns[0])
            columns += [found.column] if added != question else []
            question = added
    if extra:
        question = [*_messages(question), *extra]
    last = question[-1] if isinstance(question, list) and question else None
    text = last.get("content") if isinstance(last, dict) else question
    if isinstance(text, str):
        require_unrendered(Found(text, column))
    if isinstance(last, dict) and last.get("role") == "assistant":
        raise ValueError(
            f"question must stop before the assistant's turn, got one in {column}. Put its text "
            "into the reasoning, or drop it."
        )
    return question, ", ".join(columns)


def _asked(found: Found | None, chat: Chat | None) -> tuple[Any, str]:
    """Return the question of a column, or of the chat, or of both if they agree."""
    if found is None:
        assert chat is not None
        turn = chat.has_turn
        return chat.question, f"{chat.column}[:-1]" if turn else chat.column
    value = _chat_value(found)
    if chat is None or found.named or not chat.question:
        return value, found.column
    asked = [turn["content"] for turn in chat.question if turn["role"] == "user"]
    if value == chat.question or (len(asked) == 1 and same(value, asked[0])):
        return chat.question, f"{chat.column}[:-1]" if chat.has_turn else chat.column
    raise ValueError(
        f"question must be read from one place, got {found.column} and {chat.column}, which "
        f"differ. {naming('question', found.column)} Or take one of the columns out."
    )


def _chat_value(found: Found) -> Any:
    """Return a column's text, or its messages; `Trace` refuses anything else."""
    value = found.value
    if isinstance(value, str) and value.lstrip().startswith("[{") and '"role"' in value:
        value = parsed(found, list, "a list of messages")
    if isinstance(value, list) and value and all(isinstance(turn, Mapping) for turn in value):
        return messages_of(value, found.column)
    return value


def _messages(question: Any) -> list[dict[str, Any]]:
    return question if isinstance(question, list) else [{"role": "user", "content": question}]


def _with_input(question: Any, found: Found, column: str) -> Any:
    if not isinstance(found.value, str) or not isinstance(question, str):
        raise _without_place(found, "the question is a chat, or it is no text")
    if found.value.strip() in question:
        return question
    if not column.endswith("instruction"):
        raise _without_place(found, f"only an instruction has an input, and {column} is none")
    return f"{question}\n{found.value}"


def _with_history(question: Any, found: Found, column: str) -> Any:
    pairs = parsed(found, list, "a list of pairs of texts")
    if not isinstance(question, str):
        raise _without_place(found, "the question is a chat")
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or [type(text) for text in pair] != [str, str]:
            raise ValueError(f"{found.column} must be pairs of texts, got {pair!r:.80}. Mend it.")
    turns = [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return [*turns, *_messages(question)]


def _with_system(question: Any, found: Found, column: str) -> Any:
    if not isinstance(found.value, str):
        raise ValueError(f"{found.column} must be text, got {found.value!r:.80}. Convert it.")
    if not found.value.strip():
        return question
    messages = _messages(question)
    said = [turn["content"] for turn in messages if turn.get("role") in ("system", "developer")]
    if said and not any(same(found.value, text) for text in said):
        raise ValueError(
            f"system must be read from one place, got {found.column} and {column}, which differ. "
            "Take one of them out."
        )
    return question if said else [{"role": "system", "content": found.value}, *messages]


def _without_place(found: Found, why: str) -> ValueError:
    return ValueError(
        f"{found.column} must have a place in the question, got {found.value!r:.80}: {why}. Write "
        "it into the question, and take the column out."
    )


def require_read(record: Mapping[str, Any], used: Sequence[str], question: Any) -> None:
    """Raise for a column that would change tokens, and was not read."""
    asked = "\n".join(texts_in(question))
    for name in UNREAD:
        value = record.get(name)
        if name in used or value is None or value in ("", [], {}):
            continue
        texts = list(texts_in(value))
        if texts and all(text.strip() in asked for text in texts):
            continue
        raise ValueError(
            f"{name} must not decide about tokens, got a column that no trace has a place for. "
            "Write it into the question, or take it out of the record."
        )


def texts_in(value: Any) -> Iterator[str]:
    """All texts inside lists and objects of JSON, in order."""
    left = [value]  # a stack: recursion would fail on deeply nested JSON
    while left:
        part = left.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping):
            left += reversed(list(part.values()))
        elif isinstance(part, (list, tuple)):
            left += reversed(part)
