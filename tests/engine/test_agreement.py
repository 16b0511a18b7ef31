"""Whether an engine computes what the model says is asked once, with little, and of all engines."""

from __future__ import annotations

import pytest
import torch
from tiny import make_model, make_trace

from segattr import EncodedTrace, FastIG
from segattr.engine import agreement
from segattr.engine.autograd import AutogradEngine
from segattr.engine.fused import FusedEngine

ENGINES = {"autograd": AutogradEngine, "fused": FusedEngine}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_an_engine_of_another_function_is_refused(monkeypatch, engine, dtype):
    kind, trace = ENGINES[engine], make_trace()
    model = make_model("qwen2", dtype)
    logprob, off = kind.logprob, 0.0
    monkeypatch.setattr(kind, "logprob", lambda self, alphas: logprob(self, alphas) + off)
    off = {torch.float64: 1e-3, torch.float32: 1e-3, torch.bfloat16: 5.0}[dtype]
    ig = FastIG(model, rule="midpoint", steps=2, engine=engine, scope="all")
    message = f"same log-probability from token ids.* from Qwen2ForCausalLM with engine='{engine}'"
    for attempt in (ig.attribute, lambda trace: ig.integrand(trace, [0.5])):
        with pytest.raises(ValueError, match=message):
            attempt(trace)
    off = 0.0
    assert ig.attribute(trace).evaluations == 2


def test_a_model_that_is_another_function_on_embeddings_is_refused_by_the_fused_engine(trace):
    """As Falcon-H1 scales what it looks up, and not what it is given."""
    model = make_model("qwen2")

    body = type(model.model)
    forward = body.forward

    def scales(self, input_ids=None, inputs_embeds=None, **settings):
        found = 3 * self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        return forward(self, inputs_embeds=found, **settings)

    scales.__module__ = forward.__module__  # as if the family had it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body, "forward", scales)
        with pytest.raises(ValueError, match=r"engine='fused'\. .* Try engine='autograd'"):
            FastIG(model, rule="midpoint", steps=2, engine="fused", scope="all").attribute(trace)
        got = FastIG(model, rule="midpoint", steps=400, engine="autograd", scope="all").attribute(
            trace
        )
        logits = model(input_ids=trace.input_ids[None]).logits[0].log_softmax(-1)
    rows = torch.arange(*trace.target)
    own = logits[rows - 1, trace.input_ids[rows]].sum().item()
    assert got.target_logprob == pytest.approx(own)
    assert got.completeness_gap < 1e-2


def test_it_is_asked_once_a_model_and_engine(model, trace):
    calls = []
    ig = FastIG(model, rule="midpoint", steps=2, scope="all")
    whole = model.register_forward_pre_hook(lambda *_: calls.append(1))
    ig.attribute(trace)  # a hook: autograd
    whole.remove()
    assert len(calls) >= 1
    body = model.model.embed_tokens
    asked = []
    own = agreement.logits_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "logits_of", lambda *a: asked.append(1) or own(*a))
        for _ in range(2):
            assert ig.attribute(trace).evaluations == 2
    assert len(asked) == 1  # now fused
    assert not body._forward_hooks


def test_a_long_trace_is_asked_about_its_end(trace):
    model = make_model("qwen2", max_position_embeddings=4096)
    ids = torch.arange(900) % 90 + 3
    long = EncodedTrace(ids, (0, 5), [(5, 800)], (890, 895))
    lengths = []
    model.get_input_embeddings().register_forward_hook(
        lambda _m, given, _o: lengths.append(given[0].shape[-1])
    )
    FastIG(model, rule="midpoint", steps=1, engine="autograd", scope="all").attribute(long)
    assert agreement.LONGEST in lengths
    wide = EncodedTrace(ids, (0, 5), [(5, 100)], (110, 890))  # an answer longer than that
    FastIG(model, rule="midpoint", steps=1, engine="autograd", scope="all").attribute(wide)


def test_products_that_may_be_rounded_to_less_are_given_more_room():
    exact = agreement._rounding(torch.float32)
    assert exact == agreement._rounding(torch.float64) == torch.finfo(torch.float32).eps
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert agreement._rounding(torch.float32) == 2**-10
        assert agreement._rounding(torch.float64) == exact
    finally:
        torch.set_float32_matmul_precision(before)
    assert agreement._rounding(torch.bfloat16) == torch.finfo(torch.bfloat16).eps
