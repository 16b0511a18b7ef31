"""The sweep with secants against the sweep with gradients."""

from __future__ import annotations

import pytest
import torch
from tiny import VARIANTS, assert_close, make_variant
from transformers import Qwen2Config, Qwen2ForCausalLM

from segattr.engine.ends import PathEnds
from segattr.engine.fused import FusedEngine
from segattr.engine.pieces import Pieces
from segattr.engine.planner import Plan, Planner
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


@pytest.mark.parametrize(("tokens", "recompute"), [(4_000, False), (32_000, True)])
def test_a_7b_model_has_a_plan_on_a_card_of_80_gb(tokens, recompute, monkeypatch):
    """15 GB of it are weights; nothing is computed here."""
    monkeypatch.setattr("segattr.engine.forward.rope_tables", lambda *_: {})  # not on "meta"
    with torch.device("meta"):
        config = Qwen2Config(
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            vocab_size=152_064,
        )
        model = Qwen2ForCausalLM._from_config(config, dtype=torch.bfloat16)
        rows = torch.zeros(tokens, 3584, dtype=torch.bfloat16)
        ends = PathEnds(torch.zeros(tokens).long(), rows, rows, torch.arange(5))
    pieces = Pieces(FusedEngine(model, ends), "mean")
    free = int(0.8 * (80e9 - 15e9))
    planner = Planner(make_variant("llama"), max_memory=free)
    assert planner.plan(pieces, 1) == Plan(1, recompute)
    assert pieces.bytes_per_point(recompute) <= free
