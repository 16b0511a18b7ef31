"""Models as they come: which are refused, what is inside wrappers, and freezing."""

from __future__ import annotations

import pytest
import torch
from tiny import make_model
from torch import nn
from torch.distributed import HashStore, destroy_process_group, init_process_group

from segattr import FastIG
from segattr.engine.model import frozen, require_causal_lm, unwrapped

# torch.compile meets its own.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_models_that_are_no_causal_lm_are_refused():
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertLMHeadModel,
        Qwen2Model,
        T5Config,
        T5ForConditionalGeneration,
    )

    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    with pytest.raises(ValueError, match="encoder-decoder T5"):
        FastIG(
            T5ForConditionalGeneration(
                T5Config(d_model=16, d_ff=16, num_layers=1, num_heads=2, vocab_size=32)
            )
        )
    with pytest.raises(ValueError, match="encoder-only models are not supported"):
        FastIG(BertForMaskedLM(BertConfig(**small, vocab_size=32)))
    # Older transformers: no logits_to_keep for BERT; newer: it would run, seeing the answer.
    with pytest.raises(ValueError, match=r"must be causal|must accept logits_to_keep"):
        FastIG(BertLMHeadModel(BertConfig(**small, vocab_size=32)))
    with pytest.raises(ValueError, match="language-modelling head, got Qwen2Model"):
        FastIG(Qwen2Model(make_model("qwen2").config))
    for other in (nn.Linear(2, 2), "Qwen/Qwen2.5-7B", None, nn.DataParallel(nn.Linear(2, 2))):
        with pytest.raises(TypeError, match="must be a transformers PreTrainedModel, got "):
            FastIG(other)


def test_a_model_whose_tokens_see_those_after_them_is_refused(model):
    model.model.norm.register_forward_hook(lambda _module, _inputs, out: out + out.flip(1))
    with pytest.raises(ValueError, match="must be causal, got Qwen2ForCausalLM"):
        require_causal_lm(model)


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
    settings = {"rule": "midpoint", "steps": 3, "engine": engine}
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
    expected = FastIG(adapted, rule="midpoint", steps=2).attribute(trace)
    got = FastIG(wrap(adapted), rule="midpoint", steps=2).attribute(trace)
    assert torch.equal(got.token_scores, expected.token_scores)
    plain = FastIG(make_model("qwen2"), rule="midpoint", steps=2).attribute(trace)
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
