"""What is measured: model dimensions with random weights, trace lengths, path points."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from segattr import EncodedTrace

QWEN_VOCABULARY = 151_936
SMALL = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
MODELS = {
    "tiny": SMALL | {"num_hidden_layers": 2, "hidden_size": 32, "vocab_size": 64},
    "small": SMALL | {"vocab_size": 4_096},
    "small, 152k words": SMALL | {"vocab_size": QWEN_VOCABULARY},
    "1.5B": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": QWEN_VOCABULARY,
        "tie_word_embeddings": True,
    },
    "7B": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152_064,
        "tie_word_embeddings": False,
    },
}


@dataclass(frozen=True)
class Shape:
    """A model, a trace length, and how many points of the path are timed."""

    model: str
    tokens: int
    points: int

    def __str__(self) -> str:
        return f"{self.model}-{self.tokens}"


LENGTHS = (2_000, 8_000, 16_000, 32_000)
SUITES = {
    "tiny": [Shape("tiny", 50, 2)],
    "cpu": [Shape("small", 1_000, 10), Shape("small, 152k words", 1_000, 10)],
    "gpu": [Shape(model, tokens, 50) for model in ("1.5B", "7B") for tokens in LENGTHS],
    # One or two chunks: for a GPU that is at hand for minutes.
    "gpu-quick": [
        Shape(model, tokens, points)
        for model, all_points in (("1.5B", (16, 4, 2, 2)), ("7B", (8, 2, 2, 2)))
        for tokens, points in zip(LENGTHS, all_points, strict=True)
    ],
}
# What rules are timed on, beside the bundled model: a model and the length of its trace.
RULE_MODELS = {
    "tiny": [("tiny", 50)],
    "cpu": [("bundled", 0), ("small", 1_000)],
    "gpu": [("1.5B", 8_000)],
    "gpu-quick": [("1.5B", 8_000)],
}


def make_model(name: str) -> Qwen2ForCausalLM:
    """A random model of these dimensions: bfloat16 on a GPU, float32 on the CPU."""
    config = Qwen2Config(**MODELS[name], pad_token_id=0, max_position_embeddings=40_000)
    on_gpu = torch.cuda.is_available()
    torch.manual_seed(0)
    with torch.device("cuda" if on_gpu else "cpu"):
        dtype = torch.bfloat16 if on_gpu else torch.float32
        model = Qwen2ForCausalLM._from_config(config, dtype=dtype)
    # The pad token's embedding starts as zeros, where the norms make the path singular.
    torch.nn.init.normal_(model.get_input_embeddings().weight.data[0], std=0.02)
    return model.eval()


def make_trace(shape: Shape, answer: int = 5) -> EncodedTrace:
    """A trace of random tokens; all of them but the last go through the model."""
    generator = torch.Generator().manual_seed(0)
    words = MODELS[shape.model]["vocab_size"]
    prompt, length = shape.tokens // 8, max(8, shape.tokens // 128)
    stop = shape.tokens - 8 - answer
    starts = list(range(prompt, stop - length, length))
    spans = list(zip(starts, [*starts[1:], stop], strict=True))
    ids = torch.randint(1, words, (shape.tokens + 1,), generator=generator)
    return EncodedTrace(ids, (0, prompt), spans, (shape.tokens + 1 - answer, shape.tokens + 1))


def path_flops(model: Qwen2ForCausalLM, tokens: int) -> float:
    """Floating-point operations that one path point cannot do without: forward, input gradients.

    4 per token and weight of the projections, ``7 T^2`` per query channel of causal attention (2
    forward, 5 backward with its recomputed scores). The last layer needs only its keys and values,
    and what the few answer rows, the embeddings and the head take is not counted.
    """
    *layers, last = model.model.layers
    attention = last.self_attn
    weights = attention.k_proj.weight.numel() + attention.v_proj.weight.numel()
    for layer in layers:
        weights += sum(m.weight.numel() for m in layer.modules() if isinstance(m, torch.nn.Linear))
    channels = len(layers) * attention.q_proj.out_features
    return 4.0 * weights * tokens + 7.0 * channels * tokens**2
