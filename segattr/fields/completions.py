"""The turn of a record: what its columns have of it, what its chat has, and whether they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from segattr.fields.chat import Chat, last_turn, messages_of
from segattr.fields.names import Found, as_field, naming, same
from segattr.fields.thinking import Mark
from segattr.fields.turns import Turn, agreed, conflict, read_turn

# Columns that may hold a list, of which there must be one.
PLURAL = ("thinking_trajectories", "generations", "responses", "completions", "outputs")


@dataclass(frozen=True)
class Completion:
    """What the columns of a record have of the assistant's turn.

    Args:
        reasoning: What stands in the place for reasoning.
        content: What stands in the place for the response.
        before: Messages that come before the last turn, where a completion is a chat.
    """

    reasoning: Found | None = None
    content: Found | None = None
    before: Sequence[dict[str, Any]] = ()


def read_completion(reasoning: Found | None, content: Found | None) -> Completion:
    """Read the columns for reasoning and response, which may hold a text, messages, or one of them.

    Raises:
        ValueError: If they hold something else.
    """
    before: Sequence[dict[str, Any]] = ()
    if reasoning is not None and reasoning.value == "" and content and not reasoning.named:
        reasoning = None
    if reasoning is not None:
        reasoning = _one(reasoning)
        if isinstance(reasoning.value, Mapping) and "content" in reasoning.value:
            (message,) = messages_of([reasoning.value], reasoning.column)
            thought, said = last_turn(message, reasoning.column)
            if thought is not None:
                return Completion(thought, said if content is None else content)
            reasoning = said
    if content is not None:
        content = _one(content)
        turns = [content.value] if isinstance(content.value, Mapping) else content.value
        if isinstance(turns, list) and turns and all(isinstance(turn, Mapping) for turn in turns):
            messages = messages_of(turns, content.column)
            if messages[-1]["role"] != "assistant":
                raise ValueError(
                    f"{content.column} must end in the assistant's turn, got a message of "
                    f"{messages[-1]['role']}. Cut it before."
                )
            before = messages[:-1]
            column = f"{content.column}[-1]" if content.value is turns else content.column
            thought, content = last_turn(messages[-1], column)
            _require_said(thought, content)
            reasoning = reasoning or thought
    for name, found in (("reasoning", reasoning), ("response", content)):
        if found is not None and not isinstance(found.value, str):
            raise ValueError(
                f"{name} must be text, got {type(found.value).__name__} in {found.column}. "
                "Convert it to a string."
            )
    return Completion(reasoning, content, before)


def _one(found: Found) -> Found:
    """Return the one text of a list of generations."""
    if found.column not in PLURAL or not isinstance(found.value, list) or not found.value:
        return found
    if len(found.value) > 1 and not all(isinstance(text, Mapping) for text in found.value):
        raise ValueError(
            f"{found.column} must hold one generation, got {len(found.value)}. "
            f"{naming('reasoning', f'{found.column}[0]')}"
        )
    if isinstance(found.value[0], str):
        return replace(found, value=found.value[0], column=f"{found.column}[0]")
    return found


def read_last_turn(own: Completion, chat: Chat | None, marks: Sequence[Mark]) -> Turn | None:
    """Read the turn from columns, from the chat, or from both if they agree.

    Raises:
        ValueError: If they do not, or it cannot be said where the thinking ends.
    """
    mine = own.reasoning is not None or own.content is not None
    if own.reasoning is not None and own.reasoning.named:
        return _named_reasoning(own, chat, marks)
    if chat is None or not chat.has_turn:
        return read_turn(own.reasoning, own.content, marks) if mine else None
    _require_said(chat.reasoning, chat.content)
    if not mine:
        return read_turn(chat.reasoning, chat.content, marks)
    if own.reasoning is None:
        return _own_content(own, chat, marks)
    return _both(own, chat, marks)


def _require_said(reasoning: Found | None, content: Found | None) -> None:
    """Raise where a service returned a thought, and nothing after it."""
    if reasoning is not None and (content is None or not content.value.strip()):
        raise ValueError(
            f"a turn must say something after its thinking, got no content beside "
            f"{reasoning.column}: the generation was cut off. Drop this trace. If all of it is "
            f"reasoning: {as_field('reasoning', reasoning.column)}."
        )


def _named_reasoning(own: Completion, chat: Chat | None, marks: Sequence[Mark]) -> Turn:
    """Read the user's column; a whole turn elsewhere adds its response if it is the same one."""
    content = own.content
    others: list[tuple[Found | None, Found | None]] = []
    if content and not content.named and any(mark.closing in content.value for mark in marks):
        others.append((None, content))
        content = None
    if content is None and chat is not None and chat.has_turn:
        others.append((chat.reasoning, chat.content))
    turn = read_turn(own.reasoning, content, marks)
    for other in others if turn.response is None else ():
        try:
            whole = read_turn(*other, marks)
        except ValueError:
            continue  # the user said where the reasoning stands
        if same(turn.reasoning, whole.reasoning):
            return whole
    return turn


def _own_content(own: Completion, chat: Chat, marks: Sequence[Mark]) -> Turn:
    """Read a response beside a chat: the chat's own, its whole turn, or the user's choice."""
    assert own.content is not None
    if chat.content is not None and same(own.content.value, chat.content.value):
        return read_turn(chat.reasoning, chat.content, marks)
    turn = read_turn(chat.reasoning, chat.content, marks)
    if same(own.content.value, turn.response) and not own.content.named:
        return turn
    if own.content.named:
        reasoning = Found(turn.reasoning, turn.columns["reasoning"])
        read = read_turn(reasoning, own.content, marks)
        return replace(read, marks=read.marks or turn.marks)
    if not any(mark.closing in own.content.value for mark in marks):
        raise conflict("response", own.content.column, f"{chat.column}[-1].content")
    return agreed(read_turn(None, own.content, marks), turn, f"{chat.column}[-1].content")


def _both(own: Completion, chat: Chat, marks: Sequence[Mark]) -> Turn:
    assert own.reasoning is not None
    turn = read_turn(own.reasoning, own.content, marks)
    said = chat.content
    if chat.reasoning is None and said is not None:
        known = [own.reasoning, own.content] if own.content else [own.reasoning]
        if any(same(said.value, one.value) for one in known):
            return turn
        if not any(mark.closing in said.value for mark in marks):
            raise ValueError(
                f"reasoning must be read from one place, got {own.reasoning.column} and "
                f"{said.column}, which differ. "
                f"{naming('reasoning', own.reasoning.column, said.column)} If the turn is what "
                f"follows the reasoning: {as_field('response', said.column)}."
            )
    return agreed(turn, read_turn(chat.reasoning, said, marks), f"{chat.column}[-1].content")
