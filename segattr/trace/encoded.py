"""A reasoning trace as token ids with half-open spans.

    attributed:   [ prompt | segment_1 ... segment_S | stub | answer | brace ]    T tokens
    trained:      [ prompt | segment_1 ... segment_S | response_ids | trailing_ids ]

The target is the answer. Axes: ``T`` tokens, ``S`` segments, ``N`` tokens of the reasoning, ``R``
of the response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from segattr.trace.trace import Span, beginning, require_contiguous, require_inside


class TraceTooLongError(ValueError):
    """A trace has more tokens than the model, or the user, allows."""


def _no_ids() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class EncodedTrace:
    """Token ids with half-open token spans ``(start, stop)``, absolute in the sequence.

    May be built by hand; then no tokenizer is needed anywhere after it. Two of them are equal only
    if they are the same object.

    Args:
        input_ids: int64 ``[T]``: prompt, reasoning, stub, answer, closing brace.
        prompt: Tokens before the reasoning; starts at 0.
        segments: ``S`` spans, contiguous, covering the reasoning; a span may be empty.
        target: Exactly the answer's tokens.
        response_ids: int64 ``[R]``, the tokens that follow the reasoning in the training text (the
            closing mark, response, end of turn). Empty when built by hand.
        id: The trace's id.
        characters: Half-open character spans ``(start, stop)`` of the ``S`` segments in the trace's
            reasoning, contiguous from 0. ``None`` when built by hand.
        opening_tokens: How many of the prompt's last tokens the model itself must write, such as
            ``<think>``: they carry loss.
        untrained: Token spans of the reasoning that never carry loss, such as results of tools;
            in order.
        trailing_ids: int64, what the chat template writes after the end of the turn; part of the
            training text, without loss.
        control_tokens: Special tokens that the texts spell out, and that became control tokens.
        token_characters: Half-open character spans, in the trace's reasoning, of the ``N`` tokens
            of the segments; the bytes of one character share it. ``None`` when built by hand, and
            in records.

    Raises:
        ValueError: If a span leaves the sequence, the segments are not contiguous, the target is
            empty, or ``characters`` are not those of ``S`` contiguous segments.
    """

    input_ids: Tensor
    prompt: Span
    segments: Sequence[Span]
    target: Span
    response_ids: Tensor = field(default_factory=_no_ids)
    id: str | None = None
    characters: Sequence[Span] | None = None
    opening_tokens: int = 0
    untrained: Sequence[Span] = ()
    trailing_ids: Tensor = field(default_factory=_no_ids)
    control_tokens: Sequence[str] = ()
    token_characters: Sequence[Span] | None = None

    def __post_init__(self) -> None:
        for name in ("input_ids", "response_ids", "trailing_ids"):
            ids = torch.as_tensor(getattr(self, name), dtype=torch.int64).cpu()
            if ids.ndim != 1:
                raise ValueError(
                    f"{name} must be one sequence [T], got shape {list(ids.shape)}. Pass one trace."
                )
            object.__setattr__(self, name, ids)
        for name in ("prompt", "target"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "control_tokens", tuple(self.control_tokens))
        for name in ("segments", "characters", "untrained", "token_characters"):
            if (spans := getattr(self, name)) is not None:
                object.__setattr__(self, name, [tuple(span) for span in spans])
        self._check_spans()
        self._check_characters()
        count = self.reasoning[1] - self.reasoning[0]
        if self.token_characters is not None and len(self.token_characters) != count:
            raise ValueError(
                f"token_characters must be the spans of all {count} tokens of the reasoning, got "
                f"{len(self.token_characters)}. Leave them out if you do not know them."
            )

    def _check_spans(self) -> None:
        if self.prompt[0] != 0 or not self.segments:
            raise ValueError(
                f"prompt must start at 0 and segments must not be empty, got prompt={self.prompt} "
                f"and {len(self.segments)} segments. A reasoning without cuts is one segment."
            )
        require_contiguous("segments", self.segments, self.prompt[1], "token ranges")
        require_inside("untrained", self.untrained, self.reasoning)
        if not 0 <= self.opening_tokens <= self.prompt[1]:
            raise ValueError(
                f"opening_tokens must be some of the prompt's {self.prompt[1]}, got "
                f"{self.opening_tokens}."
            )
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
        require_contiguous("characters", self.characters, 0, "character ranges")

    def __repr__(self) -> str:
        """Name the trace and the sizes of its parts, without its tokens."""
        name = "" if self.id is None else f"id={beginning(self.id)}, "
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
