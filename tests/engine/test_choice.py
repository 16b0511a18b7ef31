"""Which engine a word stands for, and that every engine keeps what the protocol promises."""

from __future__ import annotations

import pytest
import torch
from tiny import make_engine, make_model

from segattr.engine import ENGINES
from segattr.engine.autograd import AutogradEngine
from segattr.engine.choice import engine_class
from segattr.engine.ends import PathEnds
from segattr.engine.fused import FusedEngine


def test_auto_is_fused_where_that_runs():
    assert ENGINES == ("auto", "fused", "autograd")
    chosen = {
        (name, word): engine_class(make_model(name), word)
        for name in ("qwen2", "gemma")
        for word in ("auto", "autograd")
    }
    assert chosen == {
        ("qwen2", "auto"): FusedEngine,
        ("qwen2", "autograd"): AutogradEngine,
        ("gemma", "auto"): AutogradEngine,
        ("gemma", "autograd"): AutogradEngine,
    }
    assert engine_class(make_model("qwen2"), "fused") is FusedEngine
    with pytest.raises(ValueError, match=r"engine='fused' must be able to run the model, but it "):
        engine_class(make_model("gemma"), "fused")


@pytest.mark.parametrize("name", ["fused", "autograd"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_every_engine_has(name, dtype):
    engine = make_engine(make_model("llama", dtype), name, tokens=20, num_targets=2)
    assert (engine.name, engine.backend) == (name, "torch")
    assert (engine.dtype, engine.num_tokens) == (dtype, 20)
    alphas = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    logprobs, values = engine.evaluate(alphas)
    again, recomputed = engine.evaluate(alphas, recompute=True)
    assert (logprobs.shape, values.shape) == ((3,), (3, 20))
    assert torch.equal(logprobs, again)
    assert torch.equal(values, recomputed)
    torch.testing.assert_close(engine.logprob(alphas), logprobs)
    assert 0 < engine.bytes_per_point(recompute=True) < engine.bytes_per_point(recompute=False)


def test_longer_traces_and_answers_take_more():
    model = make_model("llama")
    for name in ("fused", "autograd"):
        sizes = [(20, 2), (40, 2), (40, 4)]
        bytes_ = [make_engine(model, name, *size).bytes_per_point(False) for size in sizes]
        assert bytes_ == sorted(set(bytes_))


def test_rows_that_cannot_reach_the_answer_are_cut_off():
    rows = torch.arange(36.0)[:, None].expand(-1, 4)
    ends = PathEnds.of(torch.arange(36), rows, -rows, target=(32, 35))
    assert ends.target_ids.tolist() == [32, 33, 34]
    assert ends.input_ids[-1] == ends.inputs[-1, 0] == 33  # predicts token 34
    assert torch.equal(ends.baseline, -ends.inputs)
