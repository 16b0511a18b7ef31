"""Secants along chords are complete, and gradients where the chord is short."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tiny import assert_close, make_variant

from segattr import FastIG
from segattr.engine.ends import PathEnds
from segattr.engine.fused import FusedEngine
from segattr.engine.reverse import Gradients
from segattr.engine.secant import Secants
from segattr.ig import Secant

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import secant_splits

FAMILIES = ["llama-biases", "llama-one-key-head", "qwen2-tied", "qwen3", "mistral-window"]
SPLITS = [secant_splits.Chord, secant_splits.Sdpa]


def make_engine_on(name, trace) -> FusedEngine:
    model = make_variant(name)
    embed = model.get_input_embeddings()
    inputs = embed(trace.input_ids).detach()
    ends = PathEnds.of(trace.input_ids, inputs, embed.weight[:1].expand_as(inputs), trace.target)
    return FusedEngine(model, ends)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("nodes", [1, 8])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_chords_are_complete_however_rough_their_quadrature(
    name, steps, nodes, split, trace, monkeypatch
):
    monkeypatch.setattr(split, "nodes", nodes)
    engine = make_engine_on(name, trace)
    change = engine.logprob(torch.tensor([0.0, 1.0], dtype=torch.float64)).diff().item()
    scores = secant_splits.token_scores(engine, split(engine.forward), steps)
    assert abs(scores.sum().item() - change) < 1e-11 * scores.abs().sum().item()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_short_chord_has_the_gradient(name, split, trace):
    engine = make_engine_on(name, trace)
    with torch.no_grad():
        points = engine._points(torch.tensor([0.3, 0.3], dtype=torch.float64))
        _, gradients = engine._sweep(points[:1], Gradients(engine.forward), False)
        _, multipliers = engine._sweep(points, split(engine.forward), False)
    assert_close(multipliers, gradients, 1e-10)


@pytest.mark.parametrize("split", ["mean", "content"])
def test_the_package_s_own_splits_are_the_package_s_scores(split, trace):
    model = make_variant("qwen2-tied")
    engine = make_engine_on("qwen2-tied", trace)
    ig = FastIG(model, rule=Secant(3, split), baseline=0, scope="all")
    expected = ig.attribute(trace).token_scores
    got = secant_splits.token_scores(engine, Secants(engine.forward, split), 3)
    assert_close(got, expected[: len(got)], 1e-6)


def test_one_piece_depends_on_the_split(trace):
    engine = make_engine_on("qwen3", trace)
    kinds = [Secants(engine.forward, "mean"), *(split(engine.forward) for split in SPLITS)]
    mean, chord, sdpa = (secant_splits.token_scores(engine, kind, 1) for kind in kinds)
    for one, other in ((mean, chord), (mean, sdpa), (chord, sdpa)):
        assert (one - other).norm() > 1e-3 * one.norm()


def test_chord_of_a_function_that_is_known():
    """The mean of the derivative of x^3 from 1 to 3 is 13; what two nodes leave is made good."""
    for nodes in (1, 2):
        (found,) = secant_splits.completed_chord(
            lambda x: x**3,
            [torch.ones(2, dtype=torch.float64)],
            [torch.tensor([3.0, 1.0], dtype=torch.float64)],
            torch.ones(2, dtype=torch.float64),
            own=1,
            nodes=nodes,
        )
        assert found.tolist() == pytest.approx([13, 3])
