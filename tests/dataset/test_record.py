"""A scored trace as a JSON object, and back; what is damaged or forged is refused by name."""

from __future__ import annotations

import copy
import json
from dataclasses import fields, replace

import pytest
import torch
from tiny import make_scored

from segattr import FastIG, SegmentScorer, Trace, encode, training_row
from segattr.dataset import SchemaError, ScoredTrace, scored_trace
from segattr.ig.rules import AGREEMENT


@pytest.fixture(scope="module")
def found(demo, records):
    """A trace with a response, its attribution and scores, and its record as read from a file."""
    model, tokenizer = demo
    trace = Trace.from_record({**records[0], "response": " So it is."})
    attribution = FastIG(model, tokenizer, max_evaluations=9, rule="auto", scope="all").attribute(
        encode(trace, tokenizer)
    )
    scorer = SegmentScorer(tau=0.5, beta=1.0)
    with pytest.warns(UserWarning, match="undecided"):
        scored = scored_trace(trace, attribution, scorer, {"model": "bundled"})
    record = json.loads(json.dumps(scored.to_record(), allow_nan=False))
    return trace, attribution, scorer, scored, record


def test_a_record_gives_its_trace_back(found):
    trace, *_, record = found
    again = Trace.from_record(record)
    assert (again.digest, again.id, again.metadata) == (trace.digest, trace.id, trace.metadata)


def test_a_record_of_a_trace_with_everything_gives_it_back():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]}
    trace = Trace(
        question=[{"role": "user", "content": "q"}, call, {"role": "tool", "content": "1"}],
        reasoning="abcdefgh",
        answer="1",
        response="\n\n1",
        tools=[{"type": "function", "function": {"name": "add"}}],
        chat_template_kwargs={"thinking": True},
        untrained=[(0, 2)],
        marks=("<cot>\n", "</cot>"),
        metadata={"level": 3, "note": "a</think>b"},
    )
    scored = make_scored()
    texts = {
        f.name: getattr(trace, f.name) for f in fields(trace) if f.name not in ("id", "segments")
    }
    record = {**scored.to_record(), **texts, "id": trace.digest, "digest": trace.digest}
    again = Trace.from_record(json.loads(json.dumps(record)))
    assert again.digest == trace.digest
    assert (again.id, again.metadata, again.segments) == (trace.digest, trace.metadata, None)


def test_a_record_gives_the_scored_trace_back(found):
    trace, attribution, _, scored, record = found
    again = ScoredTrace.from_record(record)
    assert again == scored
    assert (again.trace.question, again.trace.reasoning) == (trace.question, trace.reasoning)
    assert (again.trace.response, again.trace.answer) == (trace.response, trace.answer)
    assert "".join(again.texts) == trace.reasoning
    assert again.ran == attribution.settings
    assert again.asked == {"model": "bundled"}


def test_the_attribution_comes_back(found):
    _, attribution, scorer, _, record = found
    again = ScoredTrace.from_record(record).attribution
    assert torch.equal(again.token_scores, attribution.token_scores)
    for name in ("input_ids", "response_ids"):
        assert torch.equal(getattr(again.encoded, name), getattr(attribution.encoded, name))
    for name in ("prompt", "segments", "target", "id", "characters"):
        assert getattr(again.encoded, name) == getattr(attribution.encoded, name)
    assert again.completeness_gap == pytest.approx(attribution.completeness_gap)
    assert torch.equal(
        scorer.score(again).strength, ScoredTrace.from_record(record).scores.strength
    )


@pytest.mark.parametrize(
    "scorer", [SegmentScorer(), SegmentScorer(0.9, 0.5), SegmentScorer(normalization="none")]
)
def test_another_selection_needs_no_token_scores(found, scorer):
    _, attribution, _, _, record = found
    anew = scorer.select(ScoredTrace.from_record({**record, "token_scores": None}).sums)
    expected = scorer.score_tokens(attribution.token_scores, attribution.encoded.segments)
    for name in ("strength", "consistency", "effective_tokens", "important", "kept"):
        assert torch.equal(getattr(anew, name), getattr(expected, name))


def test_the_row_is_made_and_not_stored(found):
    _, attribution, scorer, scored, record = found
    kept = scorer.score_tokens(attribution.token_scores, attribution.encoded.segments).kept
    assert scored.row() == training_row(attribution.encoded, weights=kept)
    assert scored.row(prune=True) == training_row(attribution.encoded, weights=kept, prune=True)
    assert not {"labels", "attention_mask", "loss_weights", "assistant_masks"} & record.keys()


def test_errors_that_could_not_be_estimated_are_null(found):
    _, attribution, scorer, _, record = found
    assert any(segment["undecided"] for segment in record["segments"])
    samples = attribution.segment_samples.clone()
    samples[1:] = torch.nan
    blind = replace(attribution, segment_samples=samples)
    with pytest.warns(UserWarning, match="undecided"):
        scored = scored_trace(found[0], blind, scorer)
    assert scored.agreement == 0
    for segment in scored.segments:
        assert segment.absolute_error is segment.strength_error is None
    without = scored_trace(found[0], replace(blind, segment_samples=None), scorer)
    assert {segment.undecided for segment in without.segments} == {None}
    assert without.agreement is None


def test_it_says_whether_it_can_be_trusted(found):
    scored = found[3]
    assert (scored.flags, scored.trustworthy) == (["gap", "agreement"], False)
    assert 0 <= scored.agreement < AGREEMENT
    for flags, trusted in ((["rise", "plain"], True), ([], True), (["rise", "agreement"], False)):
        assert replace(scored, flags=flags).trustworthy is trusted
    blind = replace(scored, baseline_logprob=None, completeness_gap=None)
    assert replace(blind, flags=["agreement"]).trustworthy is False
    assert replace(blind, flags=[], converged=None).trustworthy is None


def test_token_scores_may_be_left_out(found):
    scored = ScoredTrace.from_record({**found[4], "token_scores": None})
    assert scored.row() == found[3].row()
    with pytest.raises(ValueError, match="must have token_scores, got a record without"):
        _ = scored.attribution


def test_it_prints_in_one_line(found):
    assert repr(found[3]).startswith("ScoredTrace('easy-01', integrated-gradients, 8 segments, ")
    assert len(repr(found[3])) < 120


def test_the_digest_is_of_the_texts(found):
    trace = found[0]
    assert trace.digest == replace(trace, id="other", metadata={}).digest
    for name in ("question", "reasoning", "answer", "response"):
        assert trace.digest != replace(trace, segments=None, **{name: "x"}).digest
    chat = [{"role": "user", "content": trace.question}]
    assert replace(trace, question=chat).digest != trace.digest


HUGE = 10**400


@pytest.mark.parametrize(
    "change",
    [
        *({name: None} for name in ("id", "question", "reasoning", "answer", "segments", "prompt")),
        *({name: None} for name in ("target", "input_ids", "response_ids", "evaluations")),
        *({name: None} for name in ("method", "ran", "scorer", "asked", "metadata", "digest")),
        *(
            {name: 3}
            for name in ("segments", "input_ids", "ran", "scorer", "metadata", "reasoning")
        ),
        *({"input_ids": ids} for ids in ([-1], [1.7], ["a"], [True], [], [2], [None], [HUGE])),
        *({"response_ids": ids} for ids in ([-1], [1.5])),
        *({"prompt": span} for span in ("x", [1, 2], [0], [0, 1.5], [0, 10_000], [3, 0], [])),
        *({"target": span} for span in ([0, 1], [5, 5], [1, 10_000])),
        *({"token_scores": scores} for scores in ([], [0.5], "x", [None] * 12, [1e400] * 12)),
        *({"target_logprob": number} for number in (None, float("nan"), "1", float("inf"))),
        {"completeness_gap": -0.5},
        {"evaluations": -1},
        {"evaluations": HUGE},
        {"converged": "yes"},
        *({"agreement": number} for number in (-0.1, 1.5, float("nan"), "1", True)),
        {"scorer": {}, "ran": []},
        {"scorer": {"tau": 3.0, "beta": 0.8, "normalization": "none", "keep_ends": True}},
        {"digest": "0" * 32},
        {"answer": "another"},
        {"segments": []},
    ],
    ids=str,
)
def test_damaged_fields_are_refused_by_name(change):
    record = {**make_scored().to_record(), **change}
    with pytest.raises(ValueError, match=r"the scored trace must be whole, got .+"):
        ScoredTrace.from_record(record)


@pytest.mark.parametrize(
    "change",
    [
        *({name: None} for name in ("tokens", "characters", "strength", "kept", "signed")),
        *({"strength": number} for number in (float("nan"), -0.1, 1.5, "1", float("inf"))),
        *({"consistency": number} for number in (float("nan"), -0.1, 1.5)),
        *({"tokens": span} for span in ([41.5, 50.0], [3, 2], [9, 10], [2, 10_000])),
        *({"characters": span} for span in ([0, 10_000], [1, 0], [-1, 2])),
        {"kept": 1},
        {"important": "yes"},
        {"absolute": -1.0},
        {"squares": float("inf")},
        {"undecided": 0},
        {"strength_error": float("nan")},
    ],
    ids=str,
)
def test_damaged_segments_are_refused_by_name(change):
    record = copy.deepcopy(make_scored().to_record())
    record["segments"][-1].update(change)
    with pytest.raises(ValueError, match=r"the scored trace must be whole, got .+"):
        ScoredTrace.from_record(record)


def test_every_field_is_needed():
    record = make_scored().to_record()
    for name in record:
        rest = {key: value for key, value in record.items() if key != name}
        with pytest.raises(ValueError, match=f"missing required field `{name}`|schema 3, got None"):
            ScoredTrace.from_record(rest)


def test_records_from_before_the_second_to_last_segment_could_be_kept_are_read():
    record = make_scored().to_record()
    assert record["scorer"].pop("keep_second_to_last") is False
    assert ScoredTrace.from_record(record) == make_scored()
    scorer = SegmentScorer(keep_second_to_last=True)
    again = replace(make_scored(), scorer=scorer).to_record()
    assert ScoredTrace.from_record(json.loads(json.dumps(again))).scorer == scorer


def test_another_schema_is_named():
    with pytest.raises(SchemaError, match=r"must be of schema 3, got 7.*Score the traces again"):
        ScoredTrace.from_record({**make_scored().to_record(), "schema": 7})
