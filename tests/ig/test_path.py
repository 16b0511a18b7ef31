"""A trace's path: what it computes, what it counts, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from tiny import make_engine, make_model

from segattr import EncodedTrace, FastIG
from segattr.engine.causal_lm import CausalLM
from segattr.engine.planner import Planner
from segattr.ig.baseline import Baseline
from segattr.ig.path import Path, path_ends
from segattr.quadrature.fixed import nodes_and_weights

pytestmark = pytest.mark.usefixtures("exact_norms")


def test_the_integrand_is_what_the_rules_sum(model, trace):
    alphas, weights = nodes_and_weights("midpoint", 5)
    logprobs, values = FastIG(model, rule="auto", scope="all").integrand(trace, alphas)
    assert logprobs.shape == (5,)
    assert values.shape == (5, len(trace.input_ids))
    expected = FastIG(model, rule="midpoint", steps=5, scope="all").attribute(trace).token_scores
    torch.testing.assert_close(weights @ values, expected)
    ends, _ = FastIG(model, rule="auto", scope="all").integrand(trace, [0.0, 1.0])
    assert ends[1].item() == pytest.approx(
        FastIG(model, rule="auto", scope="all").attribute(trace).target_logprob
    )


def test_points_off_the_path_are_refused(model, trace):
    for points in ([], [0.5, 1.5], [-0.1], [float("nan")]):
        with pytest.raises(ValueError, match=r"alphas must be path points in \[0, 1\], got \["):
            FastIG(model, rule="auto", scope="all").integrand(trace, points)
    assert FastIG(model, rule="auto", scope="all").integrand(trace, 0.5)[0].shape == (1,)


def test_f_costs_a_pass_only_where_it_is_not_known(model, trace):
    engine, passes = make_engine(model), []
    path, logprob = Path(engine, Planner(model), len(trace.input_ids)), engine.logprob
    path.evaluate(torch.tensor([0.0, 0.5], dtype=torch.float64))
    engine.logprob = lambda alphas: passes.extend(alphas.tolist()) or logprob(alphas)
    assert path.change() == path.logprob(1.0) - path.logprob(0.0)
    assert passes == [1.0]
    assert path.evaluations == 2


def test_where_tokens_start(model, trace):
    lm = CausalLM(model)
    with torch.no_grad():
        inputs, start = path_ends(lm, trace, Baseline(7, lm), "all")
        _, inside = path_ends(lm, trace, Baseline(7, lm), "reasoning")
        table = model.get_input_embeddings().weight
    assert torch.equal(inputs, table[trace.input_ids])
    assert torch.equal(start, table[7].expand_as(inputs))
    first, last = trace.reasoning
    assert torch.equal(inside[first:last], start[first:last])
    assert torch.equal(inside[:first], inputs[:first])
    assert torch.equal(inside[last:], inputs[last:])


@pytest.mark.parametrize("name", ["qwen2", "gemma3"])
def test_tokens_that_did_not_run_get_nothing(name):
    """Those from the answer's last token on cannot reach it."""
    trace = EncodedTrace(torch.arange(3, 43), (0, 4), [(4, 20)], (24, 26))
    logprobs, values = FastIG(make_model(name), rule="auto", scope="all").integrand(
        trace, [0.25, 0.75]
    )
    assert values.shape == (2, 40)
    assert values[:, 25:].count_nonzero() == 0
    assert values[:, :25].count_nonzero() == 2 * 25
    assert logprobs.isfinite().all()
