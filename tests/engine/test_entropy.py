"""Segments start where the model hesitates."""

from __future__ import annotations

import torch

from segattr import Trace
from segattr.engine.causal_lm import CausalLM
from segattr.engine.entropy import SHARE, EntropyPeaks, _peaks


def test_peaks_are_the_highest_and_far_enough_apart():
    entropies = torch.zeros(100)
    entropies[[30, 32, 60, 99]] = torch.tensor([3.0, 2.0, 1.0, 9.0])
    assert _peaks(entropies, 8)[:1] == [30]
    assert 60 in _peaks(entropies, 8)
    assert not {32, 99} & set(_peaks(entropies, 8))
    gaps = torch.tensor(_peaks(torch.rand(400), 5)).diff()
    assert gaps.min() >= 5
    assert len(_peaks(torch.rand(400), 1)) <= SHARE * 400


def test_segments_start_at_the_highest_entropies(demo, records):
    model, tokenizer = demo
    trace = Trace.from_record(records[0])
    cut = EntropyPeaks(CausalLM(model, tokenizer), 8, {})(trace)
    assert "".join(cut.segments) == trace.reasoning
    assert len(cut.segments) > 2
    prompt = f"<user>{trace.question}<assistant><think>\n"
    ids = tokenizer(prompt + trace.reasoning, return_offsets_mapping=True)
    with torch.no_grad():
        logits = model(torch.tensor([ids["input_ids"]])).logits[0]
    probabilities = logits.double().softmax(-1)
    entropies = -(probabilities * probabilities.log()).nansum(-1)
    starts = [start - len(prompt) for start, _ in ids["offset_mapping"]]
    of_token = {start: entropies[at - 1] for at, start in enumerate(starts) if start >= 0}
    cuts = [len("".join(cut.segments[:index])) for index in range(1, len(cut.segments))]
    highest = sorted(of_token.values())[-int(SHARE * len(of_token)) :]
    assert all(of_token[at] >= highest[0] for at in cuts)
    inside = list(of_token)[8:-8]  # as far from the ends as segments must be long
    assert max(inside, key=of_token.get) in cuts


def test_own_segments_are_left_alone(demo, records):
    trace = Trace.from_record(records[0])
    own = Trace(trace.question, "ab", "1", segments=["a", "b"])
    assert EntropyPeaks(CausalLM(*demo), None, {})(own) is own
