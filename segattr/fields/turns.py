"""The assistant's turn: reasoning and response from the texts that a record has of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from segattr.fields.names import Found, as_field, naming, same
from segattr.fields.thinking import MARKS, Cut, Mark, cut, require_closed, require_whole

ENDS = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>"),
    *("<\uff5cend▁of▁sentence\uff5c>", "<end_of_turn>", "<turn|>", "<|end|>"),
    *("<|return|>", "<|call|>", "<|eot|>", "<|END_OF_TURN_TOKEN|>", "<|end_of_role|>"),
    *("[|endofturn|]", "<seed:eos>", "<|im_sep|>", "<eos>", "</s>"),
)
# What a text of its own may hold; the others are nothing but ends of turns.
ALSO_TEXT = ("<eos>", "</s>")
HEADERS = (
    *(
        "<|im_start|>",
        "<|start_header_id|>",
        "<\uff5cUser\uff5c>",
        "<\uff5cAssistant\uff5c>",
        "<start_of_turn>",
    ),
    *("<|user|>", "<|assistant|>", "<|START_OF_TURN_TOKEN|>", "[INST]", "<|start|>", "[|user|]"),
    *("<|turn>", "<|start_of_role|>", "<|begin_of_text|>", "<bos>"),
    "<\uff5cbegin▁of▁sentence\uff5c>",
)


@dataclass(frozen=True)
class Turn:
    """Reasoning and response, and where they stood.

    Args:
        reasoning: As in `Trace`.
        response: As in `Trace`.
        marks: As in `Trace`.
        columns: Where reasoning and response stood, in words.
    """

    reasoning: str
    response: str | None = None
    marks: tuple[str, str] | None = None
    columns: dict[str, str] = field(default_factory=dict)


def read_turn(
    reasoning: Found | None, content: Found | None, marks: Sequence[Mark] = MARKS
) -> Turn:
    """Read a turn from its reasoning, its content, or both.

    Args:
        reasoning: What stands in a place for reasoning: the reasoning, with or without its marks,
            or the whole turn.
        content: What stands in a place for the response: the response, or the whole turn.
        marks: What may open and close the thinking.

    Raises:
        ValueError: If it cannot be said where the thinking ends, or the two disagree.
    """
    reasoning, content, end = _without_end(reasoning, content)
    thought = cut(reasoning, marks, closed=content is not None) if reasoning else None
    said = cut(content, marks) if content else None
    if content is None and reasoning is not None:
        turn = _from_one(reasoning, thought)
    elif reasoning is None and content is not None:
        if said is None:
            require_whole(content, marks)
        turn = _from_one(content, said)
    else:
        assert reasoning is not None
        assert content is not None
        turn = _from_two(reasoning, thought, content, said, marks)
    _require_one_turn(turn)
    if end:
        last = "response" if "response" in turn.columns else "reasoning"
        columns = {**turn.columns, last: f"{turn.columns[last]}, without {end}"}
        return replace(turn, columns=columns)
    return turn


def _from_one(text: Found, parts: Cut | None) -> Turn:
    if parts is None:
        return Turn(text.value, columns={"reasoning": text.column})
    if not parts.reasoning.strip():
        raise ValueError(
            f"{text.column} must hold reasoning, got none before {parts.closing}. Drop this trace."
        )
    columns = {
        "reasoning": f"{text.column} up to {parts.closing}",
        "response": f"{text.column} after {parts.closing}",
    }
    return Turn(parts.reasoning, parts.rest, (parts.opening, parts.closing), columns)


def _from_two(
    reasoning: Found,
    thought: Cut | None,
    content: Found,
    said: Cut | None,
    marks: Sequence[Mark],
) -> Turn:
    if said is None:
        require_closed(content, marks)
    body = thought.reasoning if thought else reasoning.value
    after = thought.rest if thought else ""
    if said is not None and (said.opening or said.reasoning.strip()):
        if not same(body, said.reasoning) or (after.strip() and not same(after, said.rest)):
            raise conflict("reasoning", reasoning.column, content.column)
        return _from_one(content, said)
    rest = said.rest if said else content.value
    if after.strip() and not same(after, rest):
        raise ValueError(
            f"{reasoning.column} must be reasoning alone beside {content.column}, got other text "
            f"after {thought.closing if thought else ''}. "
            f"To read it whole: {as_field('response', None)}."
        )
    pair = None
    if thought or said:
        closing = (thought or said).closing  # type: ignore[union-attr]
        pair = (thought.opening if thought else "", closing)
    columns = {"reasoning": reasoning.column, "response": content.column}
    return Turn(body, after if after.strip() else after + rest, pair, columns)


def agreed(own: Turn, chat: Turn, chat_column: str) -> Turn:
    """Return the fuller one of two readings of one turn.

    Raises:
        ValueError: If they are not of one turn.
    """
    if not same(own.reasoning, chat.reasoning):
        raise conflict("reasoning", own.columns["reasoning"], chat_column)
    if own.response is None:
        return chat
    if chat.response is None:
        return own
    if not same(own.response, chat.response):
        raise conflict("response", own.columns["response"], chat_column)
    return chat


def conflict(name: str, *columns: str) -> ValueError:
    """Return the error of two columns that differ."""
    plain = [column.split(" ")[0] for column in columns]
    return ValueError(
        f"{name} must be read from one place, got {' and '.join(plain)}, which differ. "
        f"{naming(name, *plain)}"
    )


def _without_end(
    reasoning: Found | None, content: Found | None
) -> tuple[Found | None, Found | None, str]:
    """Take the end of turn off the turn's last text, and return it: the template has its own."""
    text = reasoning if content is None else content
    if text is None:
        return None, None, ""
    stripped = text.value.rstrip()
    end = next((end for end in ENDS if stripped.endswith(end)), "")
    last = replace(text, value=stripped.removesuffix(end)) if end else text
    return (last, None, end) if content is None else (reasoning, last, end)


def _require_one_turn(turn: Turn) -> None:
    """Raise for a text in which a turn ends, or another one starts."""
    for name, text in (("reasoning", turn.reasoning), ("response", turn.response or "")):
        for token in (*ENDS, *HEADERS):
            if token in text and token not in ALSO_TEXT and token != "[INST]":
                raise ValueError(
                    f"{name} must stay inside one turn, got {token} in {turn.columns[name]}. Cut "
                    "the text there, or drop this trace."
                )


def require_unrendered(question: Found) -> None:
    """Raise for a question that a chat template has been applied to already, if only in part."""
    for mark in MARKS:
        if question.value.rstrip().endswith((mark.opening, mark.closing)):
            raise ValueError(
                f"question must stop before the assistant's turn, got {mark.opening} or "
                f"{mark.closing} at the end of {question.column}. Take it off."
            )
    for token in HEADERS:
        if token in question.value:
            raise ValueError(
                f"question must be plain text or chat messages, got {token} in {question.column}: "
                "a chat template was applied already. Give the text, or the messages."
            )
