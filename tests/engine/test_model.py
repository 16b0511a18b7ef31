"""Models as they come: what is inside wrappers, where they run, and freezing."""

from __future__ import annotations

import pytest
import torch
from tiny import make_model
from torch import nn
from torch.distributed import HashStore, destroy_process_group, init_process_group

from segattr import FastIG
from segattr.engine.model import frozen, unwrapped

# torch.compile meets its own.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def one_process():
    """A group of one process, which DistributedDataParallel wants."""
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    destroy_process_group()


WRAPPERS = {
    "compiled": torch.compile,
    "parallel": nn.DataParallel,
    "distributed": nn.parallel.DistributedDataParallel,
    "compiled and distributed": lambda m: nn.parallel.DistributedDataParallel(torch.compile(m)),
    "distributed and compiled": lambda m: torch.compile(nn.parallel.DistributedDataParallel(m)),
}


@pytest.mark.parametrize("engine", ["fused", "autograd"])
@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.usefixtures("one_process")
def test_a_wrapped_model_is_the_model_inside(model, trace, wrap, engine):
    settings = {"rule": "midpoint", "steps": 3, "scope": "all", "engine": engine}
    expected = FastIG(model, **settings).attribute(trace)
    ig = FastIG(WRAPPERS[wrap](model), **settings)
    got = ig.attribute(trace)
    assert torch.equal(got.token_scores, expected.token_scores)
    assert got.settings == expected.settings
    assert ig.model is model


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_adapters_under_a_wrapper_still_count(model, trace, wrap):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False)
    adapted = get_peft_model(model, config)
    expected = FastIG(adapted, rule="midpoint", steps=2, scope="all").attribute(trace)
    got = FastIG(wrap(adapted), rule="midpoint", steps=2, scope="all").attribute(trace)
    assert torch.equal(got.token_scores, expected.token_scores)
    plain = FastIG(make_model("qwen2"), rule="midpoint", steps=2, scope="all").attribute(trace)
    assert not torch.equal(got.token_scores, plain.token_scores)


def test_what_is_not_wrapped_is_itself(model):
    from peft import LoraConfig, get_peft_model

    assert unwrapped(model) is model
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    assert unwrapped(adapted) is adapted


@pytest.mark.parametrize("fails", [False, True])
def test_frozen_models_come_back_as_they_were(model, fails):
    model.train()
    model.model.layers[0].eval()
    model.model.norm.weight.requires_grad_(False)

    def state():
        return (
            [module.training for module in model.modules()],
            [parameter.requires_grad for parameter in model.parameters()],
        )

    before = state()
    try:
        with frozen(model):
            training, trainable = state()
            assert not any(training + trainable)
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert state() == before
