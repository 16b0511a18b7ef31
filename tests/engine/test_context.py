"""How long a trace may be, by the ways in which configs say it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny import make_model

from segattr import EncodedTrace, FastIG, TraceTooLongError
from segattr.engine.causal_lm import CausalLM
from segattr.engine.context import context_length

QWEN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
# Model, max_position_embeddings, rope, the context.
CARDS = [
    ("none", 4096, None, 4096),
    ("default", 4096, {"rope_type": "default", "rope_theta": 1e4}, 4096),
    ("Qwen2.5 with YaRN", 32768, QWEN, 131072),
    ("Qwen3 with YaRN", 40960, QWEN, 131072),
    ("YaRN without a length of its own", 32768, {"rope_type": "yarn", "factor": 2}, 65536),
    ("DeepSeek-V3", 163840, {**QWEN, "factor": 40, "original_max_position_embeddings": 4096}, None),
    ("gpt-oss", 131072, {**QWEN, "factor": 32.0, "original_max_position_embeddings": 4096}, None),
    ("linear", 4096, {"type": "linear", "factor": 4.0}, 16384),
    ("dynamic", 2048, {"rope_type": "dynamic", "factor": 2.5}, 5120),
    ("dynamic, by alpha", 32768, {"rope_type": "dynamic", "alpha": 1000.0}, 32768),
    ("Llama 3.2", 131072, {**QWEN, "rope_type": "llama3", "factor": 32.0}, None),
    ("Phi-3", 131072, {"rope_type": "longrope", "long_factor": [1.0], "factor": 32.0}, None),
    ("Phi-3, older", 131072, {"type": "su", "long_factor": [1.0]}, None),
    ("one a type of layer", 512, {"full_attention": QWEN, "sliding_attention": None}, 131072),
]


@pytest.mark.parametrize("name", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize(("named", "rope", "context"), [card[1:] for card in CARDS])
def test_a_factor_counts_where_the_config_leaves_it_out(name, named, rope, context):
    config = SimpleNamespace(max_position_embeddings=named, **{name: rope})
    assert context_length(config) == (context or named)


def test_gemma3_names_its_whole_context():
    rope = {"full_attention": {"rope_type": "linear", "factor": 8.0}}
    config = SimpleNamespace(
        model_type="gemma3_text", max_position_embeddings=131072, rope_parameters=rope
    )
    assert context_length(config) == 131072


@pytest.mark.parametrize("named", [None, -1, 0])
def test_a_config_that_does_not_say(named):
    assert context_length(SimpleNamespace(max_position_embeddings=named)) is None
    assert context_length(SimpleNamespace()) is None


def test_max_length_lowers_and_raises_it():
    model = make_model("qwen2")  # 128 positions
    ids = torch.full((150,), 3)
    trace = EncodedTrace(ids, (0, 5), [(5, 120)], (145, 149))
    for make in (FastIG, FastIG.official):
        assert len(make(model, max_length=150).encode(trace).input_ids) == 150
        with pytest.raises(TraceTooLongError, match="fit max_length = 149 tokens, got 150"):
            make(model, max_length=149).encode(trace)
        with pytest.raises(TraceTooLongError, match="the model's context = 128"):
            make(model).encode(trace)
    assert (
        FastIG(model, rule="midpoint", steps=1, max_length=150, scope="all")
        .attribute(trace)
        .evaluations
        == 1
    )
    with pytest.raises(ValueError, match="max_length must be at least 1, got 0"):
        CausalLM(model, max_length=0)
