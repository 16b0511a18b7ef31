"""Which models can be attributed: causal LMs that look up token ids and answer with logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from segattr.engine.lookup import logits_at
from segattr.engine.model import bare, devices, frozen

SEEN = 4  # tokens that may matter in the test of causality, and as many after them that may not


def require_causal_lm(model: nn.Module) -> None:
    """Raise TypeError or ValueError if the model is not a causal LM that can be attributed."""
    from transformers import PreTrainedModel

    inside = bare(model)
    name = type(inside).__name__
    if not isinstance(inside, PreTrainedModel):
        raise TypeError(
            f"model must be a transformers PreTrainedModel, got {name}. Load it with "
            "AutoModelForCausalLM."
        )
    if inside.config.is_encoder_decoder:
        raise ValueError(
            f"model must be a causal LM, got the encoder-decoder {name}. Use a decoder-only model."
        )
    if not inside.can_generate():
        raise ValueError(
            f"model must be a causal LM with a language-modelling head, got {name}, which cannot "
            "generate. Load it with AutoModelForCausalLM; encoder-only models are not supported."
        )
    if any(weight.is_inference() for weight in model.parameters()):
        raise ValueError(
            f"model must have weights that autograd can use, got a {name} made inside "
            "torch.inference_mode(). Load it outside; it may be attributed inside."
        )
    _require_whole_gradient(inside)
    _require_causal(model)


def _require_whole_gradient(model: Any) -> None:
    """Raise if the model leaves part of its gradient out, as HRM-Text does to train faster."""
    config = model.config
    kept: Any = getattr(config, "L_bp_cycles", None)
    if kept is not None and list(kept) != (whole := [config.L_cycles] * config.H_cycles):
        raise ValueError(
            f"model must have gradients of all its cycles, got {type(model).__name__} with "
            f"L_bp_cycles={list(kept)}. Load it with L_bp_cycles={whole}."
        )


def _require_causal(model: nn.Module) -> None:
    """Raise if a token's logits depend on tokens after it.

    The gradient is exactly zero where attention is masked, whatever the dtype.
    """
    embed: Any = model.get_input_embeddings()  # type: ignore[operator]
    with torch.inference_mode(False), frozen(model), torch.enable_grad():
        # Different ids, as some models see no padding whatever their attention.
        ids = torch.arange(2 * SEEN, dtype=torch.int64)
        try:
            points = embed(ids.to(devices(embed)[0]))[None].detach().requires_grad_()
            logits = logits_at(model, ids, points, len(ids))
            (gradient,) = torch.autograd.grad(logits[0, SEEN - 1].sum(), points)
        except (AssertionError, NotImplementedError) as error:  # several tables, or no gradients
            raise ValueError(
                f"model must run on token ids and have gradients in evaluation mode, got "
                f"{type(bare(model)).__name__}, which says: {error}"
            ) from error
    if gradient[0, SEEN:].nan_to_num().count_nonzero():
        raise ValueError(
            f"model must be causal, got {type(bare(model)).__name__}, whose tokens see those "
            "after them. Encoder-only models are not supported; set is_decoder if it is a decoder."
        )
