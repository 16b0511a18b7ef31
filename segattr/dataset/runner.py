"""Score a data set in this process: traces in, one outcome each, results on disk as they come."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from segattr.dataset.jsonl import BadLine, ScoredWriter
from segattr.dataset.record import scored_record
from segattr.encoding import encode
from segattr.ig.fast_ig import FastIG
from segattr.scores import SegmentScorer
from segattr.trace import Trace, TraceTooLongError
from segattr.training.rows import training_row

Record = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one line of the input."""

    line: int
    kind: str  # "scored", "done before", or with an error "too long" or "failed"
    record: Record | None = None
    error: str | None = None
    seconds: float = 0.0


def score_trace(
    ig: FastIG, scorer: SegmentScorer, trace: Trace, encoding: Mapping[str, Any], settings: Record
) -> Record:
    """Encode, attribute and score one trace; return its record (see `scored_record`).

    Args:
        ig: The attribution method, with its tokenizer.
        scorer: The segment scorer.
        trace: The trace.
        encoding: Keyword arguments of `encode`.
        settings: Written into the record as they are.
    """
    if ig.tokenizer is None:
        raise ValueError(
            "FastIG must have its tokenizer to score traces given as text, got None. Pass "
            "tokenizer=."
        )
    encoded = encode(trace, ig.tokenizer, **encoding)
    attribution = ig.attribute(encoded)
    scores = scorer.score(attribution)
    texts = [
        str(ig.tokenizer.decode(encoded.input_ids[start:stop])) for start, stop in encoded.segments
    ]
    return scored_record(trace, texts, attribution, scores, training_row(encoded, scores), settings)


def score_dataset(
    traces: Iterable[tuple[int, Trace | BadLine]],
    ig: FastIG,
    scorer: SegmentScorer,
    writer: ScoredWriter,
    *,
    encoding: Mapping[str, Any] | None = None,
) -> Iterator[Outcome]:
    """Score traces one after another and write each record as soon as it is there.

    One bad trace does not stop the others: whatever `score_trace` raises becomes an outcome. Only
    a file that cannot be written (OSError) ends the run.

    Yields:
        One `Outcome` a line, in order; traces the writer's file already holds are passed over as
        ``"done before"``.
    """
    for line, trace in traces:
        if isinstance(trace, BadLine):
            yield Outcome(line, "failed", error=trace.error)
            continue
        if trace.id in writer.done:
            yield Outcome(line, "done before")
            continue
        began = time.perf_counter()
        try:
            record = score_trace(ig, scorer, trace, encoding or {}, writer.settings)
            writer.write(record)
        except OSError:  # the file, not the trace: nothing after it could be written either
            raise
        except TraceTooLongError as error:
            yield Outcome(line, "too long", error=str(error))
        except (ValueError, FloatingPointError, MemoryError) as error:
            yield Outcome(line, "failed", error=str(error))
        except Exception as error:  # such as a chat template's own complaint
            yield Outcome(line, "failed", error=f"{type(error).__name__}: {error}")
        else:
            yield Outcome(line, "scored", record, seconds=time.perf_counter() - began)
