"""A model by a few of its numbers: the same in every dtype, another for another model."""

from __future__ import annotations

import hashlib

import pytest
import torch
from tiny import MODELS, make_model

from segattr.engine.fingerprint import SAMPLED, fingerprint


def by_definition(model) -> str:
    """Weight by weight; rules that were fitted before hold these."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        if not weight.is_meta:
            flat = weight.detach().flatten()
            sample = flat[:: max(1, len(flat) // SAMPLED)][:SAMPLED]
            digest.update(sample.to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("name", MODELS)
def test_a_fingerprint_is_what_it_always_was(name):
    model = make_model(name, torch.float32)
    assert fingerprint(model) == by_definition(model)


def test_the_bundled_model_has_the_fingerprint_it_had(demo):
    assert fingerprint(demo[0]) == "42771ec7cd0d67fa"


def test_a_fingerprint_is_the_model_in_every_dtype():
    model = make_model("llama", torch.float32)
    own = fingerprint(model)
    assert fingerprint(make_model("llama", torch.float32)) == own
    assert fingerprint(make_model("llama", torch.float32).to(torch.bfloat16)) == own
    assert fingerprint(make_model("llama", torch.float32).double()) == own
    assert fingerprint(make_model("llama", torch.float32, num_hidden_layers=2)) != own
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[-1] += 0.01  # one row of one weight
    assert fingerprint(model) != own


def test_a_fingerprint_knows_names_and_shapes():
    torch.manual_seed(0)
    one, other = torch.nn.Linear(4, 6, bias=False), torch.nn.Linear(6, 4, bias=False)
    with torch.no_grad():
        other.weight.copy_(one.weight.reshape(4, 6))
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(torch.nn.Sequential(one)) != fingerprint(one)
    assert fingerprint(one.to("meta")) == fingerprint(torch.nn.Linear(4, 6, bias=False).to("meta"))


def test_weights_that_are_elsewhere_count_by_name_and_shape():
    """Some on the meta device, as accelerate leaves offloaded ones; one of them not contiguous."""
    model = make_model("llama", torch.float32)
    model.model.layers[0].to("meta")
    weight = model.model.layers[1].mlp.up_proj.weight
    weight.data = weight.data.T.contiguous().T
    assert fingerprint(model) == by_definition(model)
    assert fingerprint(model) != fingerprint(make_model("llama", torch.float32))


def test_weights_of_a_class_of_their_own_count_by_name_and_shape():
    """Such as torchao's and DTensor, which do not let themselves be sampled."""

    class Quantised(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.detach.default:
                return args[0]
            raise NotImplementedError(function)

        @staticmethod
        def __new__(cls, shape):
            return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.float32)

        def __init__(self, shape):
            pass

    model = torch.nn.Linear(4, 6)
    whole = fingerprint(model)
    model.weight = torch.nn.Parameter(Quantised((6, 4)), requires_grad=False)
    assert fingerprint(model) != whole
    assert fingerprint(model) == fingerprint(model)


def test_a_device_is_asked_once(monkeypatch):
    model, moved = make_model("llama", torch.float32), []
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: moved.append(1) or cpu(tensor))
    fingerprint(model)
    assert len(moved) == 1
