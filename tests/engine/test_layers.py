"""What the fused engine reads of a decoder."""

from __future__ import annotations

from dataclasses import is_dataclass

import pytest
import torch
from tiny import VARIANTS, make_variant
from torch import Tensor

from segattr.engine.layers import Decoder

WINDOWS = {
    "llama-typed": [None, None, None],
    "qwen2-tied": [None, None, None],
    "qwen2-window": [None, 9, 9],
    "mistral": [None, None, None],
    "mistral-typed": [16, 16, 16],
    "phi3": [None, None, None],
    "phi3-window": [16, 16, 16],
    "gemma3": [16, 16, None],
}


def tensors(part: object) -> list[Tensor]:
    """All weights that a decoder, a layer, a norm or a projection is made of."""
    if isinstance(part, Tensor):
        return [part]
    if is_dataclass(part):
        part = list(vars(part).values())
    return (
        [one for inside in part for one in tensors(inside)]
        if isinstance(part, list | tuple)
        else []
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_every_weight_is_read_once_and_none_is_copied(name):
    model = make_variant(name, torch.bfloat16)
    read = tensors(Decoder.of(model))
    embedding, head = model.get_input_embeddings().weight, model.lm_head.weight
    used = [weight for weight in model.parameters() if weight is not embedding or weight is head]
    assert sum(one.numel() for one in read) == sum(weight.numel() for weight in used)
    starts = {one.data_ptr() for one in read}
    assert len(starts) == len(read)
    ends = {weight.data_ptr(): weight.data_ptr() + weight.nbytes for weight in used}
    for one in read:  # but Gemma's norms, to whose weights 1 is added
        own = any(start <= one.data_ptr() < end for start, end in ends.items())
        assert own or (one.ndim == 1 and name.startswith("gemma"))


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_those_of_the_models_own_layers(name):
    layers = Decoder.of(make_variant(name)).layers
    assert [layer.window for layer in layers] == WINDOWS[name]


def test_layers_that_the_model_does_not_run_are_left_out():
    model = make_variant("qwen2-window")
    model.config.num_hidden_layers = 2
    assert len(Decoder.of(model).layers) == 2
