"""The sweep with secants against the sweep with gradients."""

from __future__ import annotations

import pytest
import torch
from tiny import VARIANTS, assert_close, make_variant

from segattr.engine.ends import PathEnds
from segattr.engine.fused import FusedEngine
from segattr.engine.pieces import Pieces
from segattr.engine.reverse import Gradients
from segattr.engine.secant import Secants


def make_engine_on(model, trace) -> FusedEngine:
    embed = model.get_input_embeddings()
    inputs = embed(trace.input_ids).detach()
    ends = PathEnds.of(trace.input_ids, inputs, embed.weight[:1].expand_as(inputs), trace.target)
    return FusedEngine(model, ends)


@pytest.mark.parametrize("split", ["mean", "content"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_piece_of_no_length_has_the_gradient(name, split, trace):
    engine = make_engine_on(make_variant(name), trace)
    with torch.no_grad():
        points = engine._points(torch.tensor([0.3, 0.3], dtype=torch.float64))
        _, gradients = engine._sweep(points[:1], Gradients(engine.forward), False)
        _, multipliers = engine._sweep(points, Secants(engine.forward, split), False)
    assert_close(multipliers, gradients, 1e-12)


def test_pieces_are_evaluated_together_as_alone(trace):
    engine = make_engine_on(make_variant("qwen3"), trace)
    edges = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=torch.float64)
    logprobs, scores = engine.differences(edges, "mean")
    assert_close(logprobs, engine.logprob(edges), 1e-14)
    for piece in range(3):
        _, alone = engine.differences(edges[piece : piece + 2], "mean")
        assert_close(scores[piece], alone[0], 1e-12)


def test_pieces_say_f_at_both_their_ends(trace):
    engine = make_engine_on(make_variant("llama"), trace)
    pieces = torch.tensor([[0.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    logprobs, scores = Pieces(engine, "mean").evaluate(pieces)
    assert_close(logprobs[:, 0], engine.logprob(pieces[:, 0]), 1e-14)
    assert logprobs[0, 1] == logprobs[1, 0]
    assert_close(scores.sum(1), logprobs[:, 1] - logprobs[:, 0], 1e-12)


def test_a_piece_is_planned_as_two_points(trace):
    engine = make_engine_on(make_variant("llama"), trace)
    pieces = Pieces(engine, "mean")
    assert pieces.num_tokens == 2 * engine.num_tokens
    for recompute in (False, True):
        assert pieces.bytes_per_point(recompute) == 2 * engine.bytes_per_point(recompute)
