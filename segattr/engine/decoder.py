"""Which models the fused engine knows: their modules, one by one, and what of them it cannot run.

A model is judged by its module tree, not by its name: every module must be exactly the class that
transformers has at this place, with plain weights and without hooks, so that what the fused engine
computes is what the model's own forward would.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

FAMILIES = {
    "llama": "Llama",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "mistral": "Mistral",
    "phi3": "Phi3",
    "gemma2": "Gemma2",
    "gemma3": "Gemma3",
}
# Those whose ops have no kernels.
GEMMA = {"gemma2", "gemma3"}
# Place in the tree -> class; {0} is the family's folder in transformers, {1} its prefix.
HOME = "transformers.models.{0}.modeling_{0}.{1}"
LINEAR = "torch.nn.modules.linear.Linear"
SILU = "transformers.activations.SiLUActivation or torch.nn.modules.activation.SiLU"
# Does nothing: the engines run models in evaluation mode.
DROPOUT = "torch.nn.modules.dropout.Dropout"
LAYER = "model.layers.*"
TREE = {
    "": HOME + "ForCausalLM",
    "model": HOME + "Model",
    "model.embed_tokens": "torch.nn.modules.sparse.Embedding",
    "model.layers": "torch.nn.modules.container.ModuleList",
    LAYER: HOME + "DecoderLayer",
    f"{LAYER}.self_attn": HOME + "Attention",
    **{f"{LAYER}.self_attn.{name}_proj": LINEAR for name in ("q", "k", "v", "o", "qkv")},
    f"{LAYER}.self_attn.q_norm": HOME + "RMSNorm",
    f"{LAYER}.self_attn.k_norm": HOME + "RMSNorm",
    f"{LAYER}.mlp": HOME + "MLP",
    **{f"{LAYER}.mlp.{name}_proj": LINEAR for name in ("gate", "up", "down", "gate_up")},
    **{f"{LAYER}.mlp.{name}_fn": SILU for name in ("act", "activation")},
    f"{LAYER}.input_layernorm": HOME + "RMSNorm",
    f"{LAYER}.post_attention_layernorm": HOME + "RMSNorm",
    **{f"{LAYER}.resid_{name}_dropout": DROPOUT for name in ("attn", "mlp")},
    "model.norm": HOME + "RMSNorm",
    "model.rotary_emb": HOME + "RotaryEmbedding",
    "lm_head": LINEAR,
}
# What differs in Gemma. In transformers 4, Gemma3 has a module for each of its two ropes, and
# Gemma2 scales embeddings outside of their module, which this engine does not.
GEMMA_TREE = {
    **TREE,
    "model": f"{HOME}Model or {HOME}TextModel",
    "model.embed_tokens": HOME + "TextScaledWordEmbedding",
    f"{LAYER}.mlp.act_fn": "transformers.activations.GELUTanh",
    f"{LAYER}.pre_feedforward_layernorm": HOME + "RMSNorm",
    f"{LAYER}.post_feedforward_layernorm": HOME + "RMSNorm",
    "model.rotary_emb_local": HOME + "RotaryEmbedding",
}
LAYER_TYPES = {"full_attention", "sliding_attention"}
FLASH = re.compile(r"flash_attention_\d|[^|]*/.*flash-attn.*")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Families whose models read config.layer_types, and those whose window holds for all layers.
TYPED, WINDOWED = {"qwen2", "qwen3", *GEMMA}, {"mistral", "phi3"}


def why_not_fused(model: nn.Module) -> str | None:
    """Say why the fused engine cannot run this model as it is now; None if it can."""
    family = family_of(model)
    if family not in FAMILIES:
        known = ", ".join(FAMILIES.values())
        return f"it is a {type(model).__name__}, not a transformers {known}"
    tree = GEMMA_TREE if family in GEMMA else TREE
    for name, module in model.named_modules():
        place = re.sub(r"\d+", "*", name)
        expected = tree.get(place, "nothing").format(family, FAMILIES[family])
        if reason := _why_not_plain(module, expected):
            return f"its module {name or 'itself'!r} {reason}"
    return _why_not_weights(model) or _why_not_config(model.config, family)


def _why_not_plain(module: nn.Module, expected: str) -> str | None:
    kind: Any = type(module)
    if f"{kind.__module__}.{kind.__name__}" not in expected.split(" or "):
        return f"must be {expected}, got {kind.__module__}.{kind.__name__}"
    # A class that defines no forward has that of torch's Module.
    if kind.forward.__module__ not in (kind.__module__, nn.Module.__module__):
        return f"has the forward of {kind.forward.__module__}"
    hooked = any(getattr(module, hooks) for hooks in HOOKS)
    hooked |= any(getattr(torch.nn.modules.module, "_global" + hooks) for hooks in HOOKS)
    if "forward" in vars(module) or hooked:
        return "has hooks or a forward of its own"
    return None


def _why_not_weights(model: nn.Module) -> str | None:
    weights = list(model.parameters())
    if len({(weight.dtype, weight.device) for weight in weights}) > 1:
        return "its weights are on several devices or of several dtypes"
    if not weights[0].is_floating_point() or any(
        type(weight.data) is not Tensor for weight in weights
    ):
        return "its weights are quantised or sharded"
    if torch.is_autocast_enabled(weights[0].device.type):
        return "autocast is on"
    return None


def _why_not_config(config: Any, family: str) -> str | None:
    attention = config._attn_implementation
    if attention not in ("eager", "sdpa", "flex_attention") and not FLASH.fullmatch(attention):
        return f"its attention implementation is {attention!r}"
    if family in TYPED and (other := set(config.layer_types) - LAYER_TYPES):
        return f"it has layers of type {', '.join(sorted(other))}"
    if family in GEMMA and getattr(config, "use_bidirectional_attention", False):
        return "its tokens see those after them"
    return None


def layer_types(model: Any) -> list[str]:
    """Which of `LAYER_TYPES` each layer is, as the model's forward has it."""
    config, family = model.config, family_of(model)
    if family in TYPED:
        return list(config.layer_types)
    kind = "sliding_attention" if family in WINDOWED else "full_attention"
    return [kind] * config.num_hidden_layers


def family_of(model: nn.Module) -> str:
    """Its folder in transformers."""
    return type(model).__module__.rpartition("modeling_")[2]
