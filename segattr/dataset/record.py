"""One scored trace: everything about it, in the fields that stand in a scored file.

The dataclasses below are the schema: what is read is checked against their types. What can be
derived (labels, masks, tensors) is made when asked for and never stored.
Axes: ``T`` tokens of the attributed sequence, ``S`` segments.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch import Tensor

from segattr.attribution import DOUBTS, Attribution
from segattr.dataset.segment import Amount, Count, ScoredSegment, Share, Span
from segattr.scores import SegmentScorer, SegmentScores, SegmentSums
from segattr.trace import EncodedTrace, Trace
from segattr.training.rows import Row, training_row

if TYPE_CHECKING:
    from segattr.dataset.student import Student

SCHEMA = 3


class SchemaError(ValueError):
    """A record of another version of segattr, or of another program."""


@dataclass(frozen=True, repr=False)
class ScoredTrace:
    """One trace with its attribution, its segments and what made them.

    Args:
        schema: Version of these fields.
        id: Name of the trace; see `id_of`.
        digest: What tells the texts from others: `Trace.digest`.
        question: As in `Trace`; so are the next three.
        reasoning: Verbatim.
        answer: Verbatim.
        response: Verbatim.
        tools: As in `Trace`; so are the next three.
        chat_template_kwargs: Switches of the chat template.
        untrained: Character spans of the reasoning that never carry loss.
        marks: What opens and closes the thinking in the trace's own text.
        segments: ``S`` segments, in order.
        prompt: Tokens before the reasoning, a span.
        target: The answer's tokens, a span.
        input_ids: The attributed sequence: prompt, reasoning, stub, answer, closing; ``[T]``.
        response_ids: The tokens that follow the reasoning in the training text.
        opening_tokens: As in `EncodedTrace`; so are the next three.
        untrained_tokens: Token spans of the reasoning that never carry loss.
        trailing_ids: What the chat template writes after the end of the turn.
        control_tokens: Special tokens that the texts spell out.
        token_scores: Signed attribution of each token, ``[T]``; None where it was not kept.
        target_logprob: F(x), in nats.
        baseline_logprob: F(x'), in nats; None for methods without a baseline.
        completeness_gap: See `Attribution`; None for methods without a baseline.
        evaluations: Gradient evaluations that were spent.
        converged: As in `Attribution`.
        agreement: As in `SegmentScores`; None if the method estimates no error.
        flags: What speaks against its scores, of `segattr.dataset.flags.FLAGS`.
        method: Name of the attribution method.
        ran: What really ran: `Attribution.settings`.
        scorer: What chose the kept segments.
        asked: What the user asked for, such as the options of the command.
        metadata: The trace's own.

    Raises:
        ValueError: If the fields contradict each other.
        SchemaError: If ``schema`` is another one.
    """

    schema: int
    id: str
    digest: str
    question: str | list[dict[str, Any]]
    reasoning: str
    answer: str
    response: str | None
    tools: list[dict[str, Any]] | None
    chat_template_kwargs: dict[str, Any]
    untrained: list[Span]
    marks: tuple[str, str] | None
    segments: list[ScoredSegment]
    prompt: Span
    target: Span
    input_ids: list[Count]
    response_ids: list[Count]
    opening_tokens: Count
    untrained_tokens: list[Span]
    trailing_ids: list[Count]
    control_tokens: list[str]
    token_scores: list[float] | None
    target_logprob: float
    baseline_logprob: float | None
    completeness_gap: Amount | None
    evaluations: Count
    converged: bool | None
    agreement: Share | None
    flags: list[str]
    method: str
    ran: dict[str, Any]
    scorer: SegmentScorer
    asked: dict[str, Any]
    metadata: dict[str, Any]

    def __post_init__(self) -> None:
        _require_schema(self.schema)
        if self.digest != self.trace.digest:
            raise ValueError(
                f"digest must be that of the texts, got {self.digest!r}. The "
                "texts were changed after scoring: score the trace again."
            )
        if self.token_scores is not None and len(self.token_scores) != len(self.input_ids):
            raise ValueError(
                f"token_scores must be one of each of the {len(self.input_ids)} input_ids, got "
                f"{len(self.token_scores)}."
            )
        if (stop := self.segments[-1].characters[1] if self.segments else 0) > len(self.reasoning):
            raise ValueError(
                f"characters must stay inside the reasoning's {len(self.reasoning)}, got {stop}."
            )
        for name, number in self._numbers():
            if not math.isfinite(number):
                raise ValueError(f"{name} must be finite, got {number}.")
        _ = self.encoded  # checks the spans

    def _numbers(self) -> list[tuple[str, float]]:
        segments = [
            (f"segments[{index}].{name}", value)
            for index, segment in enumerate(self.segments)
            for name, value in vars(segment).items()
            if isinstance(value, float)
        ]
        own = [(name, value) for name, value in vars(self).items() if isinstance(value, float)]
        return [*own, *segments, *(("token_scores", score) for score in self.token_scores or ())]

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ScoredTrace:
        """Read a JSON object that `to_record` made, and check it.

        Raises:
            SchemaError: If it is of another schema.
            ValueError: If a field is missing, of another type or contradicts another; names it.
        """
        _require_schema(record.get("schema"))
        try:
            return msgspec.convert(dict(record), cls)
        except msgspec.ValidationError as error:
            raise ValueError(f"the scored trace must be whole, got {error}.") from None

    def to_record(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return dataclasses.asdict(self)

    @cached_property
    def trace(self) -> Trace:
        """The texts."""
        return Trace(
            question=self.question,
            reasoning=self.reasoning,
            answer=self.answer,
            response=self.response,
            id=self.id,
            metadata=self.metadata,
            tools=self.tools,
            chat_template_kwargs=self.chat_template_kwargs,
            untrained=self.untrained,
            marks=self.marks,
        )

    @cached_property
    def encoded(self) -> EncodedTrace:
        """The tokens and their spans."""
        return EncodedTrace(
            input_ids=torch.tensor(self.input_ids, dtype=torch.int64),
            prompt=self.prompt,
            segments=[segment.tokens for segment in self.segments],
            target=self.target,
            response_ids=torch.tensor(self.response_ids, dtype=torch.int64),
            id=self.id,
            characters=[segment.characters for segment in self.segments],
            opening_tokens=self.opening_tokens,
            untrained=self.untrained_tokens,
            trailing_ids=torch.tensor(self.trailing_ids, dtype=torch.int64),
            control_tokens=self.control_tokens,
        )

    @property
    def scores(self) -> SegmentScores:
        """The segments' scores as recorded, without their errors."""
        return SegmentScores(
            strength=self._column("strength"),
            consistency=self._column("consistency"),
            effective_tokens=self._column("effective_tokens"),
            important=self._column("important", torch.bool),
            kept=self._column("kept", torch.bool),
        )

    @property
    def sums(self) -> SegmentSums:
        """What `SegmentScorer.select` chooses anew from, without token scores."""
        lengths = [stop - start for start, stop in self.encoded.segments]
        return SegmentSums(
            signed=self._column("signed"),
            absolute=self._column("absolute"),
            squares=self._column("squares"),
            lengths=torch.tensor(lengths),
        )

    @property
    def attribution(self) -> Attribution:
        """The attribution, without its estimated errors.

        Raises:
            ValueError: If the token scores were not kept.
        """
        if self.token_scores is None:
            raise ValueError(
                f"trace {self.id!r} must have token_scores, got a record without. Score it again."
            )
        return Attribution(
            token_scores=torch.tensor(self.token_scores),
            encoded=self.encoded,
            target_logprob=self.target_logprob,
            baseline_logprob=self.baseline_logprob,
            evaluations=self.evaluations,
            converged=self.converged,
            method=self.method,
            settings=self.ran,
        )

    @property
    def trustworthy(self) -> bool | None:
        """As `Attribution.trustworthy`, by its flags."""
        if self.completeness_gap is None and self.converged is None:
            return None
        return not DOUBTS.keys() & set(self.flags)

    @property
    def texts(self) -> list[str]:
        """The segments' texts, ``S``."""
        return [self.reasoning[slice(*segment.characters)] for segment in self.segments]

    @property
    def reasoning_tokens(self) -> tuple[int, int]:
        """Tokens in kept segments, and in all segments."""
        lengths = [stop - start for start, stop in self.encoded.segments]
        kept = [n for n, s in zip(lengths, self.segments, strict=True) if s.kept]
        return sum(kept), sum(lengths)

    def row(self, student: Student | None = None, **options: Any) -> Row:
        """Return the training row of the kept segments, in a student's tokens if there is one.

        Args:
            student: The model to train; ``None``: the one that the trace was scored with.
            options: As in `training_row`.
        """
        encoded = self.encoded if student is None else student.read(self).encoded
        return training_row(encoded, self.scores, **options)

    def __repr__(self) -> str:
        kept, tokens = self.reasoning_tokens
        return (
            f"ScoredTrace({self.id!r}, {self.method}, {len(self.segments)} segments, {kept} of "
            f"{tokens} reasoning tokens kept)"
        )

    def _column(self, name: str, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.tensor([getattr(segment, name) for segment in self.segments], dtype=dtype)


def id_of(trace: Trace) -> str:
    """Return the name that a trace is recorded under: its id, or its digest if it has none."""
    return trace.digest if trace.id is None else trace.id


def plain_question(question: Any) -> str | list[dict[str, Any]]:
    """Return a question as JSON has it."""
    return question if isinstance(question, str) else [dict(message) for message in question]


def _require_schema(found: Any) -> None:
    if found != SCHEMA:
        raise SchemaError(
            f"a scored trace must be of schema {SCHEMA}, got {found!r}: another version of segattr "
            "wrote it. Score the traces again with this one."
        )
