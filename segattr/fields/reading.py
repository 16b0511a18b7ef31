"""Records to fields: one JSON object to what a `Trace` is made of, and where each part stood."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from segattr.fields.answers import answer_text, find_answer, split_finder
from segattr.fields.chat import read_chat
from segattr.fields.columns import Columns
from segattr.fields.completions import read_completion, read_last_turn
from segattr.fields.finished import require_finished, require_finished_record
from segattr.fields.layouts import PLAIN, layout_of
from segattr.fields.names import FIELDS, Found, as_field, parsed
from segattr.fields.questions import read_question, require_read, texts_in
from segattr.fields.thinking import MARKS, Mark
from segattr.fields.turns import Turn, conflict


@dataclass(frozen=True)
class Reading:
    """What was read from a record.

    Args:
        values: Arguments of `Trace`.
        layout: Name of the layout; ``plain`` if no data set was recognised.
        columns: Where each field stood, in words: ``messages[-1].content up to </think>``.
    """

    values: dict[str, Any]
    layout: str
    columns: dict[str, str]


def trace_fields(
    record: Mapping[str, Any],
    own: Mapping[str, str | None] | None = None,
    *,
    layout: str = "auto",
    marks: tuple[str, str] | None = None,
) -> Reading:
    """Read the arguments of `Trace` from a record; see `Trace.from_record`.

    Args:
        record: One JSON object.
        own: Your own column for a field, such as ``{"reasoning": "cot"}``; None: there is none.
        layout: A name of `LAYOUTS`.
        marks: What opens and closes the thinking, instead of `MARKS`.

    Returns:
        The arguments, the layout's name, and where each field stood. Texts are not checked here;
        `Trace` does that.

    Raises:
        ValueError: If a field is missing, or cannot be read surely; names the column.
    """
    known = layout_of(record, layout)
    columns = Columns(record, own or {}, known)
    pairs = _pairs(columns, marks)
    found = {name: one for name in FIELDS if (one := columns.find(name, pairs)) is not None}
    if (reason := found.get("finish_reason")) is not None and reason.named:
        require_finished(reason.value, reason.column)
    require_finished_record(record, chosen=bool(known.verdicts))
    chat = read_chat(found["messages"]) if "messages" in found else None
    completion = read_completion(found.get("reasoning"), found.get("response"))
    if "question" not in found and not (chat and chat.question):
        raise columns.missing("question")
    turn = read_last_turn(completion, chat, pairs)
    if turn is None:
        raise columns.missing("reasoning")
    question, where = read_question(found, chat, completion.before)
    answer = _answer(columns, found.get("answer"), turn)
    read = {"question": where, **turn.columns, "answer": answer.column}
    values = {**_texts(question, turn, answer), **_others(found, turn)}
    read |= {name: found[name].column for name in values if name in found and name not in read}
    values["metadata"] = _metadata(record, columns.used, known.name)
    if known is PLAIN and "reasoning" not in columns.own:
        _require_only_thinking(values["metadata"], turn, pairs)
    used = {*columns.used, *(("input_ids",) if known.name == "segattr" else ())}
    require_read(record, sorted(used), question)
    return Reading(values, known.name, read)


def _require_only_thinking(left: Mapping[str, Any], turn: Turn, pairs: Sequence[Mark]) -> None:
    """Raise if a column that was not read holds another thought."""
    for name, value in left.items():
        for text in texts_in(value):
            thoughts = (text.partition(m.closing)[0] for m in pairs if m.closing in text)
            if not all(one.rstrip().endswith(turn.reasoning.strip()) for one in thoughts):
                raise conflict("reasoning", turn.columns["reasoning"], name)
        if isinstance(value, list) and value and all(map(_is_turn, value)):
            raise ValueError(
                f"messages must be read, got a chat in {name} too. Name the column if it is the "
                f"one: {as_field('messages', name)}. If not, take it out of the record."
            )


def _is_turn(value: Any) -> bool:
    return isinstance(value, Mapping) and ("role" in value or {"from", "value"} <= value.keys())


def _texts(question: Any, turn: Turn, answer: Found) -> dict[str, Any]:
    texts = {"question": question, "reasoning": turn.reasoning, "answer": answer_text(answer)}
    return texts if turn.response is None else {**texts, "response": turn.response}


def _answer(columns: Columns, found: Found | None, turn: Turn) -> Found:
    """Return the answer's column, or what is found inside a text."""
    if found is None:
        raise columns.missing("answer")
    if not split_finder(found.column)[1]:
        return found
    for name in columns.names("answer"):
        column, finder = split_finder(name)
        text = columns.text(column) if column else _boxed_text(turn, finder)
        inner = text.value
        if finder:
            inner = find_answer(text.value, finder) if isinstance(text.value, str) else None
        if inner not in (None, ""):
            return Found(inner, f"{finder} in {text.column}" if finder else column)
    raise columns.missing("answer")


def _boxed_text(turn: Turn, finder: str) -> Found:
    """Return the text of the turn that an answer stands in: the response, or the reasoning."""
    if turn.response and find_answer(turn.response, finder) is not None:
        return Found(turn.response, turn.columns["response"])
    return Found(turn.reasoning, turn.columns["reasoning"])


def _others(found: Mapping[str, Found], turn: Turn) -> dict[str, Any]:
    """Return the arguments that are no texts."""
    values: dict[str, Any] = {}
    if "id" in found:
        values["id"] = str(found["id"].value)
    if "segments" in found:
        values["segments"] = found["segments"].value
    if "tools" in found and (tools := _tools(found["tools"])):
        values["tools"] = tools
    if "chat_template_kwargs" in found:
        switches = parsed(found["chat_template_kwargs"], dict, "an object")
        values["chat_template_kwargs"] = switches
    if (marks := _marks_of(found.get("marks"), turn)) is not None:
        values["marks"] = marks
    if "untrained" in found and (spans := parsed(found["untrained"], list, "a list of spans")):
        if turn.marks is not None and turn.marks[0]:
            raise ValueError(
                f"{found['untrained'].column} must count from the reasoning's first character, got "
                f"spans beside {turn.columns['reasoning']}, which had {turn.marks[0]!r} before it. "
                "Give the reasoning without it."
            )
        values["untrained"] = spans
    return values


def _tools(found: Found) -> list[Any]:
    tools = [
        parsed(replace(found, value=tool), dict, "a list of objects")
        for tool in parsed(found, list, "a list of objects")
    ]
    return tools


def _pairs(columns: Columns, marks: tuple[str, str] | None) -> tuple[Mark, ...]:
    """Return what may open and close the thinking: the user's marks, the record's, or all."""
    own = _marks(Found(marks, "marks")) if marks is not None else None
    given = own or _marks(columns.find("marks"))
    if given is None:
        return MARKS
    mark = Mark(*(text.strip("\n") for text in given))
    if own is not None and not mark.closing:
        raise ValueError("marks must close the thinking, got nothing to look for. Give a text.")
    others = () if own is not None else MARKS
    return (mark, *(one for one in others if one != mark)) if mark.closing else others


def _marks_of(found: Found | None, turn: Turn) -> tuple[str, str] | None:
    """Return the marks as they stood in the text, or as the record says."""
    said = _marks(found)
    if said is None or turn.marks is None:
        return said or turn.marks
    if any(a.strip() and a.strip() != b.strip() for a, b in zip(turn.marks, said, strict=True)):
        raise ValueError(
            f"marks must be those of the text, got {said} beside {turn.marks} in "
            f"{turn.columns['reasoning']}. Mend the record."
        )
    return turn.marks


def _marks(found: Found | None) -> tuple[str, str] | None:
    if found is None:
        return None
    pair = found.value
    if not isinstance(pair, (list, tuple)) or [type(mark) for mark in pair] != [str, str]:
        raise ValueError(
            f"{found.column} must be what opens and what closes the thinking, got {pair!r:.80}. "
            "Write two texts."
        )
    return (pair[0], pair[1])


def _metadata(record: Mapping[str, Any], used: set[str], layout: str) -> dict[str, Any]:
    if layout == "segattr":
        return parsed(Found(record.get("metadata") or {}, "metadata"), dict, "an object")
    taken = used | set(FIELDS["messages"])
    metadata = {key: value for key, value in record.items() if key not in taken}
    _require_finite(metadata)
    return metadata


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
