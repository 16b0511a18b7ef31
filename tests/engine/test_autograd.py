"""What the engine of any causal LM says of its memory, against what autograd really keeps."""

from __future__ import annotations

import pytest
import torch
from tiny import make_engine, make_model

from segattr.engine.autograd import layer_bytes
from segattr.engine.memory import Sizes
from segattr.engine.model import frozen

TOKENS = 64


def saved_bytes(model, tokens: int) -> int:
    """Bytes autograd keeps for the backward pass of one frozen forward, each storage once."""
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    embeds = torch.randn(1, tokens, model.config.hidden_size, dtype=model.dtype, requires_grad=True)
    with frozen(model), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(inputs_embeds=embeds, use_cache=False, logits_to_keep=1).logits
        kept = sum(size for pointer, size in storages.items() if pointer not in weights)
    del output
    return kept


@pytest.mark.parametrize("name", ["qwen2", "llama", "qwen3", "mistral-window", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_estimate_covers_what_autograd_keeps(name, dtype):
    """At most 2.5 times as much: the working memory of a layer or two is in it."""
    model = make_model(name, dtype=dtype)
    estimate = make_engine(model, "autograd", TOKENS, 1).bytes_per_point(recompute=False)
    kept = saved_bytes(model, TOKENS)
    assert kept <= estimate <= 2.5 * kept


def test_a_layer_of_a_7b_model_keeps_what_was_measured():
    """158,840 bytes per token and layer in bfloat16 (Qwen2.5-7B dimensions, frozen, SDPA)."""
    from transformers import Qwen2Config

    config = Qwen2Config(
        hidden_size=3584, intermediate_size=18944, num_attention_heads=28, num_key_value_heads=4
    )
    assert layer_bytes(Sizes.of(config), 2, 8192) == pytest.approx(158_840, rel=0.01)
