"""A reasoning trace as text (Trace) and as token ids with half-open spans (EncodedTrace).

    [ prompt | segment_1 ... segment_S | stub | answer | closing ]      T tokens, answer = the
    target
                                         ^ attributed text ends         response_ids: what follows
                                         it in training

Axes: ``T`` tokens, ``S`` segments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

FIELDS: dict[str, tuple[str, ...]] = {
    "question": ("question", "problem", "prompt", "instruction"),
    "reasoning": ("reasoning", "solution", "reasoning_content", "thinking"),
    "answer": ("answer", "final_answer", "expected_answer"),
    "response": ("response",),
    "id": ("id", "uuid"),
    "segments": ("segments",),
}
Span = tuple[int, int]


class TraceTooLongError(ValueError):
    """A trace has more tokens than the model, or the user, allows."""


@dataclass(frozen=True)
class Trace:
    """A question, the reasoning about it, and the correct final answer.

    Args:
        question: A string, or chat messages (dicts with ``role`` and ``content``) that end before
            the reasoning.
        reasoning: The text between the generation prompt and ``</think>``, verbatim.
        answer: The correct final answer, as it would stand inside ``\\boxed{}``.
        response: What follows ``</think>`` in the training text. ``None``: the reasoning is the
            whole turn, and no ``</think>`` is trained.
        id: A name to find the trace by.
        segments: Strings that join to ``reasoning``; ``None`` lets `encode` cut at keywords.
        metadata: Anything else; kept, never read.

    Raises:
        ValueError: If question, reasoning or answer is empty or no text, or the segments do not
            join to the reasoning.
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

        The first key of `FIELDS` that the record has is taken, so LIMO's ``question, solution,
        answer`` work as they are. Chat data may have ``messages`` (or ``conversations`` with
        ``from``/``value``) instead of question or reasoning: the last assistant turn is cut at
        ``</think>``, or has ``reasoning_content``. A numeric answer becomes its text. What is
        not used goes to ``metadata``.

        Args:
            record: One JSON object.
            fields: Your own name for a field, such as ``{"reasoning": "cot"}``; the others keep
                their defaults.

        Raises:
            ValueError: If a field is missing, empty or not text.
        """
        names = fields or {}
        own = {name for name in FIELDS if _find(record, names.get(name), name) is not None}
        if not {"question", "reasoning"} <= own:
            chat = _from_chat(record)
            record = {**record, **{n: chat[n] for n in chat if n not in own and n not in names}}
        found = {name: _find(record, names.get(name), name) for name in FIELDS}
        values = {name: record[key] for name, key in found.items() if key is not None}
        for name in ("question", "reasoning", "answer"):
            if values.get(name) is None:
                tried = names.get(name) or ", ".join(FIELDS[name])
                raise ValueError(
                    f"{name} must be given, got a record with the fields "
                    f"{', '.join(map(str, record)) or 'none'}. "
                    f"Looked for: {tried}. Name your own with fields={{{name!r}: ...}}."
                )
        number = values["answer"]
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"answer must be text or a number, got {number}. Mend the record.")
            values["answer"] = str(number)
        if values.get("id") is not None:
            values["id"] = str(values["id"])
        used = set(found.values()) | {"messages", "conversations"}
        return cls(
            **values, metadata={key: value for key, value in record.items() if key not in used}
        )


@dataclass(frozen=True)
class EncodedTrace:
    """Token ids with half-open token spans ``(start, stop)``, absolute in the sequence.

    May be built by hand; then no tokenizer is needed anywhere after it.

    Args:
        input_ids: int64 ``[T]``: prompt, reasoning, stub, answer, closing.
        prompt: Tokens before the reasoning; starts at 0.
        segments: ``S`` spans, contiguous, covering the reasoning; a span may be empty.
        target: Exactly the answer's tokens.
        response_ids: int64 ``[R]``, the tokens that follow the reasoning in the training text
            (``</think>``, response, end of turn). Empty when built by hand.
        id: The trace's id.

    Raises:
        ValueError: If a span leaves the sequence, the segments are not contiguous, or the target is
            empty.
    """

    input_ids: Tensor
    prompt: Span
    segments: Sequence[Span]
    target: Span
    response_ids: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    id: str | None = None

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
        object.__setattr__(self, "segments", [tuple(span) for span in self.segments])
        self._check_spans()

    def _check_spans(self) -> None:
        at = self.prompt[1]
        if self.prompt[0] != 0 or not self.segments:
            raise ValueError(
                f"prompt must start at 0 and segments must not be empty, got prompt={self.prompt} "
                "and "
                f"{len(self.segments)} segments. A reasoning without cuts is one segment."
            )
        for index, (start, stop) in enumerate(self.segments):
            if start != at or stop < start:
                raise ValueError(
                    f"segments must be contiguous from the end of the prompt, got {(start, stop)} "
                    f"for segment {index} "
                    f"where {at} should start. Spans are half-open token ranges (start, stop)."
                )
            at = stop
        start, stop = self.target
        if not max(at, 1) <= start < stop <= len(self.input_ids):
            raise ValueError(
                f"target must hold at least one token between the reasoning's end {at} and "
                f"T={len(self.input_ids)}, "
                f"got {self.target}. Something must stand before it to predict it."
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


def _find(record: Mapping[str, Any], given: str | None, name: str) -> str | None:
    keys = (given,) if given else FIELDS[name]
    return next((key for key in keys if record.get(key) is not None), None)


def _from_chat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Question, reasoning and response of chat data; nothing for other records."""
    turns = record.get("messages") or record.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return {}
    roles = {"human": "user", "gpt": "assistant"}
    messages = []
    for turn in turns:
        role = turn.get("role", turn.get("from"))
        if not isinstance(role, str):
            raise ValueError(f"a message's role must be text, got {role!r:.80}. Mend the record.")
        content = turn.get("content", turn.get("value"))
        messages.append({**turn, "role": roles.get(role, role), "content": content})
    if not messages or messages[-1]["role"] != "assistant":
        return {}
    question = [{"role": m["role"], "content": m["content"]} for m in messages[:-1]]
    last = messages[-1]
    if last.get("reasoning_content"):
        found = {"reasoning": last["reasoning_content"], "response": last["content"]}
    elif isinstance(last["content"], str):
        reasoning, closed, response = last["content"].partition("</think>")
        reasoning = re.sub(r"^\s*<think>\n?", "", reasoning)
        found = {"reasoning": reasoning, "response": response if closed else None}
    else:
        raise ValueError(
            f"the assistant's content must be a string, got {type(last['content']).__name__}. "
            "Join its parts to one text."
        )
    return {"question": question, **{k: v for k, v in found.items() if v is not None}}
