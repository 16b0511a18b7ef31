"""Models whose weights accelerate brings from the CPU or the disk while they are used."""

from __future__ import annotations

import pytest
import torch
from accelerate import disk_offload, dispatch_model
from tiny import CLOSE, assert_close, make_model

from segattr import FastIG
from segattr.engine.causal_lm import CausalLM
from segattr.engine.model import devices, frozen
from segattr.engine.planner import Planner

PARTS = ("model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb", "lm_head")
SETTINGS = {"rule": "midpoint", "steps": 3, "scope": "all"}


def offload(model, *parts: str, folder) -> torch.nn.Module:
    if parts == PARTS:
        return disk_offload(model, folder, execution_device=torch.device("cpu"))
    places = {part: "disk" if part in parts else "cpu" for part in PARTS}
    return dispatch_model(model, places, main_device="cpu", offload_dir=folder)


@pytest.mark.parametrize("parts", [PARTS[:1], PARTS[1:2], PARTS], ids=["table", "layers", "all"])
@pytest.mark.parametrize("baseline", ["pad", "mean", "zero", 7])
def test_offloaded_weights_give_the_same(trace, tmp_path, parts, baseline):
    model = make_model("llama", tie_word_embeddings=False)
    expected = FastIG(model, **SETTINGS, engine="autograd", baseline=baseline).attribute(trace)
    away = offload(make_model("llama", tie_word_embeddings=False), *parts, folder=tmp_path)
    trainable = [weight.requires_grad for weight in away.parameters()]
    got = FastIG(away, **SETTINGS, baseline=baseline).attribute(trace)
    assert_close(got.token_scores, expected.token_scores, CLOSE)
    assert got.settings["device"] == "cpu"
    assert [weight.requires_grad for weight in away.parameters()] == trainable


def test_where_they_are_when_they_are_used(tmp_path):
    away = offload(make_model("llama"), *PARTS, folder=tmp_path)
    assert {weight.device.type for weight in away.parameters()} == {"meta"}
    assert devices(away) == [torch.device("cpu")]
    assert CausalLM(away).device == torch.device("cpu")
    whole = make_model("llama")
    assert Planner(away).budget() == pytest.approx(Planner(whole).budget(), rel=0.5)
    assert devices(whole) == [torch.device("cpu")]


def test_a_module_that_brings_all_inside_it_counts():
    """As accelerate has it for classes that use their parts' weights without calling them."""

    class Hook:
        execution_device = "cuda:1"

    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    model[0]._hf_hook = Hook()
    assert devices(model) == [torch.device("cuda:1")]
    several = Hook()
    del model[0]._hf_hook
    model[0][0]._hf_hook = type("Several", (), {"hooks": [object(), several]})()
    assert devices(model) == [torch.device("cuda:1")]


def test_weights_that_nothing_brings_are_refused():
    with torch.device("meta"):
        model = make_model("llama")
    with pytest.raises(ValueError, match=r"must have its weights, got model\.embed_tokens on"):
        devices(model)


def test_freezing_survives_weights_that_are_replaced(tmp_path):
    away = offload(make_model("llama"), "model.layers", folder=tmp_path)
    with frozen(away):
        with torch.no_grad():
            away(input_ids=torch.arange(4)[None])
        assert not any(weight.requires_grad for weight in away.parameters())
    assert all(weight.requires_grad for weight in away.parameters())
