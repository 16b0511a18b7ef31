"""The loop over a data set: any method, one outcome a line, what one trace raises stays its own."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial

import pytest
import torch

from segattr import Attribution, EncodedTrace, SegmentScorer, Trace, encode
from segattr.cli.summary import Tally
from segattr.dataset import (
    BadLine,
    Kind,
    Outcome,
    ScoredWriter,
    read_scored,
    score_dataset,
    score_trace,
)
from segattr.dataset.flags import FLAGS, Requirements, UnfitTraceError


class ByLength:
    """An attribution method without a model, a baseline or errors: every token counts 1."""

    def attribute(self, trace: EncodedTrace) -> Attribution:
        if trace.id == "wrong":
            raise LookupError("no such thing")
        scores = torch.ones(len(trace.input_ids))
        return Attribution(scores, trace, -1.0, None, 0, "by-length", settings={"by": "hand"})


@pytest.fixture
def traces(records) -> list[Trace]:
    return [Trace.from_record(record) for record in records[:4]]


def test_any_method_can_be_scored_and_recorded(traces, tokenizer, tmp_path):
    out = tmp_path / "out.jsonl"
    with ScoredWriter(out, {"of": "mine"}) as writer:
        outcomes = list(
            score_dataset(
                enumerate(traces, start=1),
                partial(encode, tokenizer=tokenizer),
                ByLength(),
                SegmentScorer(beta=1.0),
                writer,
            )
        )
    assert [(o.place, o.kind) for o in outcomes] == [(line, Kind.SCORED) for line in (1, 2, 3, 4)]
    for scored, outcome in zip(read_scored(out), outcomes, strict=True):
        assert scored == outcome.scored
        assert (scored.method, scored.ran, scored.asked) == (
            "by-length",
            {"by": "hand"},
            {"of": "mine"},
        )
        assert scored.baseline_logprob is scored.completeness_gap is None
        lengths = [stop - start for start, stop in scored.encoded.segments]
        assert [segment.absolute for segment in scored.segments] == lengths
    tally = Tally()
    for outcome in outcomes:
        tally.add(outcome)
    assert any(line == "0 evaluations in the median" for line in tally.lines())


def test_one_trace_does_not_stop_the_others(traces, tokenizer, tmp_path):
    given = [traces[0], replace(traces[1], id="wrong"), traces[2], traces[0]]
    lines = [*enumerate(given, start=1), (5, BadLine(5, "the line must be JSON"))]
    short = len(encode(traces[2], tokenizer).input_ids) - 1
    limit = {traces[2].id: short}

    def encoded(trace: Trace) -> EncodedTrace:
        return encode(trace, tokenizer, max_length=limit.get(trace.id))

    with ScoredWriter(tmp_path / "out.jsonl") as writer:
        outcomes = list(score_dataset(lines, encoded, ByLength(), SegmentScorer(), writer))
    assert [outcome.kind for outcome in outcomes] == [
        Kind.SCORED,
        Kind.FAILED,
        Kind.TOO_LONG,
        Kind.DUPLICATE,
        Kind.FAILED,
    ]
    assert outcomes[1].error == "LookupError: no such thing"
    assert outcomes[4].error == "the line must be JSON"


class Unsure(ByLength):
    """It says of all but one trace that it has not converged."""

    def attribute(self, trace: EncodedTrace) -> Attribution:
        return replace(super().attribute(trace), converged=trace.id == "easy-01")


def test_what_is_required_decides_what_is_written(traces, tokenizer, tmp_path):
    def score(*names: str) -> list[Outcome]:
        with ScoredWriter(tmp_path / "-".join(("out", *names))) as writer:
            encoded = partial(encode, tokenizer=tokenizer)
            required, scorer = Requirements(names), SegmentScorer()
            given = enumerate(traces[:2], start=1)
            return list(score_dataset(given, encoded, Unsure(), scorer, writer, required))

    first, second = score("gap", "agreement")
    assert (first.kind, first.scored.trustworthy, first.flags) == (Kind.SCORED, True, ())
    assert (second.kind, second.scored, second.flags) == (Kind.LEFT_OUT, None, ["agreement"])
    assert second.error == FLAGS["agreement"]
    for names in ((), ("gap", "rise")):
        assert [outcome.scored.trustworthy for outcome in score(*names)] == [True, False]


def test_why_a_trace_is_left_out_survives_a_pickle():
    error = pickle.loads(pickle.dumps(UnfitTraceError(["gap", "plain"])))
    assert error.names == ["gap", "plain"]
    assert str(error) == f"{FLAGS['gap']}; {FLAGS['plain']}"


def test_traces_without_ids_are_recorded_under_their_digests(records, tokenizer, tmp_path):
    traces = [Trace.from_record({**record, "id": None}) for record in records[:3]]
    out = tmp_path / "out.jsonl"
    for resume, kinds in ((False, [Kind.SCORED] * 2), (True, [Kind.DONE] * 2 + [Kind.SCORED])):
        with ScoredWriter(out, resume=resume) as writer:
            given = enumerate(traces[: len(kinds)], start=1)
            encoded = partial(encode, tokenizer=tokenizer)
            outcomes = list(score_dataset(given, encoded, ByLength(), SegmentScorer(), writer))
        assert [outcome.kind for outcome in outcomes] == kinds
    assert [scored.id for scored in read_scored(out)] == [trace.digest for trace in traces]


def test_a_sequence_built_by_hand_has_no_texts_to_record(traces, tokenizer):
    encoded = encode(traces[0], tokenizer)
    by_hand = EncodedTrace(encoded.input_ids, encoded.prompt, encoded.segments, encoded.target)
    with pytest.raises(ValueError, match=r"must know its segments' characters .* Use segattr.enc"):
        score_trace(traces[0], by_hand, ByLength(), SegmentScorer())
