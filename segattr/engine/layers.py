"""A decoder as the fused engine reads it: weights and numbers, from whatever family they come.

Projections that a model has merged into one weight are slices of it, and take no memory.
Axes: ``D`` hidden size, ``E`` head size, ``O`` outputs of a projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from segattr.engine.decoder import windows


class Norm(NamedTuple):
    """A norm over the last axis."""

    weight: Tensor  # [D] or [E]
    eps: float


class Projection(NamedTuple):
    """A linear layer."""

    weight: Tensor  # [O, D]
    bias: Tensor | None  # [O]


@dataclass(frozen=True, eq=False)
class Layer:
    """One decoder layer.

    Args:
        attention_norm: Before the attention.
        queries, keys, values, output: Projections of the attention.
        query_norm, key_norm: Over each head, before it is rotated; ``None``: no norm.
        mlp_norm: Before the MLP.
        gate, up, down: Projections of the MLP.
        head_size: Width of a head.
        scale: What scores are multiplied by.
        window: Tokens a query sees, itself included; ``None``: all.
        attention: The module that transformers' flash attention is called with.
    """

    attention_norm: Norm
    queries: Projection
    keys: Projection
    values: Projection
    output: Projection
    query_norm: Norm | None
    key_norm: Norm | None
    mlp_norm: Norm
    gate: Projection
    up: Projection
    down: Projection
    head_size: int
    scale: float
    window: int | None
    attention: Any


@dataclass(frozen=True, eq=False)
class Decoder:
    """All layers, and what comes after them."""

    layers: list[Layer]
    norm: Norm
    head: Projection

    @classmethod
    def of(cls, model: Any) -> Decoder:
        """Read a causal LM of which `why_not_fused` says None."""
        body, used = model.model, model.config.num_hidden_layers
        pairs = zip(body.layers[:used], windows(model), strict=False)
        return cls(
            [_layer(layer, window) for layer, window in pairs],
            _norm(body.norm),
            _projection(model.lm_head),
        )


def _layer(layer: Any, window: int | None) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    queries, keys, values = _query_key_value(attention)
    gate, up = _gate_up(mlp)
    return Layer(
        attention_norm=_norm(layer.input_layernorm),
        queries=queries,
        keys=keys,
        values=values,
        output=_projection(attention.o_proj),
        query_norm=_head_norm(attention, "q_norm"),
        key_norm=_head_norm(attention, "k_norm"),
        mlp_norm=_norm(layer.post_attention_layernorm),
        gate=gate,
        up=up,
        down=_projection(mlp.down_proj),
        head_size=attention.head_dim,
        scale=attention.scaling,
        window=window,
        attention=attention,
    )


def _query_key_value(attention: Any) -> list[Projection]:
    if not hasattr(attention, "qkv_proj"):
        return [_projection(getattr(attention, f"{name}_proj")) for name in "qkv"]
    config = attention.config
    queries, keys = config.num_attention_heads, config.num_key_value_heads
    return _split(attention.qkv_proj, *(attention.head_dim * n for n in (queries, keys, keys)))


def _gate_up(mlp: Any) -> list[Projection]:
    if not hasattr(mlp, "gate_up_proj"):
        return [_projection(mlp.gate_proj), _projection(mlp.up_proj)]
    half = mlp.gate_up_proj.out_features // 2
    return _split(mlp.gate_up_proj, half, half)


def _norm(module: Any) -> Norm:
    return Norm(module.weight, module.variance_epsilon)


def _head_norm(attention: Any, name: str) -> Norm | None:
    module = getattr(attention, name, None)
    return None if module is None else _norm(module)


def _projection(module: nn.Linear) -> Projection:
    return Projection(module.weight, module.bias)


def _split(module: nn.Linear, *sizes: int) -> list[Projection]:
    weights = module.weight.detach().split(sizes)
    biases = [None] * len(sizes) if module.bias is None else module.bias.detach().split(sizes)
    return [Projection(*parts) for parts in zip(weights, biases, strict=True)]
