"""Which models the fused engine takes, and what of them sends them to autograd."""

from __future__ import annotations

import inspect

import pytest
import torch
from tiny import VARIANTS, make_model
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from segattr import FastIG
from segattr.engine.decoder import why_not_fused


def with_a_patched_class(model, monkeypatch):
    attention = type(model.model.layers[0].self_attn)
    forward = attention.forward

    def patched(self, *arguments, **settings):
        return forward(self, *arguments, **settings)

    monkeypatch.setattr(attention, "forward", patched)


def with_a_global_hook(model, monkeypatch):
    hooks = torch.nn.modules.module._global_forward_hooks
    monkeypatch.setitem(hooks, -1, lambda *_: None)


def hooked(model):
    model.model.layers[1].mlp.register_forward_hook(lambda *_: None)


def adapted(model):
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(target_modules=["q_proj"]), model)


def with_other_layer(model):
    class Halved(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs) / 2

    model.model.layers[0].mlp.down_proj.__class__ = Halved


def with_other_activation(model):
    for layer in model.model.layers:
        layer.mlp.act_fn = nn.GELU()


def with_own_forward(model):
    attention = model.model.layers[0].self_attn
    attention.forward = attention.forward


def with_two_dtypes(model):
    model.model.norm.float()


def with_another_attention(model):
    model.config._attn_implementation = "their_own"


REASONS = {
    with_a_patched_class: "self_attn' has the forward of test_decoder",
    with_a_global_hook: "has hooks",
    hooked: "mlp' has hooks",
    adapted: "q_proj' must be",
    with_other_layer: "down_proj' must be",
    with_other_activation: "act_fn' must be",
    with_own_forward: "a forward of its own",
    with_two_dtypes: "several dtypes",
    with_another_attention: "attention implementation is 'their_own'",
}


@pytest.mark.parametrize("change", REASONS)
def test_what_is_not_plain_goes_to_autograd(change, trace, monkeypatch):
    registered = ALL_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "their_own", registered)
    model = make_model("llama")
    ig = FastIG(model, rule="midpoint", steps=2, scope="all")
    assert ig.attribute(trace).settings["engine"] == "fused"
    arguments = (model, monkeypatch)[: len(inspect.signature(change).parameters)]
    change(*arguments)
    assert REASONS[change] in why_not_fused(model)
    with pytest.raises(ValueError, match="engine='fused' must be able to run the model, but"):
        FastIG(model, rule="auto", engine="fused")
    assert ig.attribute(trace).settings["engine"] == "autograd"


@pytest.mark.parametrize("name", ["gemma", "gpt2", "qwen3-moe", "mixtral"])
def test_other_models_go_to_autograd(name):
    model = make_model(name)
    known = "Llama, Qwen2, Qwen3, Mistral, Phi3, Gemma2, Gemma3"
    assert f"not a transformers {known}" in why_not_fused(model)
    with pytest.raises(ValueError, match="Pass engine='auto'"):
        FastIG(model, rule="auto", engine="fused")


def test_both_of_transformers_silus_are_known():
    assert why_not_fused(make_model("llama", hidden_act="swish")) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"use_bidirectional_attention": True}, "see those after them"),
        ({"hidden_activation": "gelu"}, "act_fn' must be"),
    ],
)
def test_what_gemma_may_be_goes_to_autograd(change, reason):
    assert why_not_fused(make_model("gemma3")) is None
    assert reason in why_not_fused(make_model("gemma3", **change))


@pytest.mark.skipif("gemma2" in VARIANTS, reason="transformers 5 scales them inside")
def test_a_gemma2_that_scales_embeddings_outside_of_their_module_goes_to_autograd():
    assert "embed_tokens' must be" in why_not_fused(make_model("gemma2"))


def test_autocast_goes_to_autograd(trace):
    model = make_model("llama", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert (
            FastIG(model, rule="midpoint", steps=2, scope="all").attribute(trace).settings["engine"]
            == "autograd"
        )


def test_a_subclass_is_another_model():
    model = make_model("llama")
    model.__class__ = type("LlamaForCausalLM", (type(model),), {"__module__": "elsewhere"})
    assert "not a transformers" in why_not_fused(model)
