"""Which models are refused, and what the refusal says."""

from __future__ import annotations

import architectures
import pytest
import torch
import transformers
from tiny import make_model
from torch import nn

from segattr import FastIG
from segattr.engine.requirements import require_causal_lm


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
    with pytest.raises(ValueError, match="must be causal, got BertLMHeadModel"):
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


def test_weights_made_in_inference_mode_are_refused():
    with torch.inference_mode():
        model = make_model("gemma")
    with pytest.raises(
        ValueError, match=r"made inside torch\.inference_mode\(\)\. Load it outside"
    ):
        FastIG(model)


def test_a_model_that_leaves_gradients_out_is_refused():
    if not hasattr(transformers, "HrmTextConfig"):
        pytest.skip("needs a transformers that has HRM-Text")
    make = architectures.make
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(architectures.SPECIAL, "HrmTextForCausalLM")
        with pytest.raises(ValueError, match=r"L_bp_cycles=\[2\]\. Load it with .*=\[3, 3\]"):
            FastIG(make("HrmTextForCausalLM"), baseline=3)
    FastIG(make("HrmTextForCausalLM"), rule="auto", baseline=3)
