"""Chunks that fit the memory, and what happens when it runs out."""

from __future__ import annotations

import pytest
import torch
from tiny import make_engine, make_model, make_trace

from segattr import FastIG
from segattr.engine.planner import Plan, Planner


@pytest.mark.parametrize("name", ["fused", "autograd"])
def test_the_plan_shrinks_with_the_memory(name):
    model = make_model("qwen2")
    engine = make_engine(model, name, 40)
    one = engine.bytes_per_point(recompute=False)
    assert engine.bytes_per_point(recompute=True) < one
    plans = {
        budget: Planner(model, int(budget)).plan(engine, 10)
        for budget in (20 * one, 4.5 * one, 0.99 * one, 1)
    }
    assert list(plans.values()) == [Plan(10, False), Plan(4, False), Plan(1, True), Plan(1, True)]


def test_long_traces_go_one_point_at_a_time():
    model = make_model("qwen2")
    assert Planner(model).plan(make_engine(model, tokens=100_000), 50).points == 1


def failing_above(limit: int, model, steps: int):
    """An engine out of memory above so many points; -1: always; 0: unless it recomputes."""
    ig = FastIG(model, rule="midpoint", steps=steps, scope="all")
    tried = []

    def run(alphas, engine):
        evaluate = engine.evaluate

        def evaluate_or_fail(alphas, recompute):
            tried.append((len(alphas), recompute))
            if len(alphas) > max(limit, 1) or limit < 0 or (limit == 0 and not recompute):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return evaluate(alphas, recompute)

        engine.evaluate = evaluate_or_fail
        return Planner.run(ig.planner, alphas, engine)

    ig.planner.run = run
    return ig, tried


@pytest.mark.parametrize(
    ("limit", "plans"),
    [
        (3, [(8, False), (4, False), (2, False), (2, False), (2, False), (2, False)]),
        (0, [(8, False), (4, False), (2, False), (1, False), *[(1, True)] * 8]),
    ],
)
def test_out_of_memory_halves_then_recomputes(limit, plans):
    model, trace = make_model("qwen2"), make_trace()
    expected = FastIG(model, rule="midpoint", steps=8, scope="all").attribute(trace)
    ig, tried = failing_above(limit, model, steps=8)
    got = ig.attribute(trace)
    assert tried == plans
    torch.testing.assert_close(got.token_scores, expected.token_scores, rtol=1e-6, atol=1e-8)
    assert got.target_logprob == pytest.approx(expected.target_logprob)


def test_nothing_fits():
    ig, tried = failing_above(-1, make_model("qwen2"), steps=4)
    with pytest.raises(
        MemoryError,
        match=r"tried \(4 at once; 2 at once; 1 at once; 1 at once with recomputed layers\)",
    ):
        ig.attribute(make_trace())
    assert len(tried) == 4


def test_the_next_trace_starts_with_what_fitted():
    model, trace = make_model("qwen2"), make_trace()
    ig, tried = failing_above(2, model, steps=8)
    ig.planner.max_memory = int(8.5 * make_engine(model).bytes_per_point(False))
    ig.attribute(trace)
    first = len(tried)
    ig.attribute(trace)
    assert tried[0] == (8, False)
    assert tried[first] == (2, False)


def test_a_trace_that_fits_no_plan_does_not_slow_the_others():
    model, trace = make_model("qwen2"), make_trace()
    ig, _ = failing_above(-1, model, steps=8)
    with pytest.raises(MemoryError):
        ig.attribute(trace)
    assert ig.planner.plan(make_engine(model), 8) == Plan(8, False)


def test_the_next_trace_recomputes_if_that_fitted():
    model, trace = make_model("qwen2"), make_trace()
    ig, tried = failing_above(0, model, steps=4)
    ig.planner.max_memory = 10**9
    ig.attribute(trace)
    first = len(tried)
    ig.attribute(trace)
    assert tried[first][1] is True


def test_other_errors_pass_through():
    ig = FastIG(make_model("qwen2"), rule="midpoint", steps=2, scope="all")
    ig.model.model.layers[0].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ig.attribute(make_trace())


@pytest.mark.parametrize("memory", [0, -5])
def test_memory_must_be_positive(memory):
    with pytest.raises(ValueError, match="max_memory must be a positive number of bytes"):
        FastIG(make_model("qwen2"), max_memory=memory)
