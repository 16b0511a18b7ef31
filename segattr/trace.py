"""A reasoning trace as text (Trace) and as token ids with half-open spans (EncodedTrace).

    attributed:   [ prompt | segment_1 ... segment_S | stub | answer | closing ]     T tokens
    trained:      [ prompt | segment_1 ... segment_S | response_ids ]

The target is the answer. Axes: ``T`` tokens, ``S`` segments, ``R`` tokens of the response.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from segattr.fields import trace_fields

Span = tuple[int, int]


class TraceTooLongError(ValueError):
    """A trace has more tokens than the model, or the user, allows."""


@dataclass(frozen=True)
class Trace:
    """A question, the reasoning about it, and the correct final answer.

    Args:
        question: A string, or chat messages (dicts with ``role`` and ``content``) that stop before
            the reasoning.
        reasoning: The text between the generation prompt and ``</think>``, verbatim.
        answer: The correct final answer, as it would stand inside ``\\boxed{}``.
        response: What follows ``</think>`` in the training text. ``None``: the reasoning is the
            whole turn, and no ``</think>`` is trained.
        id: A name to find the trace by.
        segments: Strings that join to ``reasoning``; ``None`` lets `encode` cut at keywords.
        metadata: Anything else; kept, never read.

    Raises:
        ValueError: If question, reasoning or answer is empty or not text, or the segments do
            not join to the reasoning.
    """

    question: str | Sequence[Mapping[str, str]]
    reasoning: str
    answer: str
    response: str | None = None
    id: str | None = None
    segments: Sequence[str] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_texts()
        self._check_segments()

    @property
    def digest(self) -> str:
        """What tells its texts from others: 32 hex digits of a SHA-256.

        Over question, reasoning and answer as one JSON array; the id has no part in it.
        """
        question = self.question
        if not isinstance(question, str):
            question = [dict(message) for message in question]
        texts = json.dumps([question, self.reasoning, self.answer])
        return hashlib.sha256(texts.encode()).hexdigest()[:32]

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
        contents = [self.question] if isinstance(self.question, str) else []
        contents += [m["content"] for m in self.question if isinstance(m, Mapping)]
        for text in (*contents, self.reasoning, self.answer, self.response or ""):
            _require_unicode(text)

    def _check_segments(self) -> None:
        if self.segments is None:
            return
        strings = isinstance(self.segments, Sequence) and not isinstance(self.segments, str)
        if not strings or not all(isinstance(segment, str) for segment in self.segments):
            raise ValueError(f"segments must be a list of strings, got {self.segments!r:.80}.")
        joined = "".join(self.segments)
        if joined != self.reasoning:
            at = 0
            while joined[at : at + 1] == self.reasoning[at : at + 1]:
                at += 1
            raise ValueError(
                f"segments must join to the reasoning, got a difference at character {at}: "
                f"{joined[at : at + 20]!r} instead of {self.reasoning[at : at + 20]!r}. "
                "Cut the reasoning without changing it, blank lines included."
            )

    @classmethod
    def from_record(
        cls, record: Mapping[str, Any], fields: Mapping[str, str] | None = None
    ) -> Trace:
        """Read a trace from a JSON object.

        Each field is read from the first key of `segattr.fields.FIELDS` that the record has, so
        LIMO's ``question, solution, answer`` work as they are. Chat data may have ``messages`` (or
        ``conversations`` with ``from`` and ``value``) instead of question or reasoning: the last
        turn is the assistant's, and is cut at ``</think>`` or has ``reasoning_content``. A numeric
        answer becomes its text. Keys that are not read go to ``metadata``.

        Args:
            record: One JSON object.
            fields: Your own key for a field, such as ``{"reasoning": "cot"}``; the other fields are
                looked for as without it.

        Raises:
            ValueError: If a field is missing, empty or not text, ``fields`` names an unknown field,
                or the metadata have a number that is not finite.
        """
        return cls(**trace_fields(record, fields))

    def __repr__(self) -> str:
        """Show how the texts begin, in a few hundred characters, without metadata."""
        chat = None if isinstance(self.question, str) else self.question
        texts = {
            "id": self.id,
            "question": chat[-1]["content"] if chat else self.question,
            "reasoning": self.reasoning,
            "answer": self.answer,
            "response": self.response,
        }
        shown = [f"{name}={_beginning(text)}" for name, text in texts.items() if text is not None]
        counts = {"messages": chat, "segments": self.segments}
        shown += [f"{name}={len(parts):,}" for name, parts in counts.items() if parts is not None]
        return f"Trace({', '.join(shown)})"


@dataclass(frozen=True, eq=False)
class EncodedTrace:
    """Token ids with half-open token spans ``(start, stop)``, absolute in the sequence.

    May be built by hand; then no tokenizer is needed anywhere after it. Two of them are equal only
    if they are the same object.

    Args:
        input_ids: int64 ``[T]``: prompt, reasoning, stub, answer, closing.
        prompt: Tokens before the reasoning; starts at 0.
        segments: ``S`` spans, contiguous, covering the reasoning; a span may be empty.
        target: Exactly the answer's tokens.
        response_ids: int64 ``[R]``, the tokens that follow the reasoning in the training text
            (``</think>``, response, end of turn). Empty when built by hand.
        id: The trace's id.
        characters: Half-open character spans ``(start, stop)`` of the ``S`` segments in the trace's
            reasoning, contiguous from 0. ``None`` when built by hand.

    Raises:
        ValueError: If a span leaves the sequence, the segments are not contiguous, the target is
            empty, or ``characters`` are not those of ``S`` contiguous segments.
    """

    input_ids: Tensor
    prompt: Span
    segments: Sequence[Span]
    target: Span
    response_ids: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    id: str | None = None
    characters: Sequence[Span] | None = None

    def __post_init__(self) -> None:
        for name in ("input_ids", "response_ids"):
            ids = torch.as_tensor(getattr(self, name), dtype=torch.int64).cpu()
            if ids.ndim != 1:
                raise ValueError(
                    f"{name} must be one sequence [T], got shape {list(ids.shape)}. Pass one trace."
                )
            object.__setattr__(self, name, ids)
        for name in ("prompt", "target"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("segments", "characters"):
            if (spans := getattr(self, name)) is not None:
                object.__setattr__(self, name, [tuple(span) for span in spans])
        self._check_spans()
        self._check_characters()

    def _check_spans(self) -> None:
        if self.prompt[0] != 0 or not self.segments:
            raise ValueError(
                f"prompt must start at 0 and segments must not be empty, got prompt={self.prompt} "
                f"and {len(self.segments)} segments. A reasoning without cuts is one segment."
            )
        _require_contiguous("segments", self.segments, self.prompt[1], "token ranges")
        (start, stop), last = self.target, self.reasoning[1]
        if not max(last, 1) <= start < stop <= len(self.input_ids):
            raise ValueError(
                f"target must hold at least one token between the reasoning's stop {last} and "
                f"T={len(self.input_ids)}, got {self.target}. Something must stand before it to "
                "predict it."
            )

    def _check_characters(self) -> None:
        if self.characters is None:
            return
        if len(self.characters) != len(self.segments):
            raise ValueError(
                f"characters must be the spans of all {len(self.segments)} segments, got "
                f"{len(self.characters)}. Leave them out if you do not know them."
            )
        _require_contiguous("characters", self.characters, 0, "character ranges")

    def __repr__(self) -> str:
        """Name the trace and the sizes of its parts, without its tokens."""
        name = "" if self.id is None else f"id={_beginning(self.id)}, "
        return (
            f"EncodedTrace({name}T={len(self.input_ids)}, prompt={self.prompt}, "
            f"S={len(self.segments)}, reasoning={self.reasoning}, target={self.target}, "
            f"R={len(self.response_ids)})"
        )

    @property
    def reasoning(self) -> Span:
        """Token span of all segments together."""
        return (self.prompt[1], self.segments[-1][1])


def check_length(encoded: EncodedTrace, limit: int | None, what: str) -> None:
    """Raise `TraceTooLongError` if the attributed sequence has more than ``limit`` tokens."""
    length = len(encoded.input_ids)
    if limit is not None and length > limit:
        name = "trace" if encoded.id is None else f"trace {encoded.id!r}"
        raise TraceTooLongError(
            f"{name} must fit {what} = {limit} tokens, got {length}, {length - limit} too many. "
            "Skip it (nothing is cut off silently), or use a model with a longer context."
        )


def _require_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text must be valid Unicode, got a lone surrogate {text[error.start]!r} at character "
            f"{error.start}. Repair it where the file was written."
        ) from None


def _is_message(message: Any) -> bool:
    return isinstance(message, Mapping) and all(
        isinstance(message.get(key), str) for key in ("role", "content")
    )


def _require_contiguous(name: str, spans: Sequence[Span], at: int, what: str) -> None:
    """Raise unless the first span starts at ``at``, and each other one where the last stopped."""
    for index, (start, stop) in enumerate(spans):
        if start != at or stop < start:
            raise ValueError(
                f"{name} must be contiguous, got {(start, stop)} for segment {index} where {at} "
                f"should start. Spans are half-open {what} (start, stop)."
            )
        at = stop


def _beginning(text: Any, most: int = 48) -> str:
    """Return a text as Python writes it, or the beginning of a long one and its length."""
    if not isinstance(text, str) or len(text) <= most:
        return f"{text!r:.80}"
    return f"{text[:most]!r}... ({len(text):,} characters)"
