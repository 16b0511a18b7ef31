"""Score a data set in this process: traces in, one outcome each, results on disk as they come."""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from segattr.attribution import Attribution, Method
from segattr.dataset.flags import Requirements, UnfitTraceError
from segattr.dataset.json_text import BadLine
from segattr.dataset.jsonl import ScoredWriter
from segattr.dataset.record import SCHEMA, ScoredTrace, id_of, plain_question
from segattr.dataset.segment import ScoredSegment
from segattr.dataset.sources import Place
from segattr.scores import SegmentScorer, SegmentScores, segment_sums
from segattr.trace import EncodedTrace, Trace, TraceTooLongError

NONE = Requirements()


class Kind(enum.Enum):
    """What can become of a trace."""

    SCORED = "scored"
    DONE = "done before"
    DUPLICATE = "duplicate"
    TOO_LONG = "too long"
    LEFT_OUT = "left out"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of one trace of the input: a scored trace, or why there is none.

    ``place`` is where it stands, as it came with the trace; ``flags`` is why it was left out.
    """

    place: Any
    kind: Kind
    scored: ScoredTrace | None = None
    error: str | None = None
    flags: Sequence[str] = ()
    seconds: float = 0.0


def score_trace(
    trace: Trace,
    encoded: EncodedTrace,
    method: Method,
    scorer: SegmentScorer,
    asked: Mapping[str, Any] | None = None,
    requirements: Requirements = NONE,
) -> ScoredTrace:
    """Attribute and score one trace.

    Args:
        trace: The texts.
        encoded: The tokens, from `segattr.encode`.
        method: Any attribution method.
        scorer: What chooses the segments to keep.
        asked: What the user asked for; recorded as it is.
        requirements: What the trace must have.

    Raises:
        UnfitTraceError: If it lacks something that is required.
        ValueError: If the trace cannot be attributed or scored.
    """
    requirements.check_tokens(encoded)
    scored = scored_trace(trace, method.attribute(encoded), scorer, asked, requirements)
    requirements.check(scored.flags)
    return scored


def scored_trace(
    trace: Trace,
    attribution: Attribution,
    scorer: SegmentScorer,
    asked: Mapping[str, Any] | None = None,
    requirements: Requirements = NONE,
) -> ScoredTrace:
    """Score an attribution, and put together all that is known about its trace."""
    scores = scorer.score(attribution)
    return ScoredTrace(
        schema=SCHEMA,
        id=id_of(trace),
        digest=trace.digest,
        **_texts(trace),
        segments=_segments(attribution, scores),
        **_tokens(attribution.encoded),
        # 9 digits give every float32 back.
        token_scores=[float(f"{score:.9g}") for score in attribution.token_scores.tolist()],
        target_logprob=attribution.target_logprob,
        baseline_logprob=attribution.baseline_logprob,
        completeness_gap=attribution.completeness_gap,
        evaluations=attribution.evaluations,
        converged=attribution.converged,
        agreement=scores.agreement,
        flags=requirements.flags(attribution),
        method=attribution.method,
        ran=dict(attribution.settings),
        scorer=scorer.for_method(attribution.method),
        asked=dict(asked or {}),
        metadata=dict(trace.metadata),
    )


def _texts(trace: Trace) -> dict[str, Any]:
    return {
        "question": plain_question(trace.question),
        "reasoning": trace.reasoning,
        "answer": trace.answer,
        "response": trace.response,
        "tools": None if trace.tools is None else [dict(tool) for tool in trace.tools],
        "chat_template_kwargs": dict(trace.chat_template_kwargs),
        "untrained": list(trace.untrained),
        "marks": trace.marks,
    }


def _tokens(encoded: EncodedTrace) -> dict[str, Any]:
    return {
        "prompt": encoded.prompt,
        "target": encoded.target,
        "input_ids": encoded.input_ids.tolist(),
        "response_ids": encoded.response_ids.tolist(),
        "opening_tokens": encoded.opening_tokens,
        "untrained_tokens": list(encoded.untrained),
        "trailing_ids": encoded.trailing_ids.tolist(),
        "control_tokens": list(encoded.control_tokens),
    }


def _segments(attribution: Attribution, scores: SegmentScores) -> list[ScoredSegment]:
    encoded = attribution.encoded
    if encoded.characters is None:
        raise ValueError(
            "an encoded trace must know its segments' characters to be recorded, got one built by "
            "hand. Use segattr.encode."
        )
    sums = segment_sums(attribution.token_scores, encoded.segments)
    columns: dict[str, list[Any]] = {
        "characters": list(encoded.characters),
        "tokens": list(encoded.segments),
        **{name: getattr(sums, name).tolist() for name in ("signed", "absolute", "squares")},
        "strength": scores.strength.tolist(),
        "consistency": scores.consistency.tolist(),
        "effective_tokens": scores.effective_tokens.tolist(),
        "important": scores.important.tolist(),
        "kept": scores.kept.tolist(),
    }
    if scores.undecided is not None:
        columns["undecided"] = scores.undecided.tolist()
        columns["strength_error"] = _known(scores.strength_error)
        columns["consistency_error"] = _known(scores.consistency_error)
    if (samples := attribution.segment_samples) is not None:
        errors = (samples[1:] - samples[0]).abs().amax(0)
        columns["signed_error"] = _known(errors[:, 0])
        columns["absolute_error"] = _known(errors[:, 1])
    rows = zip(*columns.values(), strict=True)
    return [ScoredSegment(**dict(zip(columns, row, strict=True))) for row in rows]


def _known(errors: Tensor | None) -> list[float | None]:
    """Errors as numbers; None where none could be estimated."""
    assert errors is not None
    return [error if math.isfinite(error) else None for error in errors.tolist()]


def score_dataset(
    traces: Iterable[tuple[Any, Trace | BadLine]],
    encode: Callable[[Trace], EncodedTrace],
    method: Method,
    scorer: SegmentScorer,
    writer: ScoredWriter,
    requirements: Requirements = NONE,
) -> Iterator[Outcome]:
    """Score traces one after another and write each as soon as it is there.

    One bad trace does not stop the others: whatever it raises becomes an outcome. Only a file that
    cannot be written (OSError) stops the run. A trace is known by its texts (`Trace.digest`): what
    the writer's file holds already is passed over, whatever it is called there. An id that the file
    has for another text is an error; the name of a place, which `read_traces` gives to a trace
    without an id, then gives way to the digest.

    Args:
        traces: As from `read_traces`, or with numbers instead of places.
        encode: Makes tokens of a trace, such as ``partial(segattr.encode, tokenizer=tokenizer)``.
        method: Any attribution method.
        scorer: What chooses the segments to keep.
        writer: Where the scored traces go.
        requirements: What a trace must have; one that lacks it is not written.

    Yields:
        One `Outcome` a trace, in order.
    """
    for place, trace in traces:
        if isinstance(trace, BadLine):
            yield Outcome(place, Kind.FAILED, error=trace.error)
            continue
        began = time.perf_counter()
        try:
            if writer.holds(trace):
                yield Outcome(place, Kind.DUPLICATE if writer.wrote(trace) else Kind.DONE)
                continue
            trace = _under_a_new_name(trace, place, writer)
            scored = score_trace(trace, encode(trace), method, scorer, writer.asked, requirements)
            writer.write(scored)
        except OSError:  # the file, not the trace: nothing after it could be written either
            raise
        except UnfitTraceError as error:
            yield Outcome(place, Kind.LEFT_OUT, error=str(error), flags=error.names)
        except TraceTooLongError as error:
            yield Outcome(place, Kind.TOO_LONG, error=str(error))
        except (ValueError, FloatingPointError, MemoryError) as error:
            yield Outcome(place, Kind.FAILED, error=str(error))
        except Exception as error:  # such as a chat template's own complaint
            yield Outcome(place, Kind.FAILED, error=f"{type(error).__name__}: {error}")
        else:
            yield Outcome(place, Kind.SCORED, scored, seconds=time.perf_counter() - began)


def _under_a_new_name(trace: Trace, place: Any, writer: ScoredWriter) -> Trace:
    """The trace; without its name if that is only its place and the file has it."""
    if isinstance(place, Place) and trace.id == place.name and writer.has_id(place.name):
        return replace(trace, id=None)
    writer.require_new_id(id_of(trace))
    return trace
