"""One scored trace as a JSON object: everything about it, and back again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from segattr.attribution import Attribution
from segattr.scores import SegmentScores
from segattr.trace import EncodedTrace, Trace
from segattr.training.rows import Row

# What every scored record has; `scored_record` puts the id first.
RECORD_KEYS = {"id", "question", "answer", "segments", "settings", "prompt", "input_ids"}
RECORD_KEYS |= {
    "target",
    "evaluations",
    "token_scores",
    "target_logprob",
    "baseline_logprob",
    "completeness_gap",
}


def scored_record(
    trace: Trace,
    texts: Sequence[str],
    attribution: Attribution,
    scores: SegmentScores,
    row: Row,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return everything about one scored trace as a JSON object.

    The columns of the row stand at the top level, so the file can be given to a trainer as it is.
    ``texts`` are the segments' tokens as text: exactly what carries loss if the segment is kept.
    ``tail_ids`` are the tokens that were attributed after the reasoning: stub, answer, closing.
    """
    encoded = attribution.encoded
    undecided = torch.zeros_like(scores.kept) if scores.undecided is None else scores.undecided
    columns = zip(
        texts,
        encoded.segments,
        scores.strength.tolist(),
        scores.consistency.tolist(),
        scores.effective_tokens.tolist(),
        scores.important.tolist(),
        scores.kept.tolist(),
        undecided.tolist(),
        strict=True,
    )
    return {
        "id": trace.id,
        "question": trace.question,
        "answer": trace.answer,
        "segments": [
            {
                "text": text,
                "span": span,
                "strength": strength,
                "consistency": consistency,
                "effective_tokens": effective,
                "important": important,
                "kept": kept,
                "undecided": unsure,
            }
            for text, span, strength, consistency, effective, important, kept, unsure in columns
        ],
        "target_logprob": attribution.target_logprob,
        "baseline_logprob": attribution.baseline_logprob,
        "completeness_gap": attribution.completeness_gap,
        "evaluations": attribution.evaluations,
        "converged": attribution.converged,
        "token_scores": [float(f"{score:.9g}") for score in attribution.token_scores.tolist()],
        "prompt": encoded.prompt,
        "target": encoded.target,
        "tail_ids": encoded.input_ids[encoded.reasoning[1] :].tolist(),
        **row,
        "settings": dict(settings),
        "metadata": dict(trace.metadata),
    }


def reasoning_tokens(record: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens in kept segments, and in all segments, of a scored record."""
    lengths = [(stop - start) for start, stop in (s["span"] for s in record["segments"])]
    kept = (n for n, s in zip(lengths, record["segments"], strict=True) if s["kept"])
    return sum(kept), sum(lengths)


def attribution_of(record: Mapping[str, Any]) -> Attribution:
    """Return the attribution that a record was written from, for another selection.

    It has no ``segment_samples``, so nothing scored from it is called undecided.

    Raises:
        ValueError: If the record is not whole.
    """
    if "tail_ids" not in record:
        raise ValueError(
            f"record {record['id']!r} must have tail_ids to be selected from anew, got a file of "
            "an earlier version. Score the traces again."
        )
    spans = [segment["span"] for segment in record["segments"]]
    stop = spans[-1][1] if spans else 0
    tokens, scores = stop + len(record["tail_ids"]), record["token_scores"]
    if not spans or len(scores) != tokens or None in scores:
        raise ValueError(
            f"record {record['id']!r} must have segments and a score for each of its {tokens} "
            f"attributed tokens, got {len(spans)} and {len(scores)}. Score the trace again."
        )
    encoded = EncodedTrace(
        input_ids=torch.tensor(record["input_ids"][:stop] + record["tail_ids"]),
        prompt=record["prompt"],
        segments=spans,
        target=record["target"],
        response_ids=torch.tensor(record["input_ids"][stop:], dtype=torch.int64),
        id=record["id"],
    )
    return Attribution(
        token_scores=torch.tensor(record["token_scores"]),
        encoded=encoded,
        target_logprob=record["target_logprob"],
        baseline_logprob=record["baseline_logprob"],
        evaluations=record["evaluations"],
        settings=dict(record["settings"]),
        converged=record.get("converged"),
    )


def scores_of(record: Mapping[str, Any]) -> SegmentScores:
    """Return the segment scores as recorded, without their errors."""

    def column(name: str, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([segment[name] for segment in record["segments"]], dtype=dtype)

    return SegmentScores(
        strength=column("strength", torch.float64),
        consistency=column("consistency", torch.float64),
        effective_tokens=column("effective_tokens", torch.float64),
        important=column("important", torch.bool),
        kept=column("kept", torch.bool),
    )
