"""A decoder as the fused engine reads it: weights and numbers, from whatever family they come.

Projections that a model has merged into one weight are slices of it, and take no memory.
Axes: ``T`` tokens, ``D`` hidden size, ``E`` head size, ``O`` outputs of a projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from segattr.engine.decoder import GEMMA, family_of, layer_types
from segattr.engine.reference import compute_dtype


class Norm(NamedTuple):
    """A norm over the last axis; see `rms_norm` for what the weight's dtype means."""

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
        post_attention_norm: Of what the attention adds to the residual stream; ``None``: no norm.
        mlp_norm: Before the MLP.
        gate, up, down: Projections of the MLP.
        gelu: Whether the gate's activation is GELU (its tanh form), not SiLU.
        post_mlp_norm: Of what the MLP adds to the residual stream; ``None``: no norm.
        kind: One of `LAYER_TYPES`.
        head_size: Width of a head.
        scale: What scores are multiplied by.
        window: Tokens a query sees, itself included; ``None``: all.
        softcap: Bound of the scores, which `softcap` keeps within it; ``None``: none.
        attention: The module that transformers' flash attention is called with.
    """

    attention_norm: Norm
    queries: Projection
    keys: Projection
    values: Projection
    output: Projection
    query_norm: Norm | None
    key_norm: Norm | None
    post_attention_norm: Norm | None
    mlp_norm: Norm
    gate: Projection
    up: Projection
    down: Projection
    gelu: bool
    post_mlp_norm: Norm | None
    kind: str
    head_size: int
    scale: float
    window: int | None
    softcap: float | None
    attention: Any


@dataclass(frozen=True, eq=False)
class Decoder:
    """All layers, and what comes after them.

    Args:
        layers: The decoder's.
        norm: After the last of them.
        head: To the logits.
        softcap: Bound of the logits; ``None``: none.
        has_kernels: Whether all its ops are Triton kernels, too.
    """

    layers: list[Layer]
    norm: Norm
    head: Projection
    softcap: float | None
    has_kernels: bool

    @classmethod
    def of(cls, model: Any) -> Decoder:
        """Read a causal LM of which `why_not_fused` says None."""
        body, config, family = model.model, model.config, family_of(model)
        typed = zip(body.layers[: config.num_hidden_layers], layer_types(model), strict=False)
        return cls(
            [_layer(layer, kind, config, family) for layer, kind in typed],
            _norm(body.norm),
            _projection(model.lm_head),
            config.final_logit_softcapping if family in GEMMA else None,
            family not in GEMMA,
        )


def rope_tables(model: Any, inputs: Tensor, positions: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return cosines and sines for every kind of layer, ``[1, T, E]`` or narrower.

    Narrower than a head where only its first numbers are rotated.

    Args:
        model: The causal LM.
        inputs: Whose dtype and device the tables get.
        positions: int64 ``[1, T]``.
    """
    body, kinds = model.model, set(layer_types(model))
    if hasattr(body, "rotary_emb_local"):
        modules = {"sliding_attention": body.rotary_emb_local, "full_attention": body.rotary_emb}
        return {kind: modules[kind](inputs, positions) for kind in kinds}
    if hasattr(body.rotary_emb, "layer_types"):
        return {kind: body.rotary_emb(inputs, positions, kind) for kind in kinds}
    return dict.fromkeys(kinds, body.rotary_emb(inputs, positions))


def _layer(layer: Any, kind: str, config: Any, family: str) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    four_norms = hasattr(layer, "pre_feedforward_layernorm")
    queries, keys, values = _query_key_value(attention)
    gate, up = _gate_up(mlp)
    return Layer(
        attention_norm=_norm(layer.input_layernorm),
        queries=queries,
        keys=keys,
        values=values,
        output=_projection(attention.o_proj),
        query_norm=_norm_if_any(attention, "q_norm"),
        key_norm=_norm_if_any(attention, "k_norm"),
        post_attention_norm=_norm(layer.post_attention_layernorm) if four_norms else None,
        mlp_norm=_norm(
            layer.pre_feedforward_layernorm if four_norms else layer.post_attention_layernorm
        ),
        gate=gate,
        up=up,
        down=_projection(mlp.down_proj),
        gelu=type(getattr(mlp, "act_fn", None)).__name__ == "GELUTanh",
        post_mlp_norm=_norm_if_any(layer, "post_feedforward_layernorm"),
        kind=kind,
        head_size=attention.head_dim,
        scale=attention.scaling,
        window=config.sliding_window if kind == "sliding_attention" else None,
        # Gemma3's attention knows the bound, and does not use it.
        softcap=attention.attn_logit_softcapping if family == "gemma2" else None,
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
    if hasattr(module, "variance_epsilon"):
        return Norm(module.weight, module.variance_epsilon)
    # Gemma's: 1 is added to the weight, and nothing is rounded before the end.
    weight = module.weight.detach()
    return Norm(weight.to(compute_dtype(weight.dtype)) + 1, module.eps)


def _norm_if_any(parent: Any, name: str) -> Norm | None:
    module = getattr(parent, name, None)
    return None if module is None else _norm(module)


def _projection(module: nn.Linear) -> Projection:
    return Projection(module.weight, module.bias)


def _split(module: nn.Linear, *sizes: int) -> list[Projection]:
    weights = module.weight.detach().split(sizes)
    biases = [None] * len(sizes) if module.bias is None else module.bias.detach().split(sizes)
    return [Projection(*parts) for parts in zip(weights, biases, strict=True)]
