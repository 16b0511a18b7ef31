"""A scored trace as a JSON object, and back."""

from __future__ import annotations

import json

import pytest
import torch

from segattr import FastIG, SegmentScorer, Trace, training_row
from segattr.dataset.record import attribution_of, scored_record


@pytest.fixture(scope="module")
def scored(demo, records):
    model, tokenizer = demo
    trace = Trace.from_record({**records[0], "response": " So it is."})
    attribution = FastIG(model, tokenizer, rule="midpoint", steps=4).attribute(trace)
    scores = SegmentScorer().score(attribution)
    texts = ["..."] * len(scores.kept)
    row = training_row(attribution.encoded, scores)
    record = scored_record(trace, texts, attribution, scores, row, {"tau": 0.7})
    return attribution, scores, json.loads(json.dumps(record))


def test_a_record_gives_its_attribution_back(scored):
    attribution, scores, record = scored
    found = attribution_of(record)
    assert torch.equal(found.token_scores, attribution.token_scores)
    for name in ("input_ids", "response_ids"):
        assert torch.equal(getattr(found.encoded, name), getattr(attribution.encoded, name))
    for name in ("prompt", "segments", "target", "id"):
        assert getattr(found.encoded, name) == getattr(attribution.encoded, name)
    assert found.completeness_gap == pytest.approx(attribution.completeness_gap)
    assert len(found.encoded.response_ids) > 2
    again = SegmentScorer().score(found)
    assert torch.equal(again.kept, scores.kept)
    assert torch.equal(again.strength, scores.strength)
    random = [SegmentScorer(select="random").score(a).kept for a in (found, attribution)]
    assert torch.equal(*random)


def test_a_record_of_an_earlier_version_is_refused(scored):
    _, _, record = scored
    old = {name: value for name, value in record.items() if name != "tail_ids"}
    with pytest.raises(ValueError, match=r"must have tail_ids .*Score the traces again"):
        attribution_of(old)
