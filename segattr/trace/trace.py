"""A reasoning trace as text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from segattr.fields import texts_in, trace_fields

Span = tuple[int, int]


@dataclass(frozen=True)
class Trace:
    """A question, the reasoning about it, and the correct final answer.

    Args:
        question: A string, or chat messages that stop before the reasoning: dicts with ``role`` and
            ``content`` (a string, a list of parts, or None), and whatever else the chat template
            reads, such as ``tool_calls``.
        reasoning: The text between the generation prompt and ``</think>``, verbatim.
        answer: The correct final answer, as it would stand inside ``\\boxed{}``.
        response: What follows ``</think>`` in the training text. ``None``: the reasoning is the
            whole turn, and ``</think>`` is trained only where the chat template writes it itself.
        id: A name to find the trace by.
        segments: Where to cut the reasoning: strings that join to it, or half-open spans of its
            characters that cover it. ``None`` lets `encode` cut.
        metadata: Anything else; kept, never read.
        tools: Descriptions of tools, as the chat template reads them.
        chat_template_kwargs: Switches of the chat template, such as ``{"thinking": True}``.
        untrained: Half-open character spans of the reasoning that never carry loss, such as results
            of tools; in order.
        marks: What opens and closes the thinking in the trace's own text, such as
            ``("<think>\\n", "</think>")``; written where the chat template knows of no thinking.

    Raises:
        ValueError: If question, reasoning or answer is empty or not text, the segments do not join
            to the reasoning, or a span leaves it.
    """

    question: str | Sequence[Mapping[str, Any]]
    reasoning: str
    answer: str
    response: str | None = None
    id: str | None = None
    segments: Sequence[str] | Sequence[Span] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    untrained: Sequence[Span] = ()
    marks: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        self._check_texts()
        if self.segments is not None:
            object.__setattr__(self, "segments", _segment_texts(self.segments, self.reasoning))
        object.__setattr__(self, "untrained", [_span("untrained", span) for span in self.untrained])
        require_inside("untrained", self.untrained, (0, len(self.reasoning)))

    @property
    def digest(self) -> str:
        """What tells its texts from others: 32 hex digits of a SHA-256.

        Over everything that changes tokens, as one JSON array; id, segments and metadata have no
        part in it.
        """
        texts: list[Any] = [self.question, self.reasoning, self.answer, self.response]
        texts += [self.tools, self.chat_template_kwargs, self.untrained, self.marks]
        as_json = json.dumps(texts, default=dict, sort_keys=True)
        return hashlib.sha256(as_json.encode()).hexdigest()[:32]

    def _check_texts(self) -> None:
        chat = isinstance(self.question, (list, tuple)) and all(map(_is_message, self.question))
        if not isinstance(self.question, str) and not chat:
            raise ValueError(
                "question must be a string or chat messages with role and content, got "
                f"{self.question!r:.80}. Convert it."
            )
        for name in ("reasoning", "answer", "response"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name == "response" and value is None):
                raise ValueError(
                    f"{name} must be text, got {type(value).__name__}. Convert it to a string."
                )
        for name in ("question", "reasoning", "answer"):
            value = getattr(self, name)
            if not (value.strip() if isinstance(value, str) else value):
                raise ValueError(
                    f"{name} must not be empty, got {value!r}. Drop this trace, or fill it in."
                )
        for text in texts_in([self.question, self.reasoning, self.answer, self.response]):
            _require_unicode(text)

    @classmethod
    def from_record(
        cls,
        record: Mapping[str, Any],
        fields: Mapping[str, str | None] | None = None,
        *,
        layout: str = "auto",
        marks: tuple[str, str] | None = None,
    ) -> Trace:
        r"""Read a trace from a JSON object.

        A field is read from the columns of `segattr.fields.FIELDS`, from chat messages whose last
        turn is the assistant's, or as a layout says. A whole turn is cut where its thinking ends.
        An answer loses the white space, one ``\boxed{}`` and one pair of dollars around it. Two
        places that differ are refused, and so is what cannot be read surely. Keys that are not read
        go to ``metadata``.

        Args:
            record: One JSON object.
            fields: Your own column for a field, such as ``{"reasoning": "cot"}``, dotted or indexed
                (``"generations[0]"``); for the answer also ``"solution:\boxed"``, the last box in
                a column, ``"\boxed"``, that of the trace, and ``"answer:####"``. None: the record
                has none. The other fields are looked for as without it.
            layout: A data set's name from `segattr.fields.LAYOUTS`; ``"plain"`` recognises none,
                ``"auto"`` those whose columns are unmistakable.
            marks: What opens and closes the thinking, where `segattr.fields.MARKS` lacks it.

        Raises:
            ValueError: If a field is missing, empty or not text, two places differ, ``fields``
                names an unknown field, or the metadata have a number that is not finite.
        """
        return cls(**trace_fields(record, fields, layout=layout, marks=marks).values)

    def __repr__(self) -> str:
        """Show how the texts begin, in a few hundred characters, without metadata."""
        chat = None if isinstance(self.question, str) else self.question
        texts = {
            "id": self.id,
            "question": chat[-1].get("content") if chat else self.question,
            "reasoning": self.reasoning,
            "answer": self.answer,
            "response": self.response,
        }
        shown = [f"{name}={beginning(text)}" for name, text in texts.items() if text is not None]
        counts = {"messages": chat, "segments": self.segments}
        shown += [f"{name}={len(parts):,}" for name, parts in counts.items() if parts is not None]
        return f"Trace({', '.join(shown)})"


def _segment_texts(segments: Any, reasoning: str) -> list[str]:
    """Return own segments as texts, whether they are given as texts or as spans."""
    given: Any = segments if isinstance(segments, (list, tuple)) else [None]
    if all(isinstance(segment, str) for segment in given):
        _require_joining(given, reasoning)
        return list(given)
    if not all(isinstance(segment, (list, tuple)) for segment in given):
        raise ValueError(f"segments must be a list of strings or spans, got {segments!r:.80}.")
    spans = [_span("segments", span) for span in given]
    require_contiguous("segments", spans, 0, "character ranges")
    if spans[-1][1] != len(reasoning):
        raise ValueError(
            f"segments must cover the reasoning's {len(reasoning)} characters, got spans that stop "
            f"at {spans[-1][1]}. Give the rest a segment too."
        )
    return [reasoning[start:stop] for start, stop in spans]


def _require_joining(segments: Sequence[str], reasoning: str) -> None:
    joined = "".join(segments)
    if joined != reasoning:
        at = 0
        while joined[at : at + 1] == reasoning[at : at + 1]:
            at += 1
        raise ValueError(
            f"segments must join to the reasoning, got a difference at character {at}: "
            f"{joined[at : at + 20]!r} instead of {reasoning[at : at + 20]!r}. "
            "Cut the reasoning without changing it, blank lines included."
        )


def _span(name: str, span: Any) -> Span:
    """Return a span of whole numbers; JSON has it as a list."""
    pair = list(span) if isinstance(span, (list, tuple)) else []
    if len(pair) != 2 or not all(type(number) is int for number in pair):
        raise ValueError(f"{name} must be spans (start, stop), got {span!r:.80}.")
    return (pair[0], pair[1])


def require_contiguous(name: str, spans: Sequence[Span], at: int, what: str) -> None:
    """Raise unless the first span starts at ``at``, and each other one where the last stopped."""
    for index, (start, stop) in enumerate(spans):
        if start != at or stop < start:
            raise ValueError(
                f"{name} must be contiguous, got {(start, stop)} for segment {index} where {at} "
                f"should start. Spans are half-open {what} (start, stop)."
            )
        at = stop


def require_inside(name: str, spans: Sequence[Span], whole: Span) -> None:
    """Raise unless the spans stay inside another one, in order, none of them empty."""
    at = whole[0]
    for start, stop in spans:
        if not at <= start < stop <= whole[1]:
            raise ValueError(
                f"{name} must be spans inside {whole}, in order, got {(start, stop)} after {at}. "
                "They are half-open (start, stop)."
            )
        at = stop


def _require_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text must be valid Unicode, got a lone surrogate {text[error.start]!r} at character "
            f"{error.start}. Repair it where the file was written."
        ) from None


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, Mapping)
        and isinstance(message.get("role"), str)
        and isinstance(message.get("content"), (str, list, tuple, type(None)))
    )


def beginning(text: Any, most: int = 48) -> str:
    """Return a text as Python writes it, or the beginning of a long one and its length."""
    if not isinstance(text, str) or len(text) <= most:
        return f"{text!r:.80}"
    return f"{text[:most]!r}... ({len(text):,} characters)"
